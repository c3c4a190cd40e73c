"""What an autoencoder minimises: the error of an image drawn again, of a clean one or of one with noise."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import BLACK, Batch
from fewmask.networks.autoencoder import Autoencoder
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.segmentation import Schedule
from fewmask.objectives.unpaired import own_rows, shares

AIR = 0.02
"""Pixels at most this far above black in every channel are air, to which no noise is added."""


@dataclass(frozen=True)
class CoarseNoise:
    """Gaussian noise in cells as large as a lesion's parts, drawn on a coarse grid and enlarged bilinearly.

    Kascenas, Pugeault & O'Neil 2022, "Denoising autoencoders for unsupervised anomaly detection in brain
    MRI": their standard deviation of 0.2 in [0, 1], at cells of 8 pixels in 128; every batch's grid is
    shifted at random, and nothing is added outside the head.
    """

    deviation: float = 0.4
    """Of the coarse grid's values, in grey levels of [-1, 1]."""
    cell: int = 8
    """Side of a cell in pixels."""

    def __post_init__(self) -> None:
        """Raises `ConfigError` for numbers out of range."""
        if self.deviation <= 0 or self.cell < 1:
            raise ConfigError(
                "the noise is out of range",
                found=f"deviation {self.deviation}, cell {self.cell}",
                expected="a deviation above 0 and cells of 1 pixel or more",
            )

    def draw(self, count: int, channels: int, height: int, width: int) -> Tensor:
        """Noise (count, channels, height, width) from torch's global generator."""
        rows, columns = (-(-side // self.cell) for side in (height, width))
        coarse = torch.randn(count, channels, rows, columns) * self.deviation
        fine = F.interpolate(coarse, scale_factor=float(self.cell), mode="bilinear")
        shift = [int(torch.randint(side, (1,))) for side in fine.shape[2:]]
        return fine.roll(shift, dims=(2, 3))[:, :, :height, :width]


def body(image: Tensor) -> Tensor:
    """1 where an image (B, C, H, W) in [-1, 1] is not air, else 0: (B, 1, H, W)."""
    return (image.amax(dim=1, keepdim=True) > BLACK + AIR).float()


class AutoencoderObjective:
    """The mean error of the clean image and the one drawn from it, or from it with noise.

    Args:
        network: learns; without a code it needs `noise`.
        images: length of the training in images seen.
        error: "l1", the mean absolute error, or "l2", the mean square.
        noise: what is added to the network's input; None for nothing.
        lr: of Adam; rises over the first twentieth, then falls to 0 as a cosine.

    Raises:
        ConfigError: a network with bridges and no noise: it would copy.
    """

    def __init__(
        self,
        network: Autoencoder,
        *,
        images: int,
        error: Literal["l1", "l2"] = "l2",
        noise: CoarseNoise | None = None,
        lr: float = 1e-3,
    ) -> None:
        if network.bridges and noise is None:
            raise ConfigError(
                "an autoencoder without a code would copy its input",
                expected="noise to take away, or a code of 1 or more",
            )
        self.network, self.noise = network, noise
        self._error = F.l1_loss if error == "l1" else F.mse_loss
        self.schedule = Schedule(lr, images, warm_up=0.05)
        self._optimizer = Adam(network.parameters(), lr)

    def modules(self) -> Mapping[str, Autoencoder]:
        """The network."""
        return {"network": self.network}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Its Adam."""
        return {"network": self._optimizer}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimiser."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step."""
        self._optimizer.param_groups[0]["lr"] = self.schedule.at(images_seen)
        given = batch.image
        if self.noise is not None:
            _, channels, height, width = given.shape
            drawn = self.noise.draw(len(given) * minimise.ranks, channels, height, width)
            given = given + body(given) * own_rows(drawn, minimise).to(given.device)

        def losses() -> Iterator[Tensor]:
            for image, shown in shares(minimise, batch.image, given):
                yield self._error(self.network(shown), image) / minimise.parts

        self.network.train()
        return {"loss": minimise(losses(), self._optimizer)}
