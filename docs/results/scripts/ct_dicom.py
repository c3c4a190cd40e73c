"""Check the DICOM-SEG of a segmented CT: geometry as highdicom reads it, and Dice against a lung mask.

python docs/results/scripts/ct_dicom.py MASKS/dicom.dcm CT_FOLDER LUNG.nrrd PICTURE.png
"""

import sys
from pathlib import Path

import highdicom
import numpy as np

from fewmask.core.volume import LPS_TO_RAS, Grid
from fewmask.data.dicomseg import read_dicom_seg
from fewmask.data.io import read_mask, read_volume
from fewmask.data.overlay import montage, overlay, save_png, with_legend
from fewmask.metrics.overlap import dice
from fewmask.metrics.surface import surface_distances

LUNGS = ("left_lung", "right_lung")


def main() -> None:
    """Print the numbers of docs/results/ct-dicom.md."""
    seg, folder, lung, picture = (Path(word) for word in sys.argv[1:5])
    ct, truth = read_volume(folder), read_mask(lung)
    theirs = highdicom.seg.segread(seg).get_volume(combine_segments=True)
    affine = LPS_TO_RAS @ theirs.affine
    order = affine[:, [2, 1, 0, 3]]  # highdicom counts (slice, row, column)
    grid = Grid(theirs.spatial_shape, order)
    print(f"series {ct.shape}, spacing {np.round(ct.spacing_mm, 3)} mm; SEG read by highdicom {grid.shape}")
    apart = np.linalg.norm(grid.corners_mm()[:, None] - ct.grid.corners_mm()[None], axis=2).min(axis=1).max()
    print(f"corners of SEG and series lie at most {apart:.6f} mm apart")
    segments = read_dicom_seg(seg, onto=ct.grid)
    predicted = np.zeros(ct.shape, dtype=bool)
    for name in LUNGS:
        predicted |= np.asarray(segments[name].voxels) > 0
    reference = np.asarray(truth.voxels) > 0
    distances = surface_distances(predicted, reference, ct.spacing_mm)
    print(f"lung Dice {dice(predicted, reference):.3f}")
    print(f"ASSD {distances.assd_mm:.2f} mm, HD95 {distances.hd95_mm:.2f} mm")
    shown = []
    for z in np.linspace(8, ct.shape[0] - 9, 6).round().astype(int):
        labels = sum((np.asarray(segments[name].voxels[z]) > 0) * (n + 1) for n, name in enumerate(LUNGS))
        shown.append(
            overlay(ct.voxels[z], np.asarray(labels, np.uint8), window=(-1000, 400), size=(256, 256))
        )
    sheet = montage(shown, columns=3)
    save_png(picture, with_legend(sheet, {name: n + 1 for n, name in enumerate(LUNGS)}))


if __name__ == "__main__":
    main()
