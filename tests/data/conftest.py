"""A DICOM series written by pydicom alone, so that our reader is tested against another program's files."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _dataset(path: Path, rows: int, columns: int, series: str, number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesDescription = "CT", series, "chest"
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame"])
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Test^Test", "T1", "", ""
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ""
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    ds.Rows, ds.Columns = rows, columns
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    return ds


def _write(
    folder: Path,
    hu: np.ndarray,
    affine: np.ndarray,
    *,
    uid: str = "1.2.3.4",
    keep: list[int] | None = None,
    prefix: str = "IM",
    change=None,
) -> list[Path]:
    """Write voxels (Z, Y, X) in HU, affine to RAS+; `keep` picks slices; `change(ds, z)` edits each."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS @ affine
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    count, rows, columns = hu.shape
    paths = []
    for z in keep if keep is not None else range(count):
        path = folder / f"{prefix}{(z * 7) % 100:02d}_{z}.dcm"  # names and numbers follow no order in space
        ds = _dataset(path, rows, columns, uid, count - z)
        ds.PixelSpacing = [float(sizes[1]), float(sizes[0])]
        ds.SliceThickness = float(sizes[2])
        ds.ImageOrientationPatient = [*(lps[:3, 0] / sizes[0]), *(lps[:3, 1] / sizes[1])]
        ds.ImagePositionPatient = list(lps[:3, 3] + z * lps[:3, 2])
        ds.PixelData = (hu[z] + 1024).astype(np.int16).tobytes()
        if change is not None:
            change(ds, z)
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


@pytest.fixture
def write_series(monkeypatch):
    """Writes a DICOM series: (folder, hu, affine, *, uid, keep, prefix, change) -> paths."""
    # Decimal strings hold 16 characters: let pydicom round to them instead of refusing.
    original = pydicom.valuerep.DSfloat.__init__

    def rounding(self, val, auto_format=True, validation_mode=None):
        original(self, val, auto_format=True, validation_mode=validation_mode)

    monkeypatch.setattr(pydicom.valuerep.DSfloat, "__init__", rounding)
    return _write
