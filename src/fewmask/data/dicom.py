"""DICOM series and single files as volumes; what else lies in a folder is named, not read."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fewmask.core.errors import DataError
from fewmask.core.volume import Grid, Volume
from fewmask.data.dicomlayout import Layout, lay_out
from fewmask.data.dicomslices import Found, Slice, find_slices, read_frames
from fewmask.data.filetype import damaged, require_file

OnFault = Literal["refuse", "report"]


@dataclass(frozen=True)
class Series:
    """One series of a folder: its files by position along the slice normal, matrix (Y, X), and its faults.

    `pictures`: its images have no position in the patient (radiographs), each is a scan of its own.
    """

    uid: str
    description: str
    modality: str
    files: tuple[Path, ...]
    matrix: tuple[int, int]
    slices: int
    problems: tuple[str, ...]
    pictures: bool

    def __str__(self) -> str:
        """One line for a list to choose from."""
        name = f" '{self.description}'" if self.description else ""
        size = f"{self.slices} x {self.matrix[0]} x {self.matrix[1]}"
        faults = f" - {'; '.join(self.problems)}" if self.problems else ""
        return f"{self.uid}: {self.modality or 'no modality'}{name}, {size}{faults}"


def list_series(folder: Path) -> list[Series]:
    """Every image series that lies directly in `folder`, the one with most slices first."""
    return list_files(folder)[0]


def list_files(folder: Path) -> tuple[list[Series], list[Path]]:
    """As `list_series`, and the DICOM files directly in `folder` whose headers cannot be read, sorted."""
    found = find_slices(sorted(folder.iterdir()))
    return _list(found), list(found.unreadable_paths)


def read_series(
    folder: Path, uid: str | None = None, *, on_fault: OnFault = "refuse", channel: int | None = None
) -> Volume:
    """The series `uid` (or its end, or the only one) of a folder: voxels (Z, Y, X), real values (HU for CT).

    `on_fault="refuse"` raises on missing slices, uneven spacing, gantry tilt, twofold positions and mixed
    scans. `"report"` keeps the slices as they are where that means something (missing slices, uneven spacing:
    the usual distance; tilt: a sheared affine) and says so in `notes`. Nothing is ever interpolated.

    Raises:
        DataError: no or several series; a fault; a damaged file.
    """
    found = find_slices(sorted(_folder(folder).iterdir()))
    slices = _choose(found, uid, folder)
    return _read(slices, found, str(folder), on_fault, channel)


def read_dicom_file(path: Path, *, on_fault: OnFault = "refuse", channel: int | None = None) -> Volume:
    """One DICOM file: a slice, a radiograph, or an enhanced multi-frame volume. Raises as `read_series`."""
    found = _find_in_file(path)
    return _read(list(found.slices), found, str(path), on_fault, channel)


def read_dicom_grid(path: Path, uid: str | None = None) -> Grid:
    """The grid of a series' folder or of one DICOM file, from the headers alone. Raises as `read_series`."""
    if path.is_dir():
        found = find_slices(sorted(path.iterdir()))
        slices = _choose(found, uid, path)
    else:
        found = _find_in_file(path)
        slices = list(found.slices)
    layout = lay_out(slices)
    _refuse(layout, found, str(path))
    return Grid((len(layout.slices), *slices[0].size), layout.affine)


def _read(slices: list[Slice], found: Found, where: str, on_fault: OnFault, channel: int | None) -> Volume:
    layout = lay_out(slices)
    if on_fault == "refuse" or any(fault.fatal for fault in layout.faults):
        _refuse(layout, found, where)
    frames, pixel_notes = read_frames(layout.slices, channel)
    notes = [*layout.notes, *pixel_notes]
    if slices[0].frame is not None:
        notes.append("multi-frame file: its frames were sorted by their own positions")
    notes += [f"{fault.what} ({fault.found}): read as reported" for fault in layout.faults]
    notes += [f"left out {name}: cannot be read" for name in found.unreadable]
    if found.ignored:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(found.ignored).items())
        notes.append(f"left out what is no image: {kinds}")
    return Volume(np.stack(frames), layout.affine, tuple(notes))


def _refuse(layout: Layout, found: Found, where: str) -> None:
    """One error with all faults of a series."""
    problems = [fault.problem("") for fault in layout.faults]
    if found.unreadable:
        unreadable = DataError(
            f"{len(found.unreadable)} DICOM file(s) cannot be read",
            found="; ".join(found.unreadable[:5]),
            mend="Copy or export them again, or move them out of the folder if they are not needed.",
        )
        problems.extend(unreadable.problems)
    if problems:
        raise DataError.of(problems, title=f"{where}: this series cannot be read as a volume.")


def _find_in_file(path: Path) -> Found:
    require_file(path)
    found = find_slices([path])
    if found.ignored:
        what = found.ignored[0]
        raise DataError(
            f"holds no image but {'a segmentation' if what == 'SEG' else what}",
            where=str(path),
            mend="Read it as a mask (read_mask, or read_dicom_seg)."
            if what == "SEG"
            else "Give the image series.",
        )
    if not found.slices:
        raise damaged(path, "a DICOM file")
    return found


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder), mend="Check the path.")
    return folder


def _choose(found: Found, uid: str | None, folder: Path) -> list[Slice]:
    """The slices of the series asked for; a `DataError` that lists the series if there is no one answer."""
    series = _list(found)
    if not series:
        raise DataError(
            "no DICOM image in this folder",
            where=str(folder),
            found=_what_is_there(found, folder),
            mend="Give the folder that holds the DICOM files themselves.",
        )
    chosen = [one for one in series if uid is None or one.uid == uid]
    if uid is not None and not chosen:
        chosen = [one for one in series if one.uid.endswith(uid)]
    if len(chosen) != 1:
        what = (
            f"holds {len(series)} series"
            if uid is None
            else f"no single series has a UID that ends in {uid!r}"
        )
        raise DataError(
            what,
            where=str(folder),
            found="".join(f"\n    {one}" for one in series),
            expected="one series",
            mend=f"Choose one with series='{series[0].uid}' (the end of the UID is enough), or move each "
            "series into a folder of its own.",
        )
    return [one for one in found.slices if one.uid == chosen[0].uid]


def _what_is_there(found: Found, folder: Path) -> str:
    parts = [f"{count} {kind}" for kind, count in Counter(found.ignored).items()]
    parts += [f"unreadable: {name}" for name in found.unreadable[:3]]
    inner = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if inner:
        parts.append(
            f"folders inside: {', '.join(inner[:3])}{f' and {len(inner) - 3} more' if inner[3:] else ''}"
        )
    files = [entry.name for entry in sorted(folder.iterdir()) if entry.is_file()]
    if files and not found.ignored and not found.unreadable:
        parts.append(
            f"other files: {', '.join(files[:3])}{f' and {len(files) - 3} more' if files[3:] else ''}"
        )
    return "; ".join(parts) or "an empty folder"


def _list(found: Found) -> list[Series]:
    groups: dict[str, list[Slice]] = {}
    for one in found.slices:
        groups.setdefault(one.uid, []).append(one)
    series = []
    for uid, slices in groups.items():
        layout = lay_out(slices)
        first = layout.slices[0]
        files = tuple(dict.fromkeys(one.path for one in layout.slices))
        problems = tuple(f"{fault.what} ({fault.found})" for fault in layout.faults)
        series.append(
            Series(
                uid,
                first.description,
                first.modality,
                files,
                first.size,
                len(slices),
                problems,
                pictures=all(one.position is None for one in slices),
            )
        )
    return sorted(series, key=lambda one: (-one.slices, one.uid))
