"""One case against its reference: one `Row` per class, and the table of rows on the disk."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.core.files import write_text
from fewmask.core.volume import IGNORE
from fewmask.metrics.lesions import score_lesions
from fewmask.metrics.overlap import Outcome, Overlap, overlap, require_same_shape
from fewmask.metrics.slices import slice_means
from fewmask.metrics.surface import Penalty, surface_distances


@dataclass(frozen=True)
class Row:
    """The scores of one class in one case, for one arm and one draw of shots."""

    arm: str
    """Which method."""
    shots: int | None
    """How many labelled images or patients the method saw; None: all of them; 0: it needs none."""
    draw: int
    """Which draw of shots (and seed) trained it, from 0."""
    case: str
    """Name of the case."""
    patient: str
    """Patient of the case: the unit of every statistic."""
    class_name: str
    """Which class."""
    site: str
    """Where the scan was made; empty when unknown."""
    dice: float
    """0..1; 1 when both masks are empty."""
    iou: float
    """0..1; 1 when both masks are empty."""
    assd_mm: float
    """Average symmetric surface distance; the penalty when one mask is empty."""
    hd95_mm: float
    """Larger of the two directed 95th percentiles; the penalty when one mask is empty."""
    ceiling: float | None
    """Dice of the reference after the trip to the model's grid and back; None when not measured."""
    pixel_accuracy: float
    """0..1; read it only beside `empty_accuracy`."""
    empty_accuracy: float
    """Pixel accuracy of the empty mask, 0..1."""
    prevalence: float
    """Share of the judged voxels that belong to the class, 0..1."""
    reference_ml: float
    """Judged volume of the reference; for a picture of unknown pixel size, pixels / 1000."""
    predicted_ml: float
    """Judged volume of the prediction."""
    outcome: Outcome
    """"overlap", or which of the two masks was empty."""
    lesions: int | None = None
    """Components of the reference; None when the class is not scored by lesion."""
    lesions_hit: int | None = None
    """Reference components of which at least a tenth is predicted."""
    lesions_invented: int | None = None
    """Predicted components that touch no reference component."""
    slice_dice: float | None = None
    """Mean Dice over the slices that show the class, see `slice_means`; None in tables of older runs."""
    slice_iou: float | None = None
    """Mean IoU over the same slices; None in tables of older runs."""
    lesions_outlined: int | None = None
    """Reference components whose Dice with what touches them is above 0.1; None in tables of older runs."""


def score_case(
    predicted: NDArray[np.integer[Any]],
    reference: NDArray[np.integer[Any]],
    spacing_mm: tuple[float, float, float],
    classes: Mapping[str, int],
    *,
    arm: str,
    shots: int | None,
    draw: int,
    case: str,
    patient: str,
    site: str = "",
    ceiling: Mapping[str, float] | None = None,
    penalty: Penalty = "diag",
    lesion_classes: Sequence[str] = (),
) -> list[Row]:
    """Score one predicted label map, class by class.

    Args:
        predicted: labels (Z, Y, X) on the reference's grid.
        reference: labels (Z, Y, X); voxels with the label `IGNORE` (255) are left out of everything.
        spacing_mm: distance of voxel centres along (Z, Y, X).
        classes: label value by class name, without the background.
        arm: which method; goes into the rows, as do `shots`, `draw`, `case`, `patient` and `site`.
        shots: labelled images or patients that the method saw; None: all.
        draw: which draw of shots.
        case: name of the case.
        patient: its patient.
        site: where it was scanned.
        ceiling: best possible Dice by class name, 0..1.
        penalty: what a missed or invented structure costs in mm.
        lesion_classes: names of the classes to be scored by lesion as well.

    Returns:
        One row per class, in the order of `classes`.

    Raises:
        ShapeError: the two label maps differ in shape, are not 3-D, or nothing is judged.
        ConfigError: a class has the label 0 or 255, or `lesion_classes` names none of the classes.
    """
    _check(predicted, reference, spacing_mm, classes, lesion_classes, where=case)
    judged = reference != IGNORE
    if judged.all():
        judged_or_none, unjudged = None, None
    else:
        judged_or_none = judged
        blank = ~judged.any(axis=(1, 2))
        unjudged = blank if blank.any() else None
    ml = float(np.prod(np.asarray(spacing_mm, dtype=np.float64))) / 1000.0
    rows = []
    for name, value in classes.items():
        p, g = predicted == value, reference == value
        if judged_or_none is not None:
            p &= judged_or_none
        counts = overlap(p, g, judged_or_none)
        distances = surface_distances(p, g, spacing_mm, penalty=penalty, unjudged=unjudged)
        slice_dice, slice_iou = slice_means(p, g)
        rows.append(
            Row(
                arm=arm,
                shots=shots,
                draw=draw,
                case=case,
                patient=patient,
                class_name=name,
                site=site,
                assd_mm=distances.assd_mm,
                hd95_mm=distances.hd95_mm,
                ceiling=None if ceiling is None else ceiling.get(name),
                reference_ml=counts.reference * ml,
                predicted_ml=counts.predicted * ml,
                slice_dice=slice_dice,
                slice_iou=slice_iou,
                **_ratios(counts),
                **_lesions(p, g, spacing_mm, name in lesion_classes),
            )
        )
    return rows


def ceiling_of(
    returned: NDArray[np.integer[Any]], reference: NDArray[np.integer[Any]], classes: Mapping[str, int]
) -> dict[str, float]:
    """The best Dice that a perfect network could get on its own grid, by class name, 0..1.

    Args:
        returned: the reference after the trip to the model's grid and back, labels (Z, Y, X).
        reference: the reference itself, labels (Z, Y, X); `IGNORE` voxels are left out.
        classes: label value by class name, without the background.

    Raises:
        ShapeError: shapes differ, or nothing is judged.
    """
    judged = reference != IGNORE
    return {
        name: overlap(returned == value, reference == value, judged).dice for name, value in classes.items()
    }


def _ratios(counts: Overlap) -> dict[str, Any]:
    """The fields of a row that follow from the counts of voxels."""
    return {
        name: getattr(counts, name)
        for name in ("dice", "iou", "pixel_accuracy", "empty_accuracy", "prevalence", "outcome")
    }


def _lesions(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float], wanted: bool
) -> dict[str, Any]:
    """The fields of a row about lesions, if they are wanted."""
    if not wanted:
        return {}
    found = score_lesions(predicted, reference, spacing_mm)
    return {
        "lesions": found.reference,
        "lesions_hit": found.hit,
        "lesions_invented": found.false_positives,
        "lesions_outlined": found.outlined,
    }


def _check(
    predicted: NDArray[np.integer[Any]],
    reference: NDArray[np.integer[Any]],
    spacing_mm: Sequence[float],
    classes: Mapping[str, int],
    lesion_classes: Sequence[str],
    where: str,
) -> None:
    """Raise what is wrong with the arguments of `score_case`."""
    require_same_shape(predicted, reference)
    if reference.ndim != 3 or len(spacing_mm) != 3:
        raise ShapeError(
            "labels must be (Z, Y, X) with one spacing per axis",
            where=where,
            found=f"shape {reference.shape}, spacing {tuple(spacing_mm)}",
            mend="A picture is a volume with Z = 1.",
        )
    if bad := {name: value for name, value in classes.items() if value in (0, IGNORE)}:
        raise ConfigError(
            "a class cannot have the label of the background or of unjudged voxels",
            where=where,
            found=f"{bad}",
            expected=f"labels other than 0 and {IGNORE}",
        )
    if unknown := set(lesion_classes) - set(classes):
        raise ConfigError(
            "a class to be scored by lesion is not among the classes",
            where=where,
            found=", ".join(sorted(unknown)),
            expected=", ".join(classes),
        )


_ALL_SHOTS = "all"
_LATER = ("slice_dice", "slice_iou", "lesions_outlined")
"""Columns that tables of earlier versions do not have."""


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Write rows as CSV with a header line, atomically; floats keep every digit, None is an empty cell.

    `shots` None is written as "all".
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    for row in rows:
        writer.writerow([_to_cell(name, getattr(row, name)) for name in names])
    return write_text(path, text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """The rows that `write_rows` wrote; columns of other names are skipped.

    The columns that older tables lack (`slice_dice`, `slice_iou`, `lesions_outlined`) are None there.

    Raises:
        DataError: the file cannot be read, a column is missing, or a cell is not what it should be.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            absent = [field.name for field in fields(Row) if field.name not in (reader.fieldnames or ())]
            if missing := [name for name in absent if name not in _LATER]:
                raise DataError(
                    "is not a table of scores",
                    where=str(path),
                    found=f"no column {', '.join(missing)}",
                    mend="Score the run again with `fewmask score`.",
                )
            return [_to_row(cells, f"{path} line {reader.line_num}") for cells in reader]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from error


def _to_cell(name: str, value: object) -> str:
    """One field as text that `_from_cell` turns back into the same value."""
    if value is None:
        return _ALL_SHOTS if name == "shots" else ""
    return repr(value) if isinstance(value, float) else str(value)


def _to_row(cells: Mapping[str, str], where: str) -> Row:
    """One line of the table as a row."""
    values: dict[str, Any] = {}
    for name, kind in _kinds().items():
        if name in _LATER and name not in cells:
            continue
        try:
            values[name] = _from_cell(name, kind, cells[name])
        except (ValueError, TypeError) as error:
            raise DataError(
                f"column {name} is damaged",
                where=where,
                found=repr(cells[name]),
                expected="a number" if kind is not str else "text",
            ) from error
    return Row(**values)


def _kinds() -> dict[str, type]:
    """What a cell of every column holds: int, float or str."""
    kinds: dict[str, type] = {}
    for name, hint in get_type_hints(Row).items():
        kinds[name] = next((kind for kind in (int, float) if kind in (hint, *get_args(hint))), str)
    return kinds


def _from_cell(name: str, kind: type, text: str) -> str | int | float | None:
    """The value of one cell."""
    if kind is str:
        return text
    if text == "" or (name == "shots" and text == _ALL_SHOTS):
        if name in _OPTIONAL:
            return None
        raise ValueError(text)
    value: int | float = kind(text)
    return value


_OPTIONAL = frozenset(name for name, hint in get_type_hints(Row).items() if NoneType in get_args(hint))
