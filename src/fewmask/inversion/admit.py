"""What may be inverted: every fault of the images or latents is told before hours are spent on them."""

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.networks.generator import ImageGenerator


def check_images(generator: ImageGenerator, images: NDArray[np.floating]) -> None:
    """Images must be (N, C, R, R) as the generator draws them, and numbers throughout.

    A constant image is admitted; `residual` flags it.

    Raises:
        ShapeError: another shape.
        DataError: a pixel is NaN or infinite.
    """
    size = generator.resolution
    expected = ("N", generator.channels, size, size)
    if images.ndim != 4 or images.shape[1:] != expected[1:] or len(images) == 0:
        raise ShapeError(
            "these images cannot come from this generator",
            found=f"shape {images.shape}",
            expected=f"shape {expected}",
            mend="Prepare the images with the settings the generator was trained with.",
        )
    _refuse_holes(images, "image")


def check_latents(
    generator: ImageGenerator,
    ws: NDArray[np.floating],
    count: int,
    *,
    what: str = "the latents to start from",
) -> None:
    """Latents must be (count, num_ws, w_dim) of this generator, and numbers throughout.

    Raises:
        ShapeError: another shape: another generator's latents, or of other images.
        DataError: a value is NaN or infinite.
    """
    expected = (count, generator.num_ws, generator.w_dim)
    if ws.shape != expected:
        raise ShapeError(
            f"{what} do not fit",
            found=f"shape {ws.shape}",
            expected=f"shape {expected}: images, styles of this generator, length of a style",
            mend="Use latents of the same images, made with this very generator.",
        )
    _refuse_holes(ws, "latent")


def check_counts(steps: int, batch_size: int, save_every: int) -> None:
    """Raises `ConfigError` for counts that make no sense."""
    if steps < 0 or batch_size < 1 or save_every < 1:
        raise ConfigError(
            "an inversion needs steps >= 0, batch_size >= 1 and save_every >= 1",
            found=f"steps={steps}, batch_size={batch_size}, save_every={save_every}",
        )


def _refuse_holes(values: NDArray[np.floating], what: str) -> None:
    whole = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not whole.all():
        bad = np.flatnonzero(~whole)
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise DataError(
            f"values that are not numbers (NaN or infinite) in {len(bad)} of {len(values)} {what}s",
            found=f"{what} {', '.join(str(n) for n in bad[:5])}{more}, counted from 0",
            mend="Leave these out, or mend them where they were made.",
        )
