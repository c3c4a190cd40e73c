"""What a generator that displaces minimises: VA-GAN's game with a smooth, short field and a sparse map.

An experiment, min over (u, m) of -E_diseased[D(warp(x, u) + m)] + lambda |m|_1 + mu |grad u|^2 + nu |u|_1
against the critic of Baumgartner et al. 2018 (VA-GAN, section 3); the penalty on grad u is the diffusion
regulariser of Balakrishnan et al. 2019, "VoxelMorph", section III.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.data.batches import Batch
from fewmask.networks.displacement import Displacer, folded
from fewmask.objectives.cyclegan import Rate
from fewmask.objectives.lazyadam import asleep, lazy_adam
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.unpaired import set_rate, shares
from fewmask.objectives.wasserstein import HealthyCritic


@dataclass(frozen=True)
class DisplacementWeights:
    """Of the terms beside the critic's."""

    added: float = 100.0
    """Of the mean |m|: grey levels that are changed rather than moved."""
    bending: float = 1.0
    """Of `bending`."""
    length: float = 0.1
    """Of the mean |u| over axes and pixels, in pixels."""


def bending(field: Tensor) -> Tensor:
    """Mean over axes and pixels of squared differences to the next pixel, pixels^2; field (B, 2, H, W)."""
    down, right = field.diff(dim=2).square().mean(), field.diff(dim=3).square().mean()
    return down + right


class DisplacementObjective:
    """One update: the critic's steps, then one step of the generator on the batch of diseased images.

    Args:
        generator: the field and the map.
        game: the critic's side.
        rate: the learning rate of both.
        weights: of the terms.
        betas: of the generator's Adam.
    """

    def __init__(
        self,
        generator: Displacer,
        game: HealthyCritic,
        *,
        rate: Rate,
        weights: DisplacementWeights | None = None,
        betas: tuple[float, float] = (0.0, 0.9),
    ) -> None:
        self.generator, self.game, self.rate = generator, game, rate
        self.weights = weights or DisplacementWeights()
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
        told = self.game.learn(lambda sick: self.generator(sick).healthy, batch, images_seen, minimise)
        seen: list[Tensor] = []
        how = self.weights

        def losses() -> Iterator[Tensor]:
            for (image,) in shares(minimise, batch.image):
                moved = self.generator(image)
                size, length = moved.added.abs().mean(), moved.field.abs().mean()
                bent = bending(moved.field)
                seen.append(torch.stack([size, length, bent, folded(moved.field).mean()]).detach())
                beside = how.added * size + how.length * length + how.bending * bent
                yield (beside - self.game.critic(moved.healthy).mean()) / minimise.parts

        with asleep(self.game.parameters):
            loss = minimise(losses(), self._adam)
        size, length, bent, turned = torch.stack(seen).mean(dim=0)
        return {"loss": loss, "size": size, "length": length, "bending": bent, "folded": turned, **told}
