"""Generated images as DICOM files that say so: Secondary Capture, Synthetic Data (0008,001C) = YES."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from fewmask.core.errors import ShapeError
from fewmask.core.files import write_atomic


def write_synthetic_dicom(
    path: Path,
    pixels: NDArray[np.unsignedinteger[Any]],
    *,
    name: str,
    key: str,
    number: int,
    bits: int,
    channel: str = "",
    series: int = 1,
    origin: str = "",
) -> Path:
    """Write one generated image; the same arguments give the same bytes, UIDs included.

    The object is a Secondary Capture of the modality OT, for it is neither MR nor CT. Its place and its pixel
    size of 1 mm are invented, so that a DICOM-SEG can lie on it. Its patient is too: each image has its own.

    Args:
        path: the .dcm file.
        pixels: (H, W) uint8 or uint16, whole grey levels from 0.
        name: what the invented patient is called.
        key: a word that fixes the UIDs and the patient's ID, such as a checksum of the image; channels of one
            image share it.
        number: tells images of one key apart.
        bits: of the grey levels, 8 to 16.
        channel: name of the channel, kept as series description; channels are series of one study.
        series: number of the series.
        origin: what drew the image, in words.

    Raises `ShapeError` when the pixels are no such image.
    """
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16) or int(pixels.max()) >= 2**bits:
        raise ShapeError(
            "is no image of grey levels",
            where=str(path),
            found=f"{pixels.dtype} {pixels.shape} up to {pixels.max()}",
            expected=f"(H, W) of uint8 or uint16 with {bits} bits",
        )

    def uid(*of: str) -> str:
        return str(generate_uid(entropy_srcs=["fewmask synthetic", key, str(number), *of]))

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid("image", channel)
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = uid("study"), uid("frame")
    dataset.SeriesInstanceUID = uid("series", channel)
    _describe(dataset, name, f"SYNTHETIC-{key[:12]}-{number}", channel, series, origin)
    dataset.set_pixel_data(pixels, "MONOCHROME2", bits, generate_instance_uid=False)
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits
    return write_atomic(path, lambda temporary: dataset.save_as(temporary, enforce_file_format=True))


def _describe(dataset: Dataset, name: str, patient: str, channel: str, series: int, origin: str) -> None:
    """Everything but UIDs and pixels. Empty attributes must be there and are unknown."""
    dataset.SyntheticData = "YES"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.ConversionType = "SYN"
    dataset.Modality = "OT"
    dataset.Manufacturer = "fewmask"
    dataset.DerivationDescription = f"Drawn by a generator; shows no patient. {origin}".strip()[:1024]
    dataset.SeriesDescription = f"Synthetic {channel}".strip()[:64]
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.StudyID = series, 1, "1"
    dataset.PatientName, dataset.PatientID = name[:64], patient[:64]
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "No patient: drawn by a generator"
    dataset.BurnedInAnnotation = "NO"
    for keyword in (
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "PatientOrientation",
        "Laterality",
        "PositionReferenceIndicator",
    ):
        setattr(dataset, keyword, "")
    dataset.ImagePositionPatient = [0, 0, 0]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
    dataset.ImageComments = "Synthetic. Place and pixel size are invented."
