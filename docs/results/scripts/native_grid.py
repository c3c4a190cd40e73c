"""Read masks that a run wrote with two other programs, and measure how far they lie from their scans.

python docs/results/scripts/native_grid.py RUN/cases/ARM IMAGES
"""

import sys
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from fewmask.core.volume import LPS_TO_RAS, Grid, corner_displacement_mm


def by_nibabel(path: Path) -> Grid:
    image = nibabel.load(path)
    return Grid(image.shape[::-1], image.affine)


def by_simpleitk(path: Path) -> Grid:
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Grid(image.GetSize()[::-1], LPS_TO_RAS @ affine)


def main() -> None:
    masks, images = (Path(word) for word in sys.argv[1:3])
    worst = 0.0
    paths = sorted(masks.glob("*.nii.gz"))
    for path in paths:
        scan = by_nibabel(images / path.name)
        worst = max(worst, *(corner_displacement_mm(read(path), scan) for read in (by_nibabel, by_simpleitk)))
    print(f"{len(paths)} masks; largest corner displacement from their scans {worst:.2g} mm")


if __name__ == "__main__":
    main()
