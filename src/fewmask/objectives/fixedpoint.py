"""What Fixed-Point GAN minimises: translation between domains, and no change within one.

Rahman Siddiquee et al. 2019, "Learning fixed points in generative adversarial networks", section 3, with its
names; x is of domain c, d is another or the same, G(x, d) = tanh(x + Delta(x, d)):
L_D = -L_adv + 1 L_cls(x, c), and, each term for the target d and once more for d = c,
L_G = L_adv + 1 L_cls(G(x, d), d) + 10 |x - G(G(x, d), c)|_1, and for d = c also lambda_id |x - G(x, c)|_1.
L_adv is the Wasserstein distance with a gradient penalty.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch, Stream
from fewmask.networks.critic import Critic
from fewmask.networks.fixedpoint import ResidualTranslator
from fewmask.objectives.cyclegan import Rate
from fewmask.objectives.lazyadam import asleep, lazy_adam
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.unpaired import batch_at, own_rows, set_rate, shares
from fewmask.objectives.wasserstein import gradient_penalty


@dataclass(frozen=True)
class FixedPointWeights:
    """Of the terms, as released."""

    classes: float = 1.0
    """lambda_cls, of the classification loss."""
    reconstruction: float = 10.0
    """lambda_rec, of the cycle."""
    penalty: float = 10.0
    """lambda_gp."""
    identity: float = 10.0
    """lambda_id: 10 for photographs, 0.1 for brains."""


def translation_losses(
    generator: ResidualTranslator,
    critic: Critic,
    image: Tensor,
    source: Tensor,
    target: Tensor,
    weights: FixedPointWeights,
) -> tuple[Tensor, Tensor]:
    """The generator's loss for one target without lambda_id, a scalar, and G(x, d), (B, C, H, W).

    image: (B, C, H, W); source, target: (B, domains) one-hot.
    """
    made = generator(image, target)
    score, logits = critic.judge(made)
    back = (generator(made, source) - image).abs().mean()
    told = F.cross_entropy(logits, target)
    return -score.mean() + weights.classes * told + weights.reconstruction * back, made


class FixedPointObjective:
    """One update: `critic_steps` of the critic, then one of the generator; batches carry their domains.

    Domains exclude one another, so that classes are told by a softmax where the released code, for faces
    with many attributes, has a sigmoid each. Targets are drawn evenly from all domains, an image's own too.

    Args:
        generator: the translator.
        critic: with as many classes as domains.
        critic_stream: images with domains for the critic's steps, numbered by those steps.
        rate: the learning rate of both.
        critic_steps: per step of the generator.
        weights: of the terms.
        betas: of both Adams; (0.5, 0.999) as released.

    Raises:
        ConfigError: the networks do not fit one another.
    """

    def __init__(
        self,
        generator: ResidualTranslator,
        critic: Critic,
        critic_stream: Stream,
        *,
        rate: Rate,
        critic_steps: int = 5,
        weights: FixedPointWeights | None = None,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        classes = 0 if critic.classes is None else critic.classes.out_features
        if classes != generator.domains:
            raise ConfigError(
                "generator and critic do not fit",
                found=f"{generator.domains} domains, {classes} classes",
                expected="as many classes as domains",
            )
        self.generator, self.critic, self.critic_stream = generator, critic, critic_stream
        self.rate, self.critic_steps = rate, critic_steps
        self.weights = weights or FixedPointWeights()
        self._judges = list(critic.parameters())
        self._adams = {
            "generator": lazy_adam(list(generator.parameters()), rate.lr, betas, 0),
            "critic": lazy_adam(self._judges, rate.lr, betas, 0),
        }

    def modules(self) -> Mapping[str, nn.Module]:
        """Generator and critic."""
        return {"generator": self.generator, "critic": self.critic}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """An Adam each."""
        return self._adams

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimisers."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """Learn from images (B, C, H, W) with labels (B, domains), one-hot."""
        set_rate(self.rate.at(images_seen), *self._adams.values())
        size, told = len(batch) * minimise.ranks, []
        for number in range(self.critic_steps):
            first = images_seen * self.critic_steps + number * size
            mine = batch_at(self.critic_stream, first, batch, minimise)
            told.append(self._judge(mine, self._targets(mine, minimise), minimise))
        distance, penalty, classes = torch.stack(told).mean(dim=0)
        judged = {"distance": distance, "penalty": penalty, "loss_classes": classes}
        return {**self._translate(batch, self._targets(batch, minimise), minimise), **judged}

    def _targets(self, batch: Batch, minimise: Minimise) -> Tensor:
        """Domains to translate this process's images to, one-hot, drawn for the whole batch."""
        size = len(batch) * minimise.ranks
        drawn = torch.randint(self.generator.domains, (size,))
        return F.one_hot(own_rows(drawn, minimise), self.generator.domains).float().to(batch.image.device)

    def _judge(self, batch: Batch, target: Tensor, minimise: Minimise) -> Tensor:
        """A step of the critic; distance, penalty and classification loss."""
        image, source, how = batch.image, _labels(batch), self.weights
        share = own_rows(torch.rand(len(image) * minimise.ranks), minimise).to(image.device)
        with torch.no_grad():
            made = self.generator(image, target)
        seen: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for real, domain, fake, mixed in shares(minimise, image, source, made, share):
                score, logits = self.critic.judge(real)
                distance = score.mean() - self.critic(fake).mean()
                told = F.cross_entropy(logits, domain)
                penalty = gradient_penalty(self.critic, real, fake, mixed)
                seen.append(torch.stack([distance, penalty, told]).detach())
                yield (how.penalty * penalty + how.classes * told - distance) / minimise.parts

        minimise(losses(), self._adams["critic"])
        return torch.stack(seen).mean(dim=0)

    def _translate(self, batch: Batch, target: Tensor, minimise: Minimise) -> dict[str, Tensor]:
        """A step of the generator: to the drawn domain and back, and to the own domain."""
        seen: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for image, source, goal in shares(minimise, batch.image, _labels(batch), target):
                given = (self.generator, self.critic, image, source)
                across, _ = translation_losses(*given, goal, self.weights)
                within, same = translation_losses(*given, source, self.weights)
                identity = (same - image).abs().mean()
                seen.append(identity.detach())
                yield (across + within + self.weights.identity * identity) / minimise.parts

        with asleep(self._judges):
            loss = minimise(losses(), self._adams["generator"])
        return {"loss": loss, "identity": torch.stack(seen).mean()}


def _labels(batch: Batch) -> Tensor:
    if batch.label is None:
        raise ConfigError("translation between domains needs images with domains", found="no labels")
    return batch.label
