"""What a method that finds disease must beat: no mask, all of the body, and plain brightness."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ShapeError
from fewmask.synthesis.healer import refuse_domains
from fewmask.synthesis.healthy import Domains, Floats, Healthy


@dataclass(frozen=True)
class EmptyMask:
    """A `ToHealthy` that finds nothing: `images` are the ones that were given, delta is 0."""

    def __call__(self, images: Floats) -> Healthy:
        """Images (N, C, H, W) in [-1, 1]."""
        return Healthy(images, np.zeros((len(images), *images.shape[2:]), np.float32))


@dataclass(frozen=True)
class WholeBody:
    """A `ToHealthy` that calls all of the body diseased: delta is 0 or 1; `images` are the ones given.

    body: images (N, C, H, W) in [-1, 1] -> (N, H, W), where the body or the organ is.
    """

    body: Callable[[Floats], NDArray[np.bool_]]

    def __call__(self, images: Floats) -> Healthy:
        """Images (N, C, H, W) in [-1, 1]."""
        return Healthy(images, np.asarray(self.body(images), dtype=np.float32))


@dataclass(frozen=True, eq=False)
class Brightness:
    """A `ToHealthy` that takes for diseased what is brighter than healthy slices: min(x, healthy).

    delta is the mean over channels of max(0, x - healthy), in grey levels.

    healthy: (C, H, W) or (C, 1, 1) in [-1, 1]; made by `of` or `anywhere`.
    """

    healthy: Floats

    @classmethod
    def of(cls, slices: Floats) -> "Brightness":
        """The mean of healthy slices (N, C, H, W), pixel by pixel."""
        refuse_domains(Domains(slices, slices))
        return cls(np.asarray(slices.mean(axis=0, dtype=np.float64), dtype=np.float32))

    @classmethod
    def anywhere(cls, slices: Floats) -> "Brightness":
        """One mean per channel over all pixels of the slices: only the grey level counts, not the place."""
        refuse_domains(Domains(slices, slices))
        mean = slices.mean(axis=(0, 2, 3), dtype=np.float64)
        return cls(np.asarray(mean, dtype=np.float32)[:, None, None])

    def __call__(self, images: Floats) -> Healthy:
        """Images (N, C, H, W) in [-1, 1]; raises `ShapeError` for another size than the healthy slices'."""
        sizes = ((1, 1), images.shape[2:])
        if images.ndim != 4 or len(self.healthy) != images.shape[1] or self.healthy.shape[1:] not in sizes:
            raise ShapeError(
                "images do not fit the healthy slices",
                found=f"{images.shape}",
                expected=f"(N, {', '.join(map(str, self.healthy.shape))})",
                mend="Prepare both in the same way.",
            )
        healthy = np.minimum(images, self.healthy).astype(np.float32)
        return Healthy(healthy, (images - healthy).mean(axis=1, dtype=np.float32))
