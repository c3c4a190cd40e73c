"""What VA-GAN minimises: an additive map that makes images healthy for a critic, and is as small as can be.

Baumgartner et al. 2018, "Visual feature attribution using Wasserstein GANs", section 3:
min_M max_D  E_healthy[D(x)] - E_diseased[D(x + M(x))] + lambda |M(x)|_1, D of slope 1.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.data.batches import Batch
from fewmask.networks.vagan import AdditiveMap
from fewmask.objectives.cyclegan import Rate
from fewmask.objectives.lazyadam import asleep, lazy_adam
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.unpaired import set_rate, shares
from fewmask.objectives.wasserstein import HealthyCritic


class AdditiveMapObjective:
    """One update: the critic's steps, then one step of the generator on the batch of diseased images.

    Args:
        generator: the map M.
        game: the critic's side.
        rate: the learning rate of both.
        sparsity: lambda, weight of the mean |M|; 100 as released, for images of 112 px: a mean over fewer
            pixels weighs more against the critic, whose slope is 1 per image.
        betas: of the generator's Adam.
    """

    def __init__(
        self,
        generator: AdditiveMap,
        game: HealthyCritic,
        *,
        rate: Rate,
        sparsity: float = 100.0,
        betas: tuple[float, float] = (0.0, 0.9),
    ) -> None:
        self.generator, self.game, self.rate, self.sparsity = generator, game, rate, sparsity
        self._adam = lazy_adam(list(generator.parameters()), rate.lr, betas, 0)

    def modules(self) -> Mapping[str, nn.Module]:
        """Generator and critic."""
        return {"generator": self.generator, "critic": self.game.critic}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """An Adam each."""
        return {"generator": self._adam, "critic": self.game.adam}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimisers."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """Learn from diseased images, after the critic has."""
        set_rate(self.rate.at(images_seen), self._adam, self.game.adam)
        told = self.game.learn(lambda sick: sick + self.generator(sick), batch, images_seen, minimise)
        sizes: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for (image,) in shares(minimise, batch.image):
                added = self.generator(image)
                size = added.abs().mean()
                sizes.append(size.detach())
                yield (self.sparsity * size - self.game.critic(image + added).mean()) / minimise.parts

        with asleep(self.game.parameters):
            loss = minimise(losses(), self._adam)
        return {"loss": loss, "size": torch.stack(sizes).mean(), **told}
