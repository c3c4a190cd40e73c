"""What two masked translators minimise: CycleGAN's loss, with masks that are small and smooth.

Zhu et al. 2017, "CycleGAN", equations 1 to 3, with the least squares of its section 4 and the identity of
section 5.2; masks as in Pumarola et al. 2018, "GANimation", equation 2. X diseased, Y healthy, G: X -> Y and
F: Y -> X with masks a and b:
L_G = |D_Y(G(x)) - 1|^2 + |D_X(F(y)) - 1|^2 + 10 (|F(G(x)) - x| + |G(F(y)) - y|) + 5 (|G(y) - y| + |F(x) - x|)
    + area (a + b) + variation (TV(a) + TV(b)), every |.| a mean.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.data.batches import Batch, Stream
from fewmask.networks.attentionmask import MaskedTranslator
from fewmask.networks.critic import Critic
from fewmask.objectives.lazyadam import asleep, lazy_adam
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.unpaired import Falling, batch_at, shares


@dataclass(frozen=True)
class MaskWeights:
    """Of the terms beside the discriminators'."""

    cycle: float = 10.0
    identity: float = 5.0
    area: float = 0.3
    """Of the masks' mean; 0.1 to 1."""
    variation: float = 1e-3
    """Of `total_variation`."""


def total_variation(mask: Tensor) -> Tensor:
    """Mean |difference to the next pixel|, down plus right; mask (B, 1, H, W)."""
    return mask.diff(dim=2).abs().mean() + mask.diff(dim=3).abs().mean()


def least_squares(answer: Tensor, wanted: float) -> Tensor:
    """Mean of (D - wanted)^2 over patches and images (Mao et al. 2017, "LSGAN", equation 9; 1 is real)."""
    return (answer - wanted).square().mean()


class MaskHeadObjective:
    """One update: both generators, then both discriminators, as released for CycleGAN.

    Args:
        heal: G, from diseased to healthy.
        harm: F, from healthy to diseased.
        judge_healthy: D_Y; its patches are asked.
        judge_diseased: D_X.
        healthy: images of the other domain, in batches as large as the diseased ones.
        rate: the learning rate of all.
        weights: of the terms.
        betas: of both Adams.
    """

    def __init__(
        self,
        heal: MaskedTranslator,
        harm: MaskedTranslator,
        judge_healthy: Critic,
        judge_diseased: Critic,
        healthy: Stream,
        *,
        rate: Falling,
        weights: MaskWeights | None = None,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        self.heal, self.harm, self.healthy, self.rate = heal, harm, healthy, rate
        self.judge_healthy, self.judge_diseased = judge_healthy, judge_diseased
        self.weights = weights or MaskWeights()
        self._judges = [*judge_healthy.parameters(), *judge_diseased.parameters()]
        self._adams = {
            "generators": lazy_adam([*heal.parameters(), *harm.parameters()], rate.lr, betas, 0),
            "discriminators": lazy_adam(self._judges, rate.lr, betas, 0),
        }

    def modules(self) -> Mapping[str, nn.Module]:
        """Both generators and both discriminators."""
        return {
            "generator": self.heal,
            "harm": self.harm,
            "judge_healthy": self.judge_healthy,
            "judge_diseased": self.judge_diseased,
        }

    def optimizers(self) -> Mapping[str, Optimizer]:
        """An Adam for the generators, one for the discriminators."""
        return self._adams

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimisers."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """Learn from a batch of diseased images and as many healthy ones."""
        self.rate.slow(images_seen, *self._adams.values())
        sick, well = batch.image, batch_at(self.healthy, images_seen, batch, minimise).image
        made: list[tuple[Tensor, Tensor]] = []
        seen: list[Tensor] = []

        def translations() -> Iterator[Tensor]:
            for x, y in shares(minimise, sick, well):
                loss, fakes, numbers = self.cost(x, y)
                made.append(fakes)
                seen.append(numbers)
                yield loss / minimise.parts

        def judgements() -> Iterator[Tensor]:
            for (x, y), (healed, harmed) in zip(shares(minimise, sick, well), made, strict=True):
                healthy = self._told_apart(self.judge_healthy, y, healed)
                yield (healthy + self._told_apart(self.judge_diseased, x, harmed)) / minimise.parts

        with asleep(self._judges):
            loss = minimise(translations(), self._adams["generators"])
        judged = minimise(judgements(), self._adams["discriminators"])
        cycle, identity, area = torch.stack(seen).mean(dim=0)
        return {"loss": loss, "loss_d": judged, "cycle": cycle, "identity": identity, "area": area}

    def cost(self, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """L_G of diseased x and healthy y, (B, C, H, W) each.

        Returns:
            The loss; G(x) and F(y), detached; cycle and identity error and mean of a, (3,).
        """
        how = self.weights
        (healed, a), (harmed, b) = self.heal(x), self.harm(y)
        fooled = least_squares(self.judge_healthy.patches(healed), 1.0)
        fooled = fooled + least_squares(self.judge_diseased.patches(harmed), 1.0)
        cycle = (self.harm(healed)[0] - x).abs().mean() + (self.heal(harmed)[0] - y).abs().mean()
        identity = (self.heal(y)[0] - y).abs().mean() + (self.harm(x)[0] - x).abs().mean()
        masks = how.area * (a.mean() + b.mean())
        masks = masks + how.variation * (total_variation(a) + total_variation(b))
        loss = fooled + how.cycle * cycle + how.identity * identity + masks
        numbers = torch.stack([cycle, identity, a.mean()]).detach()
        return loss, (healed.detach(), harmed.detach()), numbers

    @staticmethod
    def _told_apart(judge: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum, as released, so that a discriminator learns half as fast."""
        return (least_squares(judge.patches(real), 1.0) + least_squares(judge.patches(fake), 0.0)) / 2
