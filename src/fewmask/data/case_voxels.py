"""The voxels of a case: images by modality, and one label map out of however many mask files there are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import DataError
from fewmask.core.volume import IGNORE, Grid, Mask, Volume
from fewmask.data.case import Case, Cohort, ImageFile, MaskFile
from fewmask.data.cohort_classes import HOW_TO_DECLARE
from fewmask.data.filetype import PICTURES
from fewmask.data.io import read_grid, read_mask, read_volume


def read_images(case: Case) -> dict[str, Volume]:
    """The images of `case` by modality, as stored: voxels (Z, Y, X) in the units of their source.

    Raises:
        DataError: a file is missing or damaged, with the case's name.
    """
    return {modality: read_image(case, file) for modality, file in case.images.items()}


def read_image(case: Case, file: ImageFile) -> Volume:
    """One image of `case`."""
    return read_volume(file.path, series=file.series, channel=file.channel)


def read_image_grid(file: ImageFile) -> Grid:
    """Where an image lies, from its header where the format allows."""
    return read_grid(file.path, series=file.series)


@dataclass(frozen=True)
class CaseMask:
    """A case's label map with what reading it had to decide.

    Attributes:
        mask: labels (Z, Y, X) uint8; 0 background, 255 unjudged.
        drawn: voxels that each class's files show, before later classes were painted over them.
        painted_over: voxels that (class, later class) share; they went to the later one.
        grey: per file, how many voxels were neither the lowest nor the highest value (anti-aliased edges).
        absent: classes without a file, although others of this case have one; they count as not there.
        grids: grid of each mask file.
    """

    mask: Mask
    drawn: Mapping[str, int] = field(default_factory=dict)
    painted_over: Mapping[tuple[str, str], int] = field(default_factory=dict)
    grey: Mapping[Path, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    grids: Mapping[Path, Grid] = field(default_factory=dict)


def read_case_mask(case: Case, cohort: Cohort, *, reader: str | None = None) -> Mask:
    """The label map (Z, Y, X) uint8 that `reader` (default: the cohort's) drew on `case`.

    A picture without pixel size lies where the case's first image lies (`placed`).
    One-file-per-class masks are merged. Where they overlap, the class that comes later in
    `cohort.classes` wins. A class without a file is taken as not present. Masks of one class with grey
    levels (anti-aliased pictures) are cut at half of their range: 8-bit at 128, probabilities at 0.5.

    Raises:
        DataError: no mask by that reader; a label value that nobody declared; class files of different
            shapes; a damaged file.
    """
    return read_case_mask_in_detail(case, cohort, reader=reader).mask


def read_case_mask_in_detail(case: Case, cohort: Cohort, *, reader: str | None = None) -> CaseMask:
    """As `read_case_mask`, with counts of overlaps and grey levels for the check."""
    files = case.masks_of(reader or cohort.reader)
    if not files:
        raise DataError(
            f"has no mask by {reader or cohort.reader}",
            where=f"case {case.name}",
            found=f"masks by {', '.join(case.readers)}" if case.masks else "an unlabelled case",
            mend="Ask for another reader, or leave the case out.",
        )
    merge = _Merge(case, cohort)
    for file in files:
        merge.add(file)
    return merge.result()


class _Merge:
    """Paints mask files one after the other into one label map."""

    def __init__(self, case: Case, cohort: Cohort) -> None:
        self.case = case
        self.cohort = cohort
        self.labels: NDArray[np.uint8] | None = None
        self.drawn: dict[str, int] = {}
        self.painted_over: dict[tuple[str, str], int] = {}
        self.grey: dict[Path, int] = {}
        self.grids: dict[Path, Grid] = {}

    def add(self, file: MaskFile) -> None:
        """Read one file and paint it over what is there."""
        if file.class_name is None:
            volume, painted, grey = _read_label_map(file.path, self.case, self.cohort)
        else:
            volume = _read_one_class(file.path)
            inside, grey = binary(volume.voxels, self.case.name, file.path)
            painted = inside.astype(np.uint8) * np.uint8(self.cohort.classes[file.class_name])
        self._same_shape(file.path, volume.grid)
        self.grids[file.path] = volume.grid
        if grey:
            self.grey[file.path] = grey
        self._count(painted)
        self.labels = painted if self.labels is None else np.where(painted > 0, painted, self.labels)

    def _same_shape(self, path: Path, grid: Grid) -> None:
        if self.labels is None or grid.shape == self.labels.shape:
            return
        first, other = next(iter(self.grids.items()))
        raise DataError(
            f"mask {path.name} is {grid.shape}, mask {first.name} is {other.shape}",
            where=f"case {self.case.name}",
            found=f"spacing {_numbers(grid.spacing_mm)} mm and {_numbers(other.spacing_mm)} mm",
            expected="all masks of a case on one grid (Z, Y, X)",
            mend="Resample one onto the other.",
        )

    def _count(self, painted: NDArray[np.uint8]) -> None:
        """Count each class's voxels, and those that it takes from earlier classes."""
        counts = np.bincount(painted.ravel(), minlength=256)
        for name, value in self.cohort.classes.items():
            if not counts[value]:
                continue
            self.drawn[name] = self.drawn.get(name, 0) + int(counts[value])
            if self.labels is None:
                continue
            taken = np.bincount(self.labels[painted == value].ravel(), minlength=256)
            for earlier, earlier_value in self.cohort.classes.items():
                if earlier != name and taken[earlier_value]:
                    self.painted_over[earlier, name] = int(taken[earlier_value])

    def result(self) -> CaseMask:
        """The label map on the grid of the first file."""
        assert self.labels is not None
        named = {file.class_name for file in self.case.masks if file.path in self.grids}
        absent = () if None in named else tuple(name for name in self.cohort.classes if name not in named)
        path, grid = next(iter(self.grids.items()))
        mask = Mask(self.labels, placed(grid, path, self.case).affine)
        return CaseMask(mask, self.drawn, self.painted_over, self.grey, absent, self.grids)


def read_label_map(path: Path, case: Case, cohort: Cohort) -> Mask:
    """A label map of `case` by anybody, such as a prediction, by the rules of its reference masks.

    Returns:
        Labels (Z, Y, X) uint8 (see `label_map`), on the image's grid where the file has no place (`placed`).

    Raises:
        DataError: a damaged file, or a value nobody declared.
    """
    volume, labels, _ = _read_label_map(path, case, cohort)
    return Mask(labels, placed(volume.grid, path, case).affine, volume.notes)


def _read_label_map(path: Path, case: Case, cohort: Cohort) -> tuple[Volume, NDArray[np.uint8], int]:
    """A file as stored, its labels, and how many grey voxels were cut at half."""
    volume = read_volume(path) if _lossy(path, cohort) else read_mask(path)
    labels, grey = label_map(volume.voxels, cohort, case.name, path)
    return volume, labels, grey


def placed(grid: Grid, path: Path, case: Case) -> Grid:
    """Where a mask of `case` lies: a picture without pixel size takes the place of the first image.

    Args:
        grid: the mask's own grid.
        path: its file; only pictures can be without a place.
        case: its first image, of the same shape (Z, Y, X), gives the place.

    Returns:
        The grid of the image; `grid` itself where it has a place, shapes differ or the image is unreadable.
    """
    if not is_picture(path) or not np.array_equal(grid.affine, np.eye(4)):
        return grid
    try:
        image = read_image_grid(next(iter(case.images.values())))
    except DataError:
        return grid  # whoever needs the image is told by reading it
    return image if image.shape == grid.shape else grid


def label_map(
    voxels: NDArray[np.generic], cohort: Cohort, case: str, path: Path
) -> tuple[NDArray[np.uint8], int]:
    """Labels (Z, Y, X) uint8 of a label map as stored, and how many grey voxels were cut at half.

    In a cohort of one class, a picture whose values are not 0 and 1 (0 and 255, or anti-aliased grey) is
    cut at half of its range. Otherwise every value must be 0, a declared class, or the ignore value.

    Raises:
        DataError: a value nobody declared.
    """
    counts = values_of(voxels)
    values = set(counts)
    if len(cohort.classes) == 1 and is_picture(path) and max(values) >= _HALF.get(voxels.dtype.name, np.inf):
        plain = {0, 1, cohort.stored_ignore}
        if 1 not in values or not values <= plain:
            inside, grey = binary(voxels, case, path)
            return inside.astype(np.uint8) * np.uint8(next(iter(cohort.classes.values()))), grey
    strange = sorted(values - {0, cohort.stored_ignore, *cohort.classes.values()})
    if strange:
        raise DataError(
            "label values nobody declared: " + _few([f"{value:g}" for value in strange]),
            where=f"case {case}, mask {path.name}",
            found=_few([f"{value:g} ({counts[value]} voxels)" for value in sorted(values)]),
            expected="0 = background, "
            + ", ".join(f"{value} = {name}" for name, value in cohort.classes.items())
            + f", {cohort.stored_ignore} = unjudged",
            mend=HOW_TO_DECLARE,
        )
    if cohort.stored_ignore == IGNORE:
        return voxels.astype(np.uint8), 0
    labels = np.where(voxels == cohort.stored_ignore, IGNORE, voxels)
    return labels.astype(np.uint8), 0


_HALF = {"uint8": 128, "uint16": 32768}


def binary(voxels: NDArray[np.generic], case: str, path: Path) -> tuple[NDArray[np.bool_], int]:
    """Which voxels (Z, Y, X) a mask of one class shows, and how many grey voxels were cut at half.

    0 and one other value: everything above 0. Pictures with grey levels: from 128 (8 bit) or 32768 (16
    bit) on. Fractions 0..1: from 0.5 on.

    Raises:
        DataError: several whole values in a volume, negative or not finite values, or grey levels none of
            which reaches half.
    """
    counts = values_of(voxels)
    low, high = min(counts), max(counts)
    if low >= 0 and len(set(counts) - {0}) <= 1:
        return voxels > 0, 0  # type: ignore[operator]
    half = _HALF.get(voxels.dtype.name) if is_picture(path) else None
    if half is None and voxels.dtype.kind == "f" and low >= 0 and high <= 1:
        half = 0.5  # type: ignore[assignment]
    if half is None or high < half:
        raise DataError(
            "is not a mask of one class",
            where=f"case {case}, mask {path.name}",
            found=f"{len(counts)} different values from {low:g} to {high:g}",
            expected="0 and one other value; or grey 0..255 cut at 128; or fractions 0..1 cut at 0.5",
            mend="If the file is a label map, put it directly into masks/ and declare its classes.",
        )
    grey = sum(count for value, count in counts.items() if low < value < high)
    return voxels >= half, grey  # type: ignore[operator]


def values_of(voxels: NDArray[np.generic]) -> dict[float, int]:
    """Each value of an array with its count."""
    if voxels.dtype.kind == "b":
        inside = int(voxels.sum())
        pairs: list[tuple[float, int]] = [(0, voxels.size - inside), (1, inside)]
        return {value: count for value, count in pairs if count}
    if voxels.dtype.name in _HALF:
        counts = np.bincount(voxels.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(voxels, return_counts=True)
    return {float(value): int(n) for value, n in zip(values, numbers, strict=True)}


def _lossy(path: Path, cohort: Cohort) -> bool:
    """Whether `path` is a JPEG that can only be understood by cutting it at half: one class."""
    return path.suffix.lower() in (".jpg", ".jpeg") and len(cohort.classes) == 1


def _read_one_class(path: Path) -> Volume:
    """A mask of one class as stored: palette pictures by their index, fractions as they are."""
    if is_picture(path) and path.suffix.lower() not in (".jpg", ".jpeg"):
        return read_mask(path)
    return read_volume(path)


def is_picture(path: Path) -> bool:
    """Whether a file is a 2-D picture by its suffix."""
    return path.suffix.lower() in PICTURES


def _few(words: list[str], limit: int = 12) -> str:
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
