"""LIDC's outlines as masks on the grid of their CT: exact, without any resampling.

An outline is a chain of pixels. By LIDC's convention it is the first ring of pixels outside the nodule, so a
pixel belongs to the nodule when the chain encloses it and it is not on the chain (pylidc's default too). A
region of `inclusion` FALSE is a hole by the same rule: what its chain encloses is taken out, the chain
itself stays nodule. Consecutive points that do not touch are joined by a straight line. A chain that encloses
nothing gives no voxel, and this is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import line

from fewmask.core.errors import DataError
from fewmask.core.volume import Grid, Mask
from fewmask.data.dicomslices import find_slices
from fewmask.data.filetype import NIFTI, suffix_of
from fewmask.data.io import read_grid
from fewmask.data.lidc import Mark, Outline, Reading

Bool = NDArray[np.bool_]
Pixels = Literal["stored", "supine"]

NEAR = 0.5
"""A slice is found by its height when it lies within this part of the slice distance."""


@dataclass(frozen=True, eq=False)
class Scan:
    """Where LIDC's pixel coordinates lie in a CT as it is stored."""

    grid: Grid
    slices: dict[str, int]
    """Index of a slice by the UID of its DICOM image; empty for other formats."""
    flipped: tuple[bool, bool]
    """Whether x and y of the stored array run against DICOM's."""

    def index(self, outline: Outline, where: str) -> int:
        """Which slice an outline lies on: by its image's UID, else by its height.

        Raises:
            DataError: no slice has that UID, and none lies at that height.
        """
        if outline.sop_uid in self.slices:
            return self.slices[outline.sop_uid]
        heights = self.grid.to_mm([(0, 0, z) for z in range(self.grid.shape[0])])[:, 2]
        if outline.z_mm is not None:
            nearest = int(np.abs(heights - outline.z_mm).argmin())
            if abs(heights[nearest] - outline.z_mm) <= NEAR * self.grid.spacing_mm[0]:
                return nearest
        raise DataError(
            "an outline lies on no slice of this CT",
            where=where,
            found=f"z {outline.z_mm} mm, image {outline.sop_uid or 'unnamed'}",
            expected=f"z from {heights.min():g} to {heights.max():g} mm",
            mend="Does the file belong to another series? Compare the SeriesInstanceUid.",
        )

    def places(self, outline: Outline, where: str) -> NDArray[np.int64]:
        """Pixels (n, 2) as (y, x) of the stored array.

        Raises:
            DataError: a point outside the slice.
        """
        _, height, width = self.grid.shape
        x, y = outline.points.T
        if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
            raise DataError(
                "an outline leaves the slice",
                where=where,
                found=f"x {x.min()} to {x.max()}, y {y.min()} to {y.max()}",
                expected=f"x below {width}, y below {height}",
                mend="Does the file belong to another series? Was the CT resampled?",
            )
        x = width - 1 - x if self.flipped[0] else x
        y = height - 1 - y if self.flipped[1] else y
        return np.stack([y, x], axis=1)


def open_scan(path: Path, *, series: str | None = None, pixels: Pixels | None = None) -> Scan:
    """Where LIDC's coordinates lie in the CT at `path`: a DICOM folder, MHD, MHA, NRRD or NIfTI. No voxel.

    Args:
        path: the CT, axial and not resampled.
        series: which DICOM series of a folder with several.
        pixels: "stored": pixel (0, 0) is the first of the stored array, as in DICOM and in what ITK converts
            (LUNA16's MHD of prone patients too). "supine": the array may have been flipped by its converter,
            and pixel (0, 0) is the corner that lies most to the right and in front. Default: "supine" for
            NIfTI, whose converters flip; else "stored".

    Raises:
        DataError: unreadable, or the third axis of the array does not run along the patient.
    """
    grid = read_grid(path, series=series)
    columns = np.abs(grid.directions)
    if not (columns.argmax(axis=0) == (0, 1, 2)).all() or columns.max(axis=0).min() < 0.999:
        raise DataError(
            "LIDC's outlines lie on axial slices, and this scan is stored in another orientation",
            where=str(path),
            found=f"axes x, y, z along {np.round(grid.directions.T, 3).tolist()} (right, anterior, superior)",
            mend="Give the CT as it came from LIDC (DICOM), or an unrotated conversion.",
        )
    how = pixels or ("supine" if suffix_of(path) in NIFTI else "stored")
    flipped = (False, False)
    if how == "supine":  # DICOM of a supine patient: x runs to the left, y to the back
        flipped = (bool(grid.affine[0, 0] > 0), bool(grid.affine[1, 1] > 0))
    return Scan(grid, _slices(path, grid, series), flipped)


def _slices(path: Path, grid: Grid, series: str | None) -> dict[str, int]:
    """Index of every DICOM image of the series by its UID, by its position along the slices' normal."""
    if not path.is_dir():
        return {}
    inverse = np.linalg.inv(grid.affine)
    found = {}
    for one in find_slices(sorted(path.iterdir())).slices:
        if one.position is not None and (series is None or one.uid.endswith(series)):
            ras = np.array([-one.position[0], -one.position[1], one.position[2], 1.0])
            found[one.instance] = round(float((inverse @ ras)[2]))
    return found


@dataclass(frozen=True, eq=False)
class Drawn:
    """One reader's nodule in a box of the CT."""

    mark: Mark
    start: tuple[int, int, int]
    """First voxel (z, y, x) of the box."""
    mask: Bool
    """(Z, Y, X) of the box: the nodule without its outline."""
    outline: Bool
    """(Z, Y, X): the chains themselves, joined; with `mask` they are what distances are measured from."""

    def points_mm(self, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
        """Voxels of the nodule and its outline (n, 3), in mm along (Z, Y, X) of the CT."""
        places = np.argwhere(self.mask | self.outline) + np.array(self.start)
        return np.asarray(places * np.asarray(spacing_mm), dtype=np.float64)


def draw(mark: Mark, scan: Scan, where: str = "") -> Drawn:
    """A nodule as a mask in its own box; a mark of one point encloses nothing.

    Raises:
        DataError: an outline that lies outside the CT.
    """
    where = where or f"{mark.reader}, {mark.name}"
    placed = [(scan.index(one, where), scan.places(one, where), one.inclusion) for one in mark.outlines]
    levels = [z for z, _, _ in placed]
    points = np.concatenate([pixels for _, pixels, _ in placed])
    (top, left), (bottom, right) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    start = (min(levels), top, left)
    shape = (max(levels) - start[0] + 1, bottom - top + 1, right - left + 1)
    mask, outline = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    for inclusion in (True, False):  # holes last, whatever their order in the file
        for z, pixels, included in placed:
            if included == inclusion:
                chain = _chain(pixels - (top, left), shape[1:])
                inside = np.asarray(ndimage.binary_fill_holes(chain)) & ~chain
                level = mask[z - start[0]]
                level[inside] = inclusion
                outline[z - start[0]] |= chain & inclusion
    return Drawn(mark, start, mask, outline & ~mask)


def _chain(pixels: NDArray[np.int64], shape: tuple[int, ...]) -> Bool:
    """Pixels (n, 2) as a closed chain in which neighbours touch, in an array (Y, X)."""
    chain = np.zeros(shape, dtype=np.bool_)
    for (y0, x0), (y1, x1) in zip(pixels.tolist(), np.roll(pixels, -1, axis=0).tolist(), strict=True):
        chain[line(y0, x0, y1, x1)] = True
    return chain


def reader_masks(reading: Reading, scan: Scan) -> tuple[dict[str, Mask], list[str]]:
    """The nodules of 3 mm and more as one mask (Z, Y, X) uint8 per reader on the CT's grid, and remarks.

    A reader who marked none has an empty mask: he looked. Small nodules and non-nodules have no outline
    and are counted in the remarks.

    Raises:
        DataError: an outline that lies outside the CT.
    """
    voxels = {reader: np.zeros(scan.grid.shape, dtype=np.uint8) for reader in reading.readers}
    remarks = list(reading.remarks)
    for mark in reading.marks:
        if mark.kind != "nodule":
            continue
        where = f"{reading.path.name}, {mark.reader}, {mark.name}"
        drawn = draw(mark, scan, where)
        if not drawn.mask.any():
            remarks.append(f"{where}: its outlines enclose no voxel")
            continue
        box = tuple(slice(a, a + n) for a, n in zip(drawn.start, drawn.mask.shape, strict=True))
        voxels[mark.reader][box] |= drawn.mask
    for kind in ("small nodule", "non-nodule"):
        count = sum(mark.kind == kind for mark in reading.marks)
        if count:
            remarks.append(f"{reading.path.name}: {count} marks of kind {kind} have a point only, left out")
    return {reader: Mask(array, scan.grid.affine) for reader, array in voxels.items()}, remarks
