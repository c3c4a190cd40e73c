"""What a verdict on many arms says of the best of them and of full supervision."""

from dataclasses import replace

import pytest

from fewmask.report.verdict import verdict

FEW = 300


def sentences(rows, report):
    return verdict(rows, report, resamples=FEW)


def test_many_arms_are_told_by_the_best_at_each_k(many):
    found = sentences(*many)
    one, three, count, most, share, chosen, *rest = found
    assert one.kind == three.kind == "better"
    assert one.text.startswith(
        "With 1 labelled image the best of 6 methods on trial, the way number 6 (Dice 0.8"
    )
    assert "), beats the plain U-Net on the same images (0.7" in one.text
    assert "The best baseline is the mean teacher (0.7" in one.text
    assert "it beats that one: difference +0.0" in one.text
    assert count.kind == "mixed"
    assert "excludes 0: 3 of 6 at k = 1 (" in count.text
    assert most.text.startswith("With 3 labelled images the way number 6 reaches Dice")
    assert most.text.endswith(", worse than full supervision.")
    assert most.kind == "worse"
    assert share.text.startswith("With 1 labelled image the way number 6 reaches 9")
    assert "of the Dice of full supervision (plain U-Net, all labelled images: 0.8" in share.text
    assert chosen.kind == "caution"
    assert "Which of the 6 methods" in chosen.text
    assert not any("empty mask" in sentence.text for sentence in rest)


@pytest.mark.parametrize(
    ("few", "kind", "end"),
    [
        (0.93, "better", "at least 95 %, at the lower end of the interval too."),
        (0.80, "worse", ": short of 95 %."),
    ],
)
def test_the_share_with_the_fewest_shots(make_rows, make_report, few, kind, end):
    rows = make_rows(
        {("head", 1): few, ("head", 3): 0.3, ("unet", 1): 0.7, ("unet", 3): 0.7, ("unet", None): 0.94}
    )
    share = next(s for s in sentences(rows, make_report(rows)) if "of the Dice of full supervision" in s.text)
    assert share.text.startswith("With 1 labelled image the GAN-feature segmenter reaches")
    assert share.text.endswith(end)
    assert share.kind == kind


def test_a_share_that_chance_can_undo_is_not_claimed(make_rows, make_report):
    rows = make_rows({("head", 1): 0.895, ("unet", 1): 0.8, ("unet", None): 0.94}, draws=2)
    moved = [replace(r, dice=r.dice + (0.02 if r.draw else -0.02)) if r.arm == "head" else r for r in rows]
    share = next(s for s in sentences(moved, make_report(rows)) if "of the Dice of full" in s.text)
    assert share.kind in ("mixed", "undecided")
    few = [row for row in rows if row.patient in ("P000", "P001")]
    share = next(s for s in sentences(few, make_report(rows)) if "of the Dice of full" in s.text)
    assert share.kind == "caution"
    assert share.text.endswith("too few patients to decide about 95 %.")


def test_no_worse_than_all_masks_is_not_told_apart(make_rows, make_report):
    rows = make_rows({("unet", 8): 0.8, ("unet", None): 0.94}, patients=12)
    level = [
        replace(r, arm="head", shots=8, dice=r.dice + 0.02 * (-1) ** int(r.patient[1:]))
        for r in rows
        if r.shots is None
    ]
    found = next(
        s for s in sentences(rows + level, make_report(rows)) if "all labelled images give" in s.text
    )
    assert found.kind == "undecided"
    assert "not told apart from full supervision" in found.text
    above = [replace(r, dice=min(r.dice + 0.05, 1.0)) for r in level]
    found = next(
        s for s in sentences(rows + above, make_report(rows)) if "all labelled images give" in s.text
    )
    assert found.kind == "better"


def test_a_loss_of_the_best_is_no_mixed_result(many):
    rows, report = many
    lower = [replace(r, dice=r.dice - 0.2) if r.arm.startswith("way") else r for r in rows]
    one, _, count, *_ = sentences(lower, report)
    assert one.kind == count.kind == "worse"
    assert "does not beat the plain U-Net" in one.text
    assert "; use the plain U-Net." in one.text
    assert "none of 6 at k = 1 (6 below it)" in count.text
