"""An inversion to look at: original, reconstruction, and what lies between."""

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ShapeError
from fewmask.inversion.result import Float, Inversion

DIFFERENCE_SCALE = 0.5
"""The difference that is drawn white (or, negative, black); a quarter of the images' range [-1, 1]."""


def comparison(
    images: NDArray[np.floating],
    inversion: Inversion,
    *,
    channel: int = 0,
    scale: float = DIFFERENCE_SCALE,
) -> Float:
    """For each image a row of three pictures of one channel: (N, 3, H, W) in [-1, 1].

    Original, reconstruction, and (reconstruction - original) / scale around middle grey: 0 where they agree,
    1 (white) where the reconstruction is brighter by `scale` or more, -1 (black) where it is as much darker.

    Raises:
        ShapeError: images of another shape than the reconstructions.
    """
    if images.shape != inversion.images.shape:
        raise ShapeError(
            "these are not the images that were inverted",
            found=f"shape {images.shape}",
            expected=f"shape {inversion.images.shape}",
        )
    original = np.asarray(images[:, channel], dtype=np.float32)
    made = inversion.images[:, channel]
    rows = np.stack([original, made, (made - original) / np.float32(scale)], axis=1)
    return rows.clip(-1.0, 1.0)
