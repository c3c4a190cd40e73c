"""How a generated image, [-1, 1] in each channel, lies in a file of whole grey levels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewmask.core.volume import Mask, Volume
from fewmask.data.io import write_mask, write_volume

ImageFormat = Literal["png", "nifti"]

LEVELS: Mapping[str, int] = {"png": 255, "nifti": 4095}
"""Grey levels that [-1, 1] becomes: every program shows 8-bit pictures, and scans of 12 bit."""
SUFFIX: Mapping[str, str] = {"png": ".png", "nifti": ".nii.gz"}
PLACE = {"png": np.eye(4), "nifti": np.diag([-1.0, -1.0, 1.0, 1.0])}
"""Pictures lie nowhere; a NIfTI lies as an axial slice does, so that viewers show it upright."""


def grey_levels(plane: NDArray[np.floating], image_format: ImageFormat) -> NDArray[np.uint16]:
    """[-1, 1] as whole grey levels from 0, in the smallest type that holds them."""
    levels = LEVELS[image_format]
    return np.rint((plane + 1) / 2 * levels).astype(np.uint8 if levels < 256 else np.uint16)


def from_grey_levels(voxels: NDArray[np.generic], image_format: ImageFormat) -> NDArray[np.float32]:
    """Back to [-1, 1], float32."""
    return np.asarray(voxels.astype(np.float32) / LEVELS[image_format] * 2 - 1, dtype=np.float32)


def write_plane(path: Path, plane: NDArray[np.floating], image_format: ImageFormat) -> Path:
    """Write one channel (H, W) at `path`, given without its suffix; returns the file."""
    voxels = grey_levels(plane, image_format)[np.newaxis]
    return write_volume(_named(path, image_format), Volume(voxels, PLACE[image_format]))


def write_labels(path: Path, mask: NDArray[np.uint8], image_format: ImageFormat) -> Path:
    """Write a mask (H, W) at `path`, given without its suffix, in the place of its image."""
    return write_mask(_named(path, image_format), Mask(mask[np.newaxis], PLACE[image_format]))


def _named(path: Path, image_format: ImageFormat) -> Path:
    return path.with_name(path.name + SUFFIX[image_format])
