"""The table of lesions: counted over draws, averaged over patients, absent where nobody scored them."""

from dataclasses import replace

import pytest

from fewmask.report.lesions import lesion_tables
from fewmask.report.page import write_page

FEW = 200


@pytest.fixture
def scored(make_rows):
    """Two draws of one arm on three patients: P000 has 3 lesions in two cases, P001 one, P002 none."""
    counts = {("P000", 0): (2, 1, 0), ("P000", 1): (2, 2, 1), ("P001", 0): (1, 1, 0), ("P001", 1): (1, 0, 3)}
    rows = []
    for row in make_rows({("head", 3): 0.8}, patients=3, draws=2, classes=("nodule",)):
        there, hit, invented = counts.get((row.patient, row.draw), (0, 0, 2))
        rows.append(
            replace(row, lesions=there, lesions_hit=hit, lesions_outlined=0, lesions_invented=invented)
        )
        if row.patient == "P000":
            rows.append(replace(rows[-1], case="second", lesions=1, lesions_hit=0, lesions_invented=0))
    return rows


def test_found_is_counted_and_sensitivity_averaged_over_patients(scored, make_report):
    (table,) = lesion_tables(scored, make_report(scored), resamples=FEW)
    assert table.title == "Lesion by lesion: nodule"
    ((name, shots, found, sensitivity, outlined, share, invented),) = table.rows
    assert (name, shots, found) == ("GAN-feature segmenter", "3", "4 of 8")
    # P000: 1/3 and 2/3; P001: 1 and 0; P002 has none to find and counts only for what was invented
    assert sensitivity.startswith("0.500 [")
    assert (outlined, share[:7]) == ("0 of 8", "0.000 [")
    assert invented == f"{(0 + 1 + 0 + 3 + 2 + 2) / 6:.2f}"


def test_nothing_to_find_is_no_sensitivity(scored, make_report):
    none = [replace(row, lesions=0, lesions_hit=0) for row in scored]
    ((_, _, found, sensitivity, *_),) = lesion_tables(none, make_report(none), resamples=FEW)[0].rows
    assert (found, sensitivity) == ("0 of 0", "–")


def test_a_table_per_class_in_the_order_of_the_arms_on_the_page(scored, make_report, make_rows, tmp_path):
    unet = [replace(row, arm="unet") for row in scored]
    both = [*unet, *scored, *(replace(row, class_name="cyst") for row in scored)]
    report = make_report(both)
    tables = lesion_tables(both, report, resamples=FEW)
    assert [table.title for table in tables] == ["Lesion by lesion: nodule", "Lesion by lesion: cyst"]
    assert [row[0] for row in tables[0].rows] == ["GAN-feature segmenter", "plain U-Net"]
    page = write_page(report, both, tmp_path / "page.html", resamples=FEW).read_text(encoding="utf-8")
    assert "Lesion by lesion: cyst" in page
    plain = make_rows()
    assert lesion_tables(plain, make_report(plain), resamples=FEW) == ()
