"""What a diffusion network minimises: the error of the noise it finds in an image.

Ho, Jain & Abbeel 2020, "Denoising diffusion probabilistic models" (DDPM), equations 4 and 14; labels are left
out at times (Ho & Salimans 2022, "Classifier-free diffusion guidance", algorithm 1).
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks.diffusion import Denoiser
from fewmask.objectives.average import follow, share_kept
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.segmentation import Schedule
from fewmask.objectives.unpaired import own_rows, shares


@dataclass(frozen=True)
class Noising:
    """How an image turns into noise in so many steps."""

    steps: int = 1000
    """T."""
    kind: Literal["linear", "cosine"] = "linear"
    """"linear": beta from 1e-4 to 0.02 for 1000 steps, and as much noise in the end for another number (DDPM,
    section 4); "cosine" (Nichol & Dhariwal 2021, "Improved DDPM", equation 17)."""

    def __post_init__(self) -> None:
        """Raises `ConfigError` for too few steps."""
        if self.steps < 30:
            raise ConfigError("a diffusion needs more steps", found=f"{self.steps}", expected="at least 30")

    def kept(self) -> Tensor:
        """alpha-bar_t, the image's share of the variance at t = 0 (all of it) to T: (T + 1,), float64."""
        if self.kind == "cosine":
            time = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            squares = torch.cos((time + 0.008) / 1.008 * math.pi / 2).square()
            beta = (1 - squares[1:] / squares[:-1]).clamp(max=0.999)
        else:
            scale = 1000 / self.steps
            beta = torch.linspace(1e-4 * scale, 0.02 * scale, self.steps, dtype=torch.float64)
        return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, dim=0)])


def noised(image: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """x_t = sqrt(alpha-bar_t) x_0 + sqrt(1 - alpha-bar_t) epsilon (DDPM, equation 4).

    Args:
        image: x_0, (B, C, H, W).
        noise: epsilon, standard normal, the same shape.
        kept: alpha-bar_t, (B,).
    """
    kept = kept.to(image)[:, None, None, None]
    return kept.sqrt() * image + (1 - kept).sqrt() * noise


class DiffusionObjective:
    """The mean square of epsilon - epsilon_theta(x_t, t, label), t uniform from 1 to T (DDPM, equation 14).

    Args:
        network: learns.
        images: length of the training in images seen.
        noising: the way to noise.
        unlabelled: share of images whose label is left out.
        average: half-life in images of the averaged weights, which are the result; at first at most a tenth
            of the images seen.
        lr: of Adam; rises over the first twentieth, then falls to 0 as a cosine.

    Raises:
        ConfigError: a share outside 0 to 1.
    """

    def __init__(
        self,
        network: Denoiser,
        *,
        images: int,
        noising: Noising | None = None,
        unlabelled: float = 0.15,
        average: int = 2_000,
        lr: float = 4e-4,
    ) -> None:
        if not 0 <= unlabelled <= 1:
            raise ConfigError(
                "the share of labels left out is out of range", found=f"{unlabelled}", expected="0 to 1"
            )
        self.network, self.average = network, copy.deepcopy(network).requires_grad_(False).eval()
        self.noising, self.unlabelled, self.half_life = noising or Noising(), unlabelled, average
        self._kept = self.noising.kept()
        self.schedule = Schedule(lr, images, warm_up=0.05)
        self._optimizer = Adam(network.parameters(), lr)

    def modules(self) -> Mapping[str, Denoiser]:
        """The network and its average."""
        return {"network": self.network, "average": self.average}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """The network's Adam."""
        return {"network": self._optimizer}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimiser."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step; noise, levels and labels left out are drawn for the whole batch.

        Raises:
            ConfigError: the images have no labels.
        """
        if batch.label is None:
            raise ConfigError("a diffusion network learns with labels, and this batch has none")
        self._optimizer.param_groups[0]["lr"] = self.schedule.at(images_seen)
        image, count = batch.image, len(batch) * minimise.ranks
        level = own_rows(torch.randint(1, self.noising.steps + 1, (count,)), minimise)
        noise = own_rows(torch.randn(count, *image.shape[1:]), minimise).to(image.device)
        told = own_rows((torch.rand(count) >= self.unlabelled).float(), minimise).to(image.device)
        noisy = noised(image, noise, self._kept[level])
        label = batch.label * told[:, None]

        def losses() -> Iterator[Tensor]:
            for some in shares(minimise, noisy, level.to(image.device), label, noise):
                yield (self.network(*some[:3]) - some[3]).square().mean() / minimise.parts

        self.network.train()
        loss = minimise(losses(), self._optimizer)
        follow(self.average, self.network, share_kept(count, min(self.half_life, (images_seen + count) / 10)))
        return {"loss": loss}
