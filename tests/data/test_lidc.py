"""LIDC's annotation files: parsed, drawn on CTs of any format, and refused when they are hostile."""

import importlib.util
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from fewmask.core.errors import DataError
from fewmask.core.volume import Volume
from fewmask.data.cohort import read_case_mask, read_cohort
from fewmask.data.dicomslices import find_slices
from fewmask.data.io import write_volume
from fewmask.data.lidc import read_lidc_xml
from fewmask.data.lidc_cohort import find_lidc_cases, lidc_files, write_lidc_cohort
from fewmask.data.lidc_masks import draw, open_scan, reader_masks

_spec = importlib.util.spec_from_file_location("lidc_files", Path(__file__).with_name("lidc_files.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)

SHAPE = (6, 40, 36)
SERIES = "1.2.3.4"


def _ct() -> Volume:
    voxels = np.full(SHAPE, -800, np.int16)
    voxels[:, :5, :3] = 7  # the corner of pixel (0, 0)
    return Volume(voxels, files.affine())


def _sessions(z: float = -95.0, sop: str = "") -> list[str]:
    """Two readers with one nodule of two slices; a small one and a non-nodule; a third who marked nothing."""
    first = files.nodule(
        "N1",
        files.roi(files.square(10, 16), z=z, sop=sop),
        files.roi(files.square(11, 15), z=z + 2.5),
        malignancy=4,
    )
    second = files.nodule("IL1", files.roi(files.square(11, 16), z=z, sop=sop))
    small = files.nodule("S", files.roi([(30, 30)], z=z))
    return [first + small, second + files.non_nodule("X", 5, 6, z), ""]


def _expected(voxels: np.ndarray) -> None:
    truth = np.zeros(SHAPE, np.uint8)
    truth[2, 12:18, 10:16] = 1
    truth[3, 13:17, 11:15] = 1
    np.testing.assert_array_equal(voxels, truth)


def test_what_a_file_tells(tmp_path):
    reading = read_lidc_xml(files.write_xml(tmp_path / "a.xml", _sessions()))
    assert reading.series_uid == SERIES
    assert reading.readers == ("reader1", "reader2", "reader3")
    assert [(m.reader, m.name, m.kind) for m in reading.marks] == [
        ("reader1", "N1", "nodule"),
        ("reader1", "S", "small nodule"),
        ("reader2", "IL1", "nodule"),
        ("reader2", "X", "non-nodule"),
    ]
    first = reading.marks[0]
    assert first.characteristics == {"malignancy": 4}
    assert first.outlines[0].z_mm == -95.0
    assert first.outlines[0].points[0].tolist() == [9, 11]
    assert reading.marks[3].outlines[0].points.tolist() == [[5, 6]]


def test_a_file_without_namespace_is_read_too(tmp_path):
    path = files.write_xml(tmp_path / "a.xml", _sessions())
    path.write_text(path.read_text().replace(' xmlns="http://www.nih.gov"', ""))
    assert len(read_lidc_xml(path).marks) == 4


def test_the_outline_is_outside_the_nodule(tmp_path):
    """A chain around 6 x 6 pixels gives these 36 and none of its own."""
    reading = read_lidc_xml(files.write_xml(tmp_path / "a.xml", _sessions()))
    write_volume(tmp_path / "ct.mhd", _ct())
    masks, remarks = reader_masks(reading, open_scan(tmp_path / "ct.mhd"))
    _expected(masks["reader1"].voxels)
    assert masks["reader2"].voxels.sum() == 25
    assert masks["reader3"].voxels.sum() == 0
    np.testing.assert_allclose(masks["reader1"].affine, files.affine())
    assert any("1 marks of kind small nodule" in line for line in remarks)
    assert any("1 marks of kind non-nodule" in line for line in remarks)


def test_a_hole_keeps_its_own_outline_as_nodule(tmp_path):
    hole = files.roi(files.square(12, 14), z=-95.0, inclusion=False)
    whole = files.roi(files.square(8, 18), z=-95.0)
    write_volume(tmp_path / "ct.mhd", _ct())
    for order in ((hole, whole), (whole, hole)):
        reading = read_lidc_xml(files.write_xml(tmp_path / "a.xml", [files.nodule("N", *order)]))
        mask = reader_masks(reading, open_scan(tmp_path / "ct.mhd"))[0]["reader1"].voxels
        assert mask.sum() == 100 - 4
        assert not mask[2, 14:16, 12:14].any()


def test_points_that_do_not_touch_are_joined(tmp_path):
    corners = [(9, 11), (16, 11), (16, 18), (9, 18)]
    reading = read_lidc_xml(
        files.write_xml(tmp_path / "a.xml", [files.nodule("N", files.roi(corners, z=-95.0))])
    )
    write_volume(tmp_path / "ct.mhd", _ct())
    assert reader_masks(reading, open_scan(tmp_path / "ct.mhd"))[0]["reader1"].voxels.sum() == 36


def test_an_outline_that_encloses_nothing_is_told(tmp_path):
    thin = files.nodule("N", files.roi([(9, 11), (10, 11), (10, 12), (9, 12)], z=-95.0))
    reading = read_lidc_xml(files.write_xml(tmp_path / "a.xml", [thin]))
    write_volume(tmp_path / "ct.mhd", _ct())
    masks, remarks = reader_masks(reading, open_scan(tmp_path / "ct.mhd"))
    assert masks["reader1"].voxels.sum() == 0
    assert any("enclose no voxel" in line for line in remarks)


def test_drawn_regions_with_their_outlines_are_what_distances_are_measured_from(tmp_path):
    reading = read_lidc_xml(files.write_xml(tmp_path / "a.xml", _sessions()))
    write_volume(tmp_path / "ct.mhd", _ct())
    drawn = draw(reading.marks[0], open_scan(tmp_path / "ct.mhd"))
    assert drawn.start == (2, 11, 9)
    points = drawn.points_mm((2.5, 0.7, 0.7))
    assert len(points) == 64 + 36  # 8 x 8 and 6 x 6 with their chains
    assert points.min(axis=0) == pytest.approx([5.0, 7.7, 6.3])


def test_on_a_dicom_series_by_uid_or_by_height(tmp_path, write_series):
    """File names and numbers of the series follow no order; the image's UID says which slice is meant."""
    write_series(tmp_path / "ct", _ct().voxels, files.affine())
    slices = find_slices(sorted((tmp_path / "ct").iterdir())).slices
    third = next(one for one in slices if abs(one.position[2] + 95.0) < 1e-3)
    for name, sessions in {
        "height": _sessions(),
        "uid": [
            text.replace("<imageZposition>-95.0 ", "<imageZposition>4711 ")
            for text in _sessions(sop=third.instance)
        ],
    }.items():
        reading = read_lidc_xml(files.write_xml(tmp_path / f"{name}.xml", sessions))
        masks, _ = reader_masks(reading, open_scan(tmp_path / "ct"))
        _expected(masks["reader1"].voxels)


def test_a_ct_that_its_converter_flipped(tmp_path):
    """dcm2niix turns rows round; nibabel's RAS turns both axes. The nodule stays on the same tissue."""
    reading = read_lidc_xml(files.write_xml(tmp_path / "a.xml", _sessions()))
    marked = _ct().voxels.copy()
    marked[2, 12:18, 10:16] = 100
    data = np.transpose(marked, (2, 1, 0))
    plain = nibabel.Nifti1Image(data, files.affine())
    turned = files.affine()
    turned[:3, 3] += turned[:3, 1] * (SHAPE[1] - 1)
    turned[:3, 1] *= -1
    for name, image in {
        "plain": plain,
        "rows": nibabel.Nifti1Image(data[:, ::-1], turned),
        "ras": nibabel.as_closest_canonical(plain),
    }.items():
        path = tmp_path / f"{name}.nii.gz"
        nibabel.save(image, path)
        masks, _ = reader_masks(reading, open_scan(path))
        stored = np.transpose(np.asarray(nibabel.load(path).dataobj), (2, 1, 0))
        np.testing.assert_array_equal(masks["reader1"].voxels[2] > 0, stored[2] == 100)


def test_mhd_of_a_prone_patient_is_taken_as_stored(tmp_path):
    """ITK keeps DICOM's pixels and writes the directions: pixel (0, 0) stays the first of the array."""
    image = sitk.GetImageFromArray(_ct().voxels)
    image.SetSpacing((0.7, 0.7, 2.5))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((0, 0, -100))
    sitk.WriteImage(image, tmp_path / "prone.mhd")
    reading = read_lidc_xml(files.write_xml(tmp_path / "a.xml", _sessions()))
    _expected(reader_masks(reading, open_scan(tmp_path / "prone.mhd"))[0]["reader1"].voxels)
    turned = reader_masks(reading, open_scan(tmp_path / "prone.mhd", pixels="supine"))[0]["reader1"].voxels
    _expected(turned[:, ::-1, ::-1])


def test_outlines_of_another_ct_are_refused(tmp_path):
    write_volume(tmp_path / "ct.mhd", _ct())
    scan = open_scan(tmp_path / "ct.mhd")
    high = read_lidc_xml(files.write_xml(tmp_path / "a.xml", _sessions(z=-60.0)))
    with pytest.raises(DataError, match="on no slice of this CT"):
        reader_masks(high, scan)
    wide = files.nodule("N", files.roi(files.square(30, 45), z=-95.0))
    with pytest.raises(DataError, match="leaves the slice"):
        reader_masks(read_lidc_xml(files.write_xml(tmp_path / "b.xml", [wide])), scan)


def test_a_sagittal_scan_is_refused(tmp_path):
    matrix = files.affine()[:, [2, 1, 0, 3]]
    write_volume(tmp_path / "ct.mhd", Volume(_ct().voxels, matrix))
    with pytest.raises(DataError, match="axial"):
        open_scan(tmp_path / "ct.mhd")


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
ELSEWHERE = '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">'


@pytest.mark.parametrize("trick", [LAUGHS, OUTSIDE, ELSEWHERE])
def test_document_types_and_entities_are_refused(tmp_path, trick):
    path = files.write_xml(tmp_path / "a.xml", _sessions())
    text = path.read_text().replace('encoding="UTF-8"?>', f'encoding="UTF-8"?>{trick}')
    path.write_text(text.replace("Second unblinded read", "&a;"))
    with pytest.raises(DataError, match="has a document type"):
        read_lidc_xml(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not well-formed"),
        (b"<LidcReadMessage>", "not well-formed"),
        (b"\x00\x01\x02", "not well-formed"),
        (b'<?xml version="1.0" encoding="klingon"?><LidcReadMessage/>', "not well-formed"),
        (b"<other/>", "no annotation file"),
        (b"<LidcReadMessage/>", "no reading of a CT"),
        (b"<a>" * 60 + b"</a>" * 60, "nested"),
        (
            b"<LidcReadMessage><readingSession><unblindedReadNodule><roi><edgeMap><xCoord>nan</xCoord>"
            b"<yCoord>1</yCoord></edgeMap></roi></unblindedReadNodule></readingSession></LidcReadMessage>",
            "no number",
        ),
        (
            b"<LidcReadMessage><readingSession><unblindedReadNodule><roi><edgeMap><xCoord>1e300</xCoord>"
            b"<yCoord>1</yCoord></edgeMap></roi></unblindedReadNodule></readingSession></LidcReadMessage>",
            "no number",
        ),
    ],
)
def test_other_files_are_refused_in_words(tmp_path, content, message):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_lidc_xml(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_lidc_xml(tmp_path / "none.xml")


def test_a_folder_of_lidc_is_a_cohort_with_readers(tmp_path, write_series):
    """One CT as DICOM beside its file, one as MHD named after its series, as LUNA16 ships it."""
    folder = tmp_path / "LIDC"
    write_series(folder / "LIDC-IDRI-0001" / "a" / "b", _ct().voxels, files.affine(), uid="1.2.77")
    files.write_xml(folder / "LIDC-IDRI-0001" / "a" / "b" / "069.xml", _sessions(), series="1.2.77")
    write_volume(folder / "luna" / "1.2.88.mhd", _ct())
    files.write_xml(folder / "xml" / "LIDC-IDRI-0002.xml", _sessions()[1:], series="1.2.88")
    assert len(lidc_files(folder)) == 2
    cases = find_lidc_cases(folder)
    assert [case.name for case in cases] == ["T1", "LIDC-IDRI-0002"]
    out, remarks = write_lidc_cohort(folder, tmp_path / "out")
    cohort = read_cohort(out)
    assert cohort.readers == ("reader1", "reader2", "reader3")
    assert cohort.classes == {"nodule": 1}
    first = cohort.case("T1")
    _expected(read_case_mask(first, cohort, reader="reader1").voxels)
    assert read_case_mask(first, cohort, reader="reader3").voxels.sum() == 0
    assert cohort.case("LIDC-IDRI-0002").readers == ("reader1", "reader2")
    assert len(remarks) == 3


def test_a_file_without_its_ct_is_told(tmp_path):
    files.write_xml(tmp_path / "a.xml", _sessions(), series="1.2.99")
    with pytest.raises(DataError, match="CT of this annotation file is not there"):
        find_lidc_cases(tmp_path)
    assert lidc_files(tmp_path / "none") == []
