"""What `fewmask consensus` writes and says beside the masks: tables, pictures, remarks."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmask.consensus.settle import Rule, Settled
from fewmask.core.files import write_json, write_text
from fewmask.core.run import ConsensusFolder
from fewmask.core.volume import Volume
from fewmask.data.case import IMAGE, REFERENCE, Case, Cohort, ImageFile
from fewmask.data.cohort_classes import CLASSES_JSON
from fewmask.data.cohort_table import CASES_CSV
from fewmask.data.outlines import drawn_by, panel
from fewmask.data.overlay import Picture, montage, with_legend
from fewmask.metrics.agreement import Concord

CONSENSUS = "consensus"
_SIDE = 256
_MARGIN = 12
_MOST_ROWS = 4


@dataclass(frozen=True, eq=False)
class OneClass:
    """One class of one case: who read it, how far they agree, what became of it."""

    readers: tuple[str, ...]
    of_all: Concord
    """Agreement of everybody who read the case."""
    of_marking: Concord | None
    """Agreement of those who marked anything; None when nobody did."""
    structures: tuple[Settled, ...]

    @property
    def voxels(self) -> int:
        """Of the reference."""
        return sum(each.voxels for each in self.structures)


@dataclass(frozen=True, eq=False)
class OneCase:
    """One case with its reference."""

    case: Case
    mask: Path | None
    """Where the reference lies; None: nobody drew on the case."""
    classes: Mapping[str, OneClass]
    in_hu: bool = True
    """False: regions grew in a scan that is not CT in HU."""


def write_cohort(files: ConsensusFolder, cohort: Cohort, done: Sequence[OneCase]) -> None:
    """The new cohort: cases.csv with paths to the scans where they are, and classes.json."""
    tags = sorted({tag for one in done for tag in one.case.tags})
    images = {name: "image" if name == IMAGE else f"image:{name}" for name in cohort.modalities}
    lines = [["case", "patient", *images.values(), "mask", *tags]]
    for one in done:
        cells = [_image_cell(one.case.images.get(name), files.folder) for name in images]
        mask = one.mask.relative_to(files.folder).as_posix() if one.mask else ""
        lines.append(
            [one.case.name, one.case.patient, *cells, mask, *(one.case.tags.get(tag, "") for tag in tags)]
        )
    _write(files.folder / CASES_CSV, lines)
    write_json(files.folder / CLASSES_JSON, dict(cohort.classes))


def _image_cell(image: ImageFile | None, folder: Path) -> str:
    """A scan as cases.csv names it, relative to the folder."""
    if image is None:
        return ""
    path = Path(os.path.relpath(image.path.absolute(), folder.resolve())).as_posix()
    if image.channel is not None:
        return f"{path}#channel={image.channel}"
    return f"{path}#series={image.series}" if image.series is not None else path


AGREEMENT = (
    "case",
    "patient",
    "class",
    "readers",
    "marked_by",
    "dice_of_marking",
    "cohen_of_marking",
    "fleiss_of_marking",
    "unanimous_of_marking",
    "dice_of_all",
    "fleiss_of_all",
    "pairs",
)


def write_agreement(path: Path, done: Sequence[OneCase]) -> None:
    """One row per case and class: mean Dice and kappa of pairs, Fleiss' kappa, unanimous share, all pairs."""
    lines: list[list[str]] = [list(AGREEMENT)]
    for one in done:
        for name, found in one.classes.items():
            some, whole = found.of_marking, found.of_all
            pairs = {f"{a} & {b}": value for (a, b), value in whole.overlap.pairs.items()}
            marked = [] if some is None else [some.mean_dice, some.mean_cohen, some.fleiss, some.unanimous]
            lines.append(
                [
                    one.case.name,
                    one.case.patient,
                    name,
                    _names(found.readers),
                    _names(whole.marked_by),
                    *(_number(value) for value in marked or [None] * 4),
                    _number(whole.mean_dice),
                    _number(whole.fleiss),
                    _named(pairs),
                ]
            )
    _write(path, lines)


STRUCTURES = (
    "case",
    "class",
    "structure",
    "centre_zyx",
    "marked_by",
    "voxels",
    "diameter_mm",
    "dropped",
    "sensitivity",
    "specificity",
    "grown",
    "abstained",
)


def write_structures(path: Path, done: Sequence[OneCase]) -> None:
    """One row per structure: who marked it, its size, why it was dropped; STAPLE's view of the readers."""
    lines: list[list[str]] = [list(STRUCTURES)]
    for one, name, number, each in _structures(done):
        centre = " ".join(str((part.start + part.stop - 1) // 2) for part in each.box)
        lines.append(
            [
                one.case.name,
                name,
                str(number),
                centre,
                _names(each.marked_by),
                str(each.voxels),
                _number(each.diameter_mm),
                each.dropped,
                _named(each.sensitivity),
                _named(each.specificity),
                str(each.grown),
                "; ".join(each.abstained),
            ]
        )
    _write(path, lines)


def picture(
    image: Volume,
    drawn: Mapping[str, Mapping[str, NDArray[np.bool_]]],
    reference: Mapping[str, NDArray[np.bool_]],
    voters: Sequence[str],
) -> Picture:
    """A row per class (at most four that anybody marked): the readers' outlines, and the consensus on them.

    Args:
        image: the scan.
        drawn: boolean mask (Z, Y, X) by class and reader.
        reference: boolean mask (Z, Y, X) by class.
        voters: everybody who may have drawn on any case: their colours are the same in all pictures.
    """
    colours = (*voters, CONSENSUS)
    marked = [name for name, masks in drawn.items() if any(mask.any() for mask in masks.values())]
    pictures, titles = [], []
    for name in marked[:_MOST_ROWS] or list(drawn)[:1]:
        masks, result = drawn[name], reference[name]
        anybody = np.logical_or.reduce(list(masks.values()))
        z = int(np.count_nonzero(anybody, axis=(1, 2)).argmax())
        window = panel(anybody[z], _MARGIN)
        lines = {reader: mask[z] for reader, mask in masks.items()}
        for shown in (lines, {CONSENSUS: result[z]}):
            pictures.append(drawn_by(image.voxels[z], shown, colours, window, size=_SIDE))
        titles += [f"{name}, slice {z}: {len(lines)} readers", "consensus"]
    legend = {name: number for number, name in enumerate(colours, start=1)}
    return with_legend(montage(pictures, columns=2, titles=titles), legend)


def remarks_on(cohort: Cohort, voters: Sequence[str], done: Sequence[OneCase], rule: Rule) -> list[str]:
    """What a user should know: what was dropped, taken as drawn, or left unlabelled, with counts."""
    lines = []
    if REFERENCE in voters:
        lines.append(f"the masks of nobody in particular ({REFERENCE}) take part as one reader's")
    lines += _on_cases(done)
    all_structures = list(_structures(done))
    few = sum(len(each.marked_by) == 1 and not each.dropped for _, _, _, each in all_structures)
    if few:
        lines.append(f"{few} structures were marked by one reader only and kept; --at-least 2 drops them")
    dropped = [(one, name, each) for one, name, _, each in all_structures if each.dropped]
    reasons = Counter((name, _kind(each)) for _, name, each in dropped)
    for (name, why), count in reasons.most_common():
        lines.append(f"dropped {count} of class {name}: {why}")
    if rule == "grow":
        lines += _on_growing(cohort, [each for _, _, _, each in all_structures], done)
    return lines


def _on_cases(done: Sequence[OneCase]) -> list[str]:
    lines = []
    bare = [one.case.name for one in done if one.mask is None]
    if bare:
        lines.append(f"{len(bare)} cases have no mask and stay unlabelled ({_few(bare)})")
    lonely = [one.case.name for one in done if any(len(found.readers) == 1 for found in one.classes.values())]
    if lonely:
        lines.append(f"{len(lonely)} cases were read by one reader only, who decides alone ({_few(lonely)})")
    empty = [
        one.case.name
        for one in done
        if one.mask is not None and not any(found.of_marking for found in one.classes.values())
    ]
    if empty:
        lines.append(
            f"in {len(empty)} cases nobody marked anything: their reference is empty ({_few(empty)})"
        )
    lost = [
        one.case.name
        for one in done
        if any(found.of_marking for found in one.classes.values())
        and not any(found.voxels for found in one.classes.values())
    ]
    if lost:
        lines.append(f"in {len(lost)} cases nothing that was marked is left ({_few(lost)})")
    return lines


def _on_growing(cohort: Cohort, structures: Sequence[Settled], done: Sequence[OneCase]) -> list[str]:
    lines = []
    others = sum(not one.in_hu for one in done)
    if others:
        lines.append(f"{others} scans are not in HU: their regions grow without the floor of -700 HU")
    if not any("lung" in name.lower() for name in cohort.classes):
        lines.append("no class is called lung: regions are held by their ball only, not by the lung")
    voted, silent = sum(each.grown for each in structures), sum(len(each.abstained) for each in structures)
    lines.append(f"{voted} grown regions voted, {silent} abstained")
    return lines


def _kind(each: Settled) -> str:
    """A reason without its numbers, so that structures can be counted by it."""
    return "too small" if "mm across" in each.dropped else each.dropped


def _structures(done: Sequence[OneCase]) -> Iterable[tuple[OneCase, str, int, Settled]]:
    for one in done:
        for name, found in one.classes.items():
            for number, each in enumerate(found.structures, start=1):
                yield one, name, number, each


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _names(names: Iterable[str]) -> str:
    return "; ".join(names)


def _named(values: Mapping[str, float]) -> str:
    return "; ".join(f"{name} {value:.4f}" for name, value in values.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _write(path: Path, lines: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(path, text.getvalue())
