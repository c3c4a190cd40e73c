"""The page: self-contained, escaped, accessible, and complete in every odd case."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib as mpl
import pytest

from fewmask.core.errors import RunError
from fewmask.metrics.statistics import MEAN
from fewmask.report import figures
from fewmask.report.content import Gallery, Picture, Table, Watched, read_report, write_report
from fewmask.report.page import flatten, minutes_text, number_text, p_text, seconds_text, write_page
from fewmask.report.tables import lines

FEW = 200
VOID = {"meta", "img", "br", "link", "input", "hr", "path", "line", "circle", "use"}


class Outline(HTMLParser):
    """Collects what the tests look at, and that every element is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.images, self.headings, self.cells, self.sources = (
            [],
            [],
            [],
            [],
            [],
            [],
            [],
        )

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.images += (
            [given] if tag == "img" or (tag == "svg" and given.get("aria-hidden") != "true") else []
        )
        self.headings += [int(tag[1])] if re.fullmatch(r"h[1-6]", tag) else []
        self.cells += [given] if tag == "th" else []
        self.sources += [given[key] for key in ("src", "srcset", "action", "data") if key in given]
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def outline(path):
    parser = Outline()
    parser.feed(path.read_text(encoding="utf-8"))
    assert parser.open == []
    return parser


@pytest.fixture
def page(tmp_path, make_rows, make_report):
    rows = make_rows(patients=8)
    return write_page(make_report(rows), rows, tmp_path / "report.html", resamples=FEW)


def test_whole_offline_and_accessible(page):
    found = outline(page)
    text = page.read_text(encoding="utf-8")
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert not re.search(r"url\((?!#)|@import", text)
    assert all(image.get("alt") or image.get("aria-label") for image in found.images)
    assert len(found.images) == 6 + 1 + 3  # cases, samples, figures
    assert len(found.ids) == len(set(found.ids))
    assert all(link.removeprefix("#") in found.ids for link in found.links)
    assert all(cell.get("scope") in ("col", "row", "rowgroup") for cell in found.cells)
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(found.headings, found.headings[1:], strict=False))
    assert '<html lang="en">' in text
    assert list(page.parent.iterdir()) == [page]


def test_everything_of_the_contract_is_there(page):
    text = page.read_text(encoding="utf-8")
    for word in (
        "Does a GAN trained on unlabelled films help", "Verdict", "Paired comparisons", "Empty mask",
        "Test cases, the worst first", "Labels used", "1 h 12 min", "Spacing (Z × Y × X)", "StyleGAN2, 64 px",
        "What the generator draws", "The generator has not collapsed", "Little depends on the draw",
        "Where this run departs", "the critic&#39;s features", "gan.r1_gamma", "torch 2.13.0", "Ceiling",
        "left lung", "MONAI", "the diagonal of the image",
    ):  # fmt: skip
        assert word in text, word


def test_the_same_run_gives_the_same_page(page, tmp_path, make_rows, make_report):
    rows = make_rows(patients=8)
    again = write_page(make_report(rows), rows, tmp_path / "again.html", resamples=FEW)
    assert again.read_bytes() == page.read_bytes()


def test_text_is_escaped(tmp_path, make_rows, make_report):
    rows = [replace(row, class_name="<b>lung") for row in make_rows(patients=3, classes=("x",))]
    report = replace(make_report(make_rows()), title='<script>alert("x")</script>', question="a < b & c")
    arms = tuple(replace(arm, name=f"{arm.name} <i>") for arm in report.arms)
    path = write_page(replace(report, arms=arms), rows, tmp_path / "report.html", resamples=FEW)
    outline(path)
    text = path.read_text(encoding="utf-8")
    assert "a &lt; b &amp; c" in text
    assert "<b>lung" not in text
    assert "<i>" not in text


def test_a_run_without_scores_has_a_page(tmp_path, make_rows, make_report):
    report = replace(
        make_report(make_rows()), cases=(), samples=(), curves=(), trained=(), ledger=(), checks=(),
        deviations=(), remarks=(), settings={}, versions={},
    )  # fmt: skip
    text = write_page(report, [], tmp_path / "report.html").read_text(encoding="utf-8")
    outline(tmp_path / "report.html")
    assert "Nothing was scored." in text


@pytest.mark.parametrize("patients", [1, 2])
def test_few_patients_and_one_class(tmp_path, make_rows, make_report, patients):
    rows = make_rows(patients=patients, draws=1, classes=("nodule",))
    path = write_page(
        make_report(rows), [replace(r, ceiling=None) for r in rows], tmp_path / "r.html", resamples=FEW
    )
    outline(path)
    text = path.read_text(encoding="utf-8")
    assert "Class by class" not in text
    assert "cannot decide" in text
    assert ("no interval" in text) == (patients == 1)
    assert "nan" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", text).lower().replace("finance", "")


def test_pictures_come_from_their_files_and_a_lost_one_is_named(tmp_path, make_rows, make_report):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"jpeg")
    rows = make_rows(patients=2)
    there, lost = Picture("grid", path="pictures/a.jpg"), Picture("sixteen films", path="pictures/gone.png")
    report = replace(make_report(rows), samples=(there, lost))
    text = write_page(report, rows, tmp_path / "report.html", resamples=FEW).read_text(encoding="utf-8")
    assert 'src="data:image/jpeg;base64,anBlZw=="' in text
    assert "Picture not found: pictures/gone.png. It shows: sixteen films" in text


def test_an_unwritable_page_is_an_error(tmp_path, make_rows, make_report):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        write_page(make_report(make_rows()), [], tmp_path / "file" / "report.html")


def test_figures_take_the_page_s_colours_and_leave_no_state(make_rows, make_report):
    rows = make_rows(patients=5)
    before = dict(mpl.rcParams)
    table = [line for line in lines(rows, make_report(rows), resamples=FEW) if line.class_name == MEAN]
    drawn = [figures.dice_against_shots(table, "image"), figures.dice_by_patient(rows, table)]
    drawn.append(figures.training_curve(make_report(rows).curves[0]))
    assert dict(mpl.rcParams) == before
    for svg in drawn:
        assert svg.startswith("<svg")
        assert 'role="img" aria-label="' in svg
        assert "var(--ink)" in svg
        assert "var(--series-1)" in svg
        assert not re.search(r"#0[14]0[25]0[36]|#0a0b0", svg)
        assert "DejaVu" not in svg
    assert ">all</text>" in drawn[0]


def test_many_arms_are_folded_and_marked(tmp_path, many):
    rows, report = many
    watched = tuple(
        Watched(f"{arm}/{k}", arm, k, (0.5, 1.0), (0.4, 0.7))
        for arm, k in [("unet", None), ("unet", 1), ("way 1", 1), ("way 6", 3)]
    )
    report = replace(report, watched=watched)
    path = write_page(report, rows, tmp_path / "report.html", resamples=FEW)
    found, text = outline(path), path.read_text(encoding="utf-8")
    assert len(found.ids) == len(set(found.ids))
    assert all(cell.get("scope") in ("col", "row", "rowgroup") for cell in found.cells)
    assert text.count('<span class="unseen">above the plain U-Net</span>') >= 4
    assert "<strong>0.8" in text
    assert "Dice, slices" in text
    assert "without any mask" in text
    assert "right on" not in text  # the empty mask was scored: it stands there once
    assert "All comparisons (" in text
    assert "Mean IoU over training" in text
    assert "<dt>Per slice</dt>" in text
    assert read_report(write_report(tmp_path / "report.json", report)).watched == watched


def test_figure_of_the_watched_iou(many):
    rows, report = many
    table = [
        line for line in lines(rows, report, measures=("dice",), resamples=FEW) if line.class_name == MEAN
    ]
    watched = [
        Watched(f"{arm}/{k}", arm, k, (0.5, 1.0), (0.4, 0.7))
        for arm, k in [("unet", None), ("unet", 1), ("way 1", 1), ("way 6", 3)]
    ]
    svg = figures.iou_over_training(watched, table)
    assert ">k = 1</text>" in svg
    assert ">k = 3</text>" in svg
    assert svg.count(">plain U-Net</text>") == 1
    assert ">way number 6</text>" in svg
    assert ">way number 1</text>" not in svg  # not named: faint
    assert svg.count("stroke-dasharray") == 3 + 1  # dotted: three lines, and one in the legend
    assert figures.iou_over_training([], table) == ""
    assert "full supervision</text>" in figures.iou_over_training(watched[:1], [])
    assert figures.dice_against_shots([line for line in table if line.arm == "empty"], "image") == ""


def test_numbers_as_text():
    assert number_text(-0.07) == "−0.070"
    assert number_text(None) == "–"
    assert (p_text(None), p_text(0.00001), p_text(0.00041), p_text(0.3)) == (
        "–",
        "< 0.0001",
        "0.00041",
        "0.300",
    )
    assert (minutes_text(24), minutes_text(125)) == ("24 min", "2 h 05 min")
    assert (seconds_text(12.4), seconds_text(3605)) == ("12 s", "1 h 00 min")
    assert flatten({"a": {"b": [1, None], "c": {}}, "d": float("inf"), "e": True}) == [
        ("a.b", "[1, none]"), ("a.c", "none"), ("d", "inf"), ("e", "True"),
    ]  # fmt: skip


def test_tables_galleries_and_terms_of_a_run_without_scores(tmp_path, make_rows, make_report):
    told = Table("Residuals", ("way", "MSE"), (("W", "0.02"), ("W+", "<0.01")), "Lower is better.")
    picture = Picture("A slice", path="lost.png")
    report = replace(
        make_report(make_rows()),
        tables=(told,),
        galleries=(Gallery("Worst cases", (picture,), "The worst first."),),
        terms={"MSE": "mean squared error"},
    )
    html = write_page(report, [], tmp_path / "report.html").read_text()
    for word in ("Residuals", "&lt;0.01", "Lower is better.", "Worst cases", "The worst first.", "lost.png"):
        assert word in html
    assert "<dt>MSE</dt><dd>mean squared error</dd>" in html
    assert "test patients" not in html
    assert "Dice, IoU" not in html
    assert read_report(write_report(tmp_path / "report.json", report)).tables == (told,)
