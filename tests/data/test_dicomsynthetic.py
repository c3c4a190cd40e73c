"""A generated image in DICOM is recognised as one, has a place for a mask, and the same bytes each time."""

import numpy as np
import pydicom
import pytest

from fewmask.core.errors import ShapeError
from fewmask.core.volume import Mask
from fewmask.data.dicomseg import write_dicom_seg
from fewmask.data.dicomsynthetic import write_synthetic_dicom
from fewmask.data.io import read_mask, read_volume

HOW = {"name": "Synthetic^Pair 7", "key": "ab" * 32, "number": 7}


def pixels(bits):
    levels = np.arange(15 * 13).reshape(15, 13) * (2**bits - 1) // (15 * 13 - 1)
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_pixels_come_back(tmp_path, bits):
    path = write_synthetic_dicom(tmp_path / "a.dcm", pixels(bits), bits=bits, **HOW)
    volume = read_volume(path)
    assert np.array_equal(volume.voxels[0], pixels(bits))
    assert volume.spacing_mm == (1, 1, 1)
    header = pydicom.dcmread(path)
    assert (header.BitsStored, header.HighBit, header.PixelRepresentation) == (bits, bits - 1, 0)
    assert header.WindowCenter * 2 == header.WindowWidth == 2**bits


def test_it_says_that_it_is_synthetic_and_so_does_its_mask(tmp_path):
    path = write_synthetic_dicom(tmp_path / "a.dcm", pixels(8), bits=8, origin="Generator xy.", **HOW)
    header = pydicom.dcmread(path)
    assert header[0x0008, 0x001C].value == "YES"
    assert (header.Modality, header.ConversionType) == ("OT", "SYN")
    assert header.PatientID == "SYNTHETIC-abababababab-7"
    assert "Generator xy." in header.DerivationDescription
    voxels = (pixels(8) > 99).astype(np.uint8)[np.newaxis]
    seg = tmp_path / "seg.dcm"
    write_dicom_seg(seg, Mask(voxels, read_volume(path).affine), [path], {"lung": 1})
    assert pydicom.dcmread(seg).SyntheticData == "YES"
    assert np.array_equal(read_mask(seg).voxels, voxels)
    real = pydicom.dcmread(path)
    del real.SyntheticData
    real.save_as(tmp_path / "real.dcm")
    write_dicom_seg(seg, Mask(voxels, read_volume(path).affine), [tmp_path / "real.dcm"], {"lung": 1})
    assert "SyntheticData" not in pydicom.dcmread(seg)


def test_the_same_image_has_the_same_bytes_and_channels_share_a_study(tmp_path):
    def written(name, **how):
        return write_synthetic_dicom(tmp_path / name, pixels(8), bits=8, **(HOW | how))

    first, again = written("a.dcm", channel="flair"), written("b.dcm", channel="flair")
    assert first.read_bytes() == again.read_bytes()
    one, other = pydicom.dcmread(first), pydicom.dcmread(written("c.dcm", channel="t1", series=2))
    assert one.StudyInstanceUID == other.StudyInstanceUID
    assert one.FrameOfReferenceUID == other.FrameOfReferenceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert pydicom.dcmread(written("d.dcm", number=8)).StudyInstanceUID != one.StudyInstanceUID


def test_what_is_no_image_of_grey_levels_is_refused(tmp_path):
    for wrong, bits in ((pixels(12), 8), (pixels(8).astype(float), 8), (pixels(8)[np.newaxis], 8)):
        with pytest.raises(ShapeError, match="grey levels"):
            write_synthetic_dicom(tmp_path / "a.dcm", wrong, bits=bits, **HOW)
    assert not list(tmp_path.iterdir())
