"""The verdict says in plain words what the numbers allow, and no more."""

from dataclasses import replace

import pytest

from fewmask.report.content import Arm, Check, Sentence
from fewmask.report.verdict import verdict
from fewmask.report.words import shots_words

FEW = 400


def texts(rows, report):
    return [sentence.text for sentence in verdict(rows, report, resamples=FEW)]


def test_win_draw_and_loss_are_told_alike(make_rows, make_report):
    rows = make_rows()
    found = verdict(rows, make_report(rows), resamples=FEW)
    assert found[0].kind == "mixed"
    assert found[0].text == (
        "The GAN-feature segmenter beat the plain U-Net at k = 1, was worse at k = 8 and cannot be told from "
        "it at k = 3."
    )
    assert [s.kind for s in found[1:4]] == ["better", "undecided", "worse"]
    assert found[1].text.startswith("With 1 labelled image the GAN-feature segmenter (Dice 0.8")
    assert "did not beat the plain U-Net on the same images" in found[3].text
    assert found[3].text.endswith("; use the plain U-Net.")
    assert "difference −0.0" in found[3].text
    assert found[4].text.startswith("With 8 labelled images the GAN-feature segmenter reaches Dice")
    assert "all labelled images give" in found[4].text
    assert found[-1] == Sentence("On the lungs alone a public pretrained model needs no mask at all.", "note")


@pytest.mark.parametrize(
    ("ours", "baseline", "kind", "text"),
    [
        (0.6, 0.8, "worse", "did not beat the plain U-Net at k = 1 and k = 3: use the plain U-Net."),
        (0.8, 0.6, "better", "beat the plain U-Net at k = 1 and k = 3."),
    ],
)
def test_one_sided_results(make_rows, make_report, ours, baseline, kind, text):
    rows = make_rows({("head", 1): ours, ("unet", 1): baseline, ("head", 3): ours, ("unet", 3): baseline})
    first = verdict(rows, make_report(rows), resamples=FEW)[0]
    assert first.kind == kind
    assert first.text == f"The GAN-feature segmenter {text}"


def test_level_arms_favour_the_simpler(make_rows, make_report):
    rows = make_rows({("head", 3): 0.8}, patients=12)
    rows += [replace(r, arm="unet", dice=r.dice + 0.02 * (-1) ** int(r.patient[1:])) for r in rows]
    first, second, *_ = verdict(rows, make_report(rows), resamples=FEW)
    assert (first.kind, second.kind) == ("undecided", "undecided")
    assert "cannot be told apart" in first.text
    assert "use the plain U-Net, the simpler one" in first.text


def test_few_patients_are_said(make_rows, make_report):
    rows = make_rows({("head", 3): 0.9, ("unet", 3): 0.5}, patients=3)
    found = verdict(rows, make_report(rows), resamples=FEW)
    assert [s.kind for s in found[:2]] == ["caution", "caution"]
    assert found[0].text.startswith("3 test patients cannot decide")
    assert "3 patients decide nothing" in found[1].text


def test_one_draw_and_failed_checks_are_cautions(make_rows, make_report):
    rows = make_rows(draws=1)
    report = make_report(rows)
    report = replace(report, checks=(Check("No patient in two parts", "failed", "2 shared", "A leak."),))
    found = texts(rows, report)
    assert any("one draw of shots" in text for text in found)
    assert any("Failed checks: No patient in two parts." in text for text in found)


def test_no_better_than_an_empty_mask(make_rows, make_report):
    rows = [
        replace(row, dice=0.0, outcome="missed") if row.arm == "head" else row
        for row in make_rows({("head", 3): 0.5, ("unet", 3): 0.8})
    ]
    found = texts(rows, make_report(rows))
    assert any(
        text.startswith("No better than an empty mask (Dice 0.000): GAN-feature segmenter") for text in found
    )


def test_supervised_run_is_set_against_all_masks(make_rows, make_report):
    rows = make_rows({("unet", 1): 0.7, ("unet", 8): 0.9, ("unet", None): 0.95})
    report = replace(
        make_report(rows), arms=(Arm("unet", "U-Net", "baseline"),), remarks=(), shots_unit="patient"
    )
    first = texts(rows, report)[0]
    assert first.startswith("With 8 labelled patients the U-Net reaches Dice 0.8")
    assert "; all labelled patients give 0.9" in first


def test_a_lone_arm_is_reported(make_rows, make_report):
    rows = make_rows({("unet", 3): 0.7})
    assert texts(rows, make_report(rows))[0].startswith(
        "With 3 labelled images the plain U-Net reaches Dice 0.6"
    )


def test_an_unknown_arm_keeps_its_key(make_rows, make_report):
    rows = make_rows({("mystery", 3): 0.7})
    assert "the mystery reaches" in texts(rows, make_report(rows))[0]


def test_shots_in_words():
    assert shots_words(1, "slice") == "1 labelled slice"
    assert shots_words(0, "slice") == "no labelled slices"
    assert shots_words(None, "patient") == "all labelled patients"


def test_no_rows_no_verdict(make_rows, make_report):
    report = make_report(make_rows())
    assert verdict([], report) == report.remarks


def test_an_arm_with_masks_of_its_own_is_not_set_against_others(many):
    rows, report = many
    assert "way number 6" in " ".join(texts(rows, report))
    arms = tuple(replace(arm, own_masks=arm.key == "way 6") for arm in report.arms)
    found = " ".join(texts(rows, replace(report, arms=arms)))
    assert "way number 6" not in found
    assert "best of 5 methods" in found
