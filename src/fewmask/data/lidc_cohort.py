"""A folder of LIDC-IDRI - CTs and their annotation files - as a cohort with one mask per reader."""

import csv
import io
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fewmask.core.errors import DataError, Problem
from fewmask.core.files import write_json, write_text
from fewmask.data.cohort_classes import CLASSES_JSON
from fewmask.data.cohort_table import CASES_CSV, stem
from fewmask.data.dicom import list_files
from fewmask.data.dicomslices import read_header
from fewmask.data.filetype import DICOM, ITK, NIFTI, is_dicom, suffix_of
from fewmask.data.io import write_mask
from fewmask.data.lidc import Reading, is_lidc_xml, read_lidc_xml
from fewmask.data.lidc_masks import open_scan, reader_masks

NODULE = "nodule"
_PATIENT = re.compile(r"LIDC-IDRI-\d{4}")


@dataclass(frozen=True)
class LidcCase:
    """An annotation file with its CT."""

    name: str
    patient: str
    reading: Reading
    scan: Path
    series: str | None
    """Which series of a DICOM folder."""


def lidc_files(folder: Path) -> list[Path]:
    """The annotation files below `folder`, sorted; none when it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.rglob("*.xml") if not path.name.startswith(".") and is_lidc_xml(path)
    )


def find_lidc_cases(folder: Path) -> list[LidcCase]:
    """Every annotation file below `folder` with its CT: DICOM, or a file named after the series (LUNA16).

    Raises:
        DataError: a file that cannot be read, or without its CT; all of them at once.
    """
    scans = _Scans(folder)
    found: list[tuple[Reading, Path, str | None]] = []
    faults: list[Problem] = []
    for path in lidc_files(folder):
        try:
            reading = read_lidc_xml(path)
            found.append((reading, *scans.of(reading)))
        except DataError as error:
            faults.extend(error.problems)
    if faults:
        raise DataError.of(faults, title=f"{folder} has {len(faults)} faults:" if len(faults) > 1 else "")
    patients = [_patient(reading, scan) for reading, scan, _ in found]
    times = Counter(patients)
    cases = []
    for patient, (reading, scan, series) in zip(patients, found, strict=True):
        name = (
            patient if times[patient] == 1 else f"{patient}_{reading.series_uid[-12:] or stem(reading.path)}"
        )
        cases.append(LidcCase(name, patient, reading, scan, series))
    return cases


def write_lidc_cohort(folder: Path, out: Path) -> tuple[Path, list[str]]:
    """Write the readers' masks of every CT below `folder` as a cohort; returns it with remarks in words.

    The CTs stay where they are; `out` gets masks/READER/CASE.nii.gz, a cases.csv and a classes.json.

    Raises:
        DataError: an annotation file or a CT is not what it should be.
    """
    cases = find_lidc_cases(folder)
    remarks: list[str] = []
    rows = []
    for case in cases:
        masks, told = reader_masks(case.reading, open_scan(case.scan, series=case.series))
        remarks += told
        image = os.path.relpath(case.scan.absolute(), out.resolve())
        row = {"case": case.name, "patient": case.patient}
        row["image"] = image if case.series is None else f"{image}#series={case.series}"
        for reader, mask in masks.items():
            written = write_mask(out / "masks" / reader / f"{case.name}.nii.gz", mask)
            row[f"mask@{reader}"] = written.relative_to(out).as_posix()
        rows.append(row)
    write_json(out / CLASSES_JSON, {NODULE: 1})
    columns = sorted({column for row in rows for column in row if "@" in column})
    text = io.StringIO()
    writer = csv.DictWriter(text, ["case", "patient", "image", *columns], lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / CASES_CSV, text.getvalue())
    return out, remarks


class _Scans:
    """Finds the CT of a series below a folder; DICOM headers are read only where that is needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_name = {
            stem(path): path for path in sorted(folder.rglob("*")) if suffix_of(path) in (*ITK, *NIFTI)
        }
        self.by_series: dict[str, Path] | None = None

    def of(self, reading: Reading) -> tuple[Path, str | None]:
        """The CT of a reading, and which series of its folder where there are several."""
        uid = reading.series_uid
        if uid and uid in self.by_name:
            return self.by_name[uid], None
        near = self._in(reading.path.parent, uid)
        if near is None and uid:
            if self.by_series is None:
                self.by_series = self._all_series()
            far = self.by_series.get(uid)
            near = self._in(far, uid) if far else None
        if near is None:
            raise DataError(
                "the CT of this annotation file is not there",
                where=str(reading.path),
                found=f"series {uid or '(the file names none)'}",
                expected=f"its DICOM files below {self.folder}, or a file {uid}.mhd (.mha, .nrrd, .nii.gz)",
                mend="Put the CT there, or take the annotation file away.",
            )
        return near

    def _in(self, folder: Path, uid: str) -> tuple[Path, str | None] | None:
        """The series in a folder; without a UID in the annotation file, the only one."""
        if not any(_dicom(path) for path in folder.iterdir()):
            return None
        series = list_files(folder)[0]
        named = [one for one in series if one.uid == uid] if uid else series
        if len(named) != 1:
            return None
        return folder, None if len(series) == 1 else named[0].uid

    def _all_series(self) -> dict[str, Path]:
        """Folders by the series of their first DICOM file."""
        found: dict[str, Path] = {}
        for folder in sorted({path.parent for path in self.folder.rglob("*") if path.is_file()}):
            first = next((path for path in sorted(folder.iterdir()) if _dicom(path)), None)
            if first is not None:
                for one in list_files(folder)[0]:
                    found.setdefault(one.uid, folder)
        return found


def _dicom(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() in DICOM or (not path.suffix and is_dicom(path)))


def _patient(reading: Reading, scan: Path) -> str:
    """Whose CT it is: by DICOM's header, else by a folder called LIDC-IDRI-0001, else by the series."""
    if scan.is_dir():
        first = next(path for path in sorted(scan.iterdir()) if _dicom(path))
        told = str(read_header(first).get("PatientID", "") or "").strip()
        if re.fullmatch(r"[\w.-]+", told):
            return told
    named = _PATIENT.search(str(reading.path)) or _PATIENT.search(str(scan))
    return named[0] if named else reading.series_uid or stem(reading.path)
