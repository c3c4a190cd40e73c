"""Cohorts written as a table: `cases.csv` (one row per case), and `index.csv` beside a folder of scans."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewmask.core.errors import DataError, Problem
from fewmask.data.case import IMAGE, REFERENCE, Case, Found, ImageFile, MaskFile
from fewmask.data.filetype import READABLE, suffix_of

CASES_CSV = "cases.csv"
INDEX_CSV = "index.csv"
PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "subject", "subject_id")
FILE_COLUMNS = ("file", "image", "filename", "case")


def stem(path: Path | str) -> str:
    """A scan's file name without its suffix: "a/b_01.nii.gz" gives "b_01"."""
    name = Path(path).name
    suffix = suffix_of(Path(name))
    return name[: -len(suffix)] if suffix in (*READABLE, ".seg.nrrd") else name


@dataclass(frozen=True)
class Table:
    """A CSV file: its columns, and its rows with their numbers as a spreadsheet shows them (header = 1)."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]

    def column(self, names: Sequence[str]) -> str | None:
        """The first column called one of `names`, whatever its case."""
        lower = {column.lower(): column for column in self.columns}
        return next((lower[name] for name in names if name in lower), None)


def read_table(path: Path) -> Table:
    """Read a CSV file separated by commas, semicolons or tabs, as UTF-8 or, failing that, Latin-1.

    Raises:
        DataError: unreadable, not a text, or without a header.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    if b"\x00" in raw or not raw.strip():
        raise DataError(
            "is not a table: it is empty or not a text",
            where=str(path),
            expected="a CSV file with a header line",
            mend="Save the sheet as CSV (UTF-8), not as a workbook.",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    header = text.lstrip().splitlines()[0]
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    lines = [(number, line) for number, line in lines if any(line)]
    columns = tuple(lines[0][1])
    twice = sorted({title for title in columns if title and columns.count(title) > 1})
    if twice:
        raise DataError(
            f"has two columns called {', '.join(twice)}",
            where=str(path),
            mend="Tell them apart, e.g. mask@reader1 and mask@reader2, or mask:liver and mask:lesion.",
        )
    rows = tuple((number, dict(zip(columns, line, strict=False))) for number, line in lines[1:])
    return Table(path, columns, rows)


@dataclass(frozen=True)
class _Column:
    """What a column of `cases.csv` holds: an image of a modality, or a mask of a class by a reader."""

    title: str
    name: str | None
    reader: str = REFERENCE


def _columns(table: Table, kind: str) -> list[_Column]:
    """Columns titled `kind`, `kind:NAME`, `kind@READER` or `kind:NAME@READER`."""
    pattern = re.compile(rf"{kind}(?::(?P<name>[^@]+))?(?:@(?P<reader>.+))?", re.IGNORECASE)
    found = []
    for title in table.columns:
        match = pattern.fullmatch(title)
        if match:
            found.append(_Column(title, match["name"], match["reader"] or REFERENCE))
    return found


def _image_file(folder: Path, cell: str) -> ImageFile:
    """An image cell: a path, and after a '#' the channel or the series: "a.png#channel=1"."""
    path, _, rest = cell.partition("#")
    key, _, value = rest.partition("=")
    if key == "channel" and value.isdigit():
        return ImageFile(folder / path, channel=int(value))
    if key == "series" and value:
        return ImageFile(folder / path, series=value)
    return ImageFile(folder / cell)


def read_cases_csv(path: Path) -> Found:
    """Cases of a table with the columns case, patient, image[:MODALITY]..., mask[:CLASS][@READER]..., tags.

    Paths are relative to the table. An image cell may end in "#channel=1" (a channel of an RGB picture)
    or "#series=UID" (one of several DICOM series). An empty mask cell: not drawn. Every fault of every
    row is gathered.

    Raises:
        DataError: the file is no table, has no image column, or has no row.
    """
    table = read_table(path)
    images, masks = _columns(table, "image"), _columns(table, "mask")
    if not images:
        raise DataError(
            "has no image column",
            where=str(path),
            found=f"columns {', '.join(table.columns)}",
            expected="case, patient, image (or image:MODALITY, ...), mask (or mask:CLASS, mask@READER, ...)",
            mend="Name the column with the paths of the scans `image`.",
        )
    if not table.rows:
        raise DataError("has no case: only a header", where=str(path), mend="Add one row per case.")
    patients = table.column(PATIENT_COLUMNS)
    used = {column.title for column in [*images, *masks]} | {patients, table.column(["case"])}
    cases: list[Case] = []
    faults: list[Problem] = []
    for number, row in table.rows:
        where = f"{path.name} row {number}"
        case = _case_of_row(table, row, images, masks, where, faults)
        if case is not None:
            tags = {key: value for key, value in row.items() if key not in used and key and value}
            cases.append(Case(case.name, case.patient, case.images, case.masks, tags))
    return Found(tuple(cases), faults=tuple(faults), remarks=patient_remarks(table, patients))


def _case_of_row(
    table: Table,
    row: Mapping[str, str],
    images: Sequence[_Column],
    masks: Sequence[_Column],
    where: str,
    faults: list[Problem],
) -> Case | None:
    """The case of one row without its tags; None when it has no image. Faults are appended to `faults`."""
    folder = table.path.parent
    image_files = {
        column.name or IMAGE: _image_file(folder, row[column.title])
        for column in images
        if row.get(column.title)
    }
    mask_files = tuple(
        MaskFile(folder / row[column.title], column.name, column.reader)
        for column in masks
        if row.get(column.title)
    )
    paths = [*(file.path for file in image_files.values()), *(mask.path for mask in mask_files)]
    for path in paths:
        if not path.exists():
            faults.append(
                Problem(
                    f"there is no file {path}",
                    where=where,
                    mend="Correct the path; it is relative to the folder of the table.",
                )
            )
    if not image_files:
        what = "mask without image" if mask_files else "no image"
        faults.append(Problem(what, where=where, mend="Give the path of the image, or delete the row."))
        return None
    case_column, patient_column = table.column(["case"]), table.column(PATIENT_COLUMNS)
    name = row.get(case_column or "", "") or stem(next(iter(image_files.values())).path)
    patient = row.get(patient_column or "", "") or name
    if patient_column and not row.get(patient_column):
        faults.append(
            Problem(f"case {name} has no patient", where=where, mend="Fill in the column, or remove it.")
        )
    return Case(name, patient, image_files, mask_files)


def patient_remarks(table: Table | None, patients: str | None) -> tuple[Problem, ...]:
    """What to say about where the patients come from; nothing when the column is called `patient`."""
    if patients is None:
        where = table.path.name if table else ""
        return (
            Problem(
                "no patient information: each case counts as its own patient",
                where=where,
                mend="If a patient has several cases, say so in a column `patient` of cases.csv or "
                "index.csv: otherwise training and test share patients.",
            ),
        )
    if table and patients.lower() != "patient":
        return (Problem(f"patients are taken from the column `{patients}`", where=table.path.name),)
    return ()


@dataclass(frozen=True)
class Index:
    """`index.csv` beside a folder: patient and tags by file."""

    rows: Mapping[str, tuple[str | None, Mapping[str, str]]]
    remarks: tuple[Problem, ...]

    def find(self, relative: Path, name: str) -> tuple[str | None, Mapping[str, str]] | None:
        """The row of the scan at `relative` (below the folder) of the case `name`, by the longest path."""
        parts = relative.parts
        keys = [*("/".join(parts[start:]) for start in range(len(parts))), name]
        return next((self.rows[key] for key in keys if key in self.rows), None)


def read_index(path: Path) -> Index | None:
    """Read `index.csv`: columns `file` and, where known, `patient`; others are tags. None if absent."""
    if not path.is_file():
        return None
    table = read_table(path)
    files, patients = table.column(FILE_COLUMNS), table.column(PATIENT_COLUMNS)
    if files is None:
        return Index(
            {},
            (
                Problem(
                    "is left unread: it has no column `file`",
                    where=path.name,
                    found=f"columns {', '.join(table.columns)}",
                ),
                *patient_remarks(table, None),
            ),
        )
    rows = {}
    for _, row in table.rows:
        tags = {key: value for key, value in row.items() if key not in (files, patients) and key and value}
        rows[Path(row.get(files, "")).as_posix()] = (row.get(patients or "") or None, tags)
    return Index(rows, patient_remarks(table, patients))
