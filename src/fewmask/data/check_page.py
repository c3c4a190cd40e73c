"""The check's pictures: masks drawn on scans, one contact sheet for all and one picture per case."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmask.core.files import make_folder
from fewmask.core.volume import Grid
from fewmask.data.case import Case, Cohort
from fewmask.data.case_voxels import is_picture, read_case_mask, read_images
from fewmask.data.orientation import Turn, nearest_turn
from fewmask.data.overlay import Picture, montage, overlay, save_png, with_legend

SHEET = "overlays.png"
"""The contact sheet."""

_SHEET_SIDE = 224
_CASE_SIDE = 384
_MOST_PANELS = 8


@dataclass(frozen=True)
class View:
    """How slices along a volume's stored Z axis are shown: head or front up, the patient's right on the left.

    Attributes:
        turn: whole-axis turn to LPS.
        axis: the turned axis that the slices are stacked along.
        pixel_mm: edge (down, across) of a shown pixel.
    """

    turn: Turn
    axis: int
    pixel_mm: tuple[float, float]

    @classmethod
    def of(cls, grid: Grid, *, picture: bool) -> "View":
        """The view of a grid; a picture file is shown as it is."""
        turn = Turn() if picture else nearest_turn(grid, "LPS")
        axis = turn.permutation.index(0)
        spacing = [grid.spacing_mm[native] for native in turn.permutation]
        down, across = (spacing[other] for other in range(3) if other != axis)
        return cls(turn, axis, (down, across))

    def slice(self, voxels: NDArray[np.generic], z: int) -> NDArray[np.generic]:
        """Stored slice `z` of (Z, Y, X) as it is shown, (down, across)."""
        turned = self.turn.do(voxels[z : z + 1])
        shown: NDArray[np.generic] = turned[(slice(None),) * self.axis + (0,)]
        return shown if self.axis == 0 else shown[::-1]

    def size(self, shape: tuple[int, ...], side: int) -> tuple[int, int]:
        """Size in pixels of a shown slice of `shape`, its longer edge `side`, with square pixels."""
        down, across = shape[0] * self.pixel_mm[0], shape[1] * self.pixel_mm[1]
        unit = side / max(down, across)
        return max(1, round(down * unit)), max(1, round(across * unit))


def draw_pictures(cohort: Cohort, folder: Path, cases: Sequence[Case]) -> tuple[Path, ...]:
    """Draw readable `cases` into `folder`: the contact sheet first, then one picture per case.

    The slice with the most labelled voxels is shown, or the middle one. A case's own picture shows every
    modality, and the mask of every reader.

    Raises:
        RunError: the pictures cannot be written.
    """
    make_folder(folder)
    small, titles, paths = [], [], []
    for case in cases:
        view = _CaseView(case, cohort)
        small.append(view.overlay(cohort.reader, _SHEET_SIDE))
        titles.append(view.title)
        picture = with_legend(view.panels(), cohort.classes) if case.masks else view.panels()
        paths.append(save_png(folder / f"{_safe(case.name)}.png", picture))
    if not small:
        return ()
    columns = min(6, max(1, round(np.sqrt(len(small) * 1.5))))
    sheet = montage(small, columns=columns, titles=titles)
    if cohort.labelled:
        sheet = with_legend(sheet, cohort.classes)
    return (save_png(folder / SHEET, sheet), *paths)


class _CaseView:
    """One case, read once, and the slice of it that is shown."""

    def __init__(self, case: Case, cohort: Cohort) -> None:
        volumes = read_images(case)
        self.images = {modality: volume.voxels for modality, volume in volumes.items()}
        first = next(iter(case.images.values()))
        grid = next(iter(volumes.values())).grid
        self.view = View.of(grid, picture=is_picture(first.path))
        self.labels = {reader: read_case_mask(case, cohort, reader=reader).voxels for reader in case.readers}
        self.reader = cohort.reader
        drawn = self.labels.get(cohort.reader)
        counts = np.count_nonzero(drawn, axis=(1, 2)) if drawn is not None else np.zeros(1)
        self.z = int(counts.argmax()) if counts.any() else grid.shape[0] // 2
        self.title = case.name if grid.shape[0] == 1 else f"{case.name} z={self.z}"

    def overlay(self, reader: str | None, side: int, modality: str | None = None) -> Picture:
        """The shown slice of a modality (default: the first) with a reader's mask, if there is one."""
        voxels = self.images[modality] if modality else next(iter(self.images.values()))
        image = self.view.slice(voxels, self.z)
        labels = self.labels.get(reader) if reader else None
        marks = np.zeros(image.shape, np.uint8) if labels is None else self.view.slice(labels, self.z)
        low, high = np.percentile(
            voxels.astype(np.float32), (1, 99)
        )  # of the whole volume: slices stay comparable
        window = (float(low), float(high)) if low < high else None
        return overlay(image, marks, window=window, size=self.view.size(image.shape, side))

    def panels(self) -> Picture:
        """Every modality plain; below, with the mask; then the masks of the other readers."""
        several = len(self.images) > 1
        shown: list[tuple[str, str | None, str | None]] = [
            (f"{self.title} {name}" if several else self.title, None, name) for name in self.images
        ]
        for reader in self.labels:
            main = reader == self.reader
            shown += [(reader, reader, name) for name in (self.images if main else [None])]
        shown = shown[:_MOST_PANELS]
        pictures = [self.overlay(reader, _CASE_SIDE, modality) for _, reader, modality in shown]
        rows = -(-len(pictures) // 4)
        columns = len(self.images) if several else -(-len(pictures) // rows)
        return montage(pictures, columns=columns, titles=[title for title, _, _ in shown])


def _safe(name: str) -> str:
    """A case's name as a file name."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "case"
