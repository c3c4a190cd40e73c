"""Uncertain and implausible pairs are left out of a list; the pairs stay where they are."""

import json

import numpy as np
import pytest

from fewmask.core.errors import ConfigError
from fewmask.data.cohort import read_cohort
from fewmask.metrics.shapes import Margin, Shape
from fewmask.synthesis.factory import Record, make_pairs
from fewmask.synthesis.sift import against_real, sift, write_sifted

CLASSES = {"heart": 1, "lung": 2}


def record(number, score, pixels=16, centre=(8.0, 8.0)):
    shown = {"heart": Shape(pixels, centre, 1), "lung": Shape(0, None, 0)}
    return Record(number, "", "", score, shown)


def real_masks():
    masks = np.zeros((2, 20, 20), np.uint8)
    masks[0, 6:10, 6:10] = 1
    masks[1, 7:12, 7:12] = 1
    return masks


def test_the_most_uncertain_share_of_all_pairs_is_dropped():
    scores = [0.5, 0.9, 0.1, 0.9, 0.3, 0.2, 0.8, 0.0, 0.4, 0.6]
    records = {n: record(n, score) for n, score in enumerate(scores)}
    found = sift(records, uncertain_share=0.1)
    assert dict(found.refused) == {3: ("uncertain",)}
    assert found.kept == (0, 1, 2, 4, 5, 6, 7, 8, 9)
    assert sift(records, uncertain_share=0.3).counts == {"uncertain": 3}
    assert sift(dict(reversed(records.items())), uncertain_share=0.3) == sift(records, uncertain_share=0.3)
    assert len(sift(records, uncertain_share=0).kept) == 10


def test_every_reason_is_counted():
    records = {n: record(n, n / 10) for n in range(10)}
    records[9] = record(9, 0.9, pixels=200)
    records[1] = record(1, 0.1, pixels=2)
    records[2] = record(2, 0.2, pixels=2, centre=(1.0, 19.0))
    records[3] = record(3, 0.3, pixels=0, centre=None)
    found = sift(records, real_masks=real_masks(), classes=CLASSES)
    assert found.refused[9] == ("uncertain", "heart: area")
    assert found.counts == {"heart: area": 3, "heart: absent": 1, "heart: centre": 1, "uncertain": 1}
    assert found.kept == (0, 4, 5, 6, 7, 8)
    wide = Margin(area=100, centre=20)
    assert sift(records, real_masks=real_masks(), classes=CLASSES, margin=wide).counts == {
        "heart: absent": 1,
        "uncertain": 1,
    }


def test_the_choice_is_a_cohort_and_moves_nothing(maker, tmp_path):
    pairs = make_pairs(tmp_path, maker, 5, made_from={}, classes=CLASSES)
    before = {path: path.read_bytes() for path in tmp_path.rglob("pair_*")}
    records = pairs.records()
    found = sift(records, uncertain_share=0.4)
    table = write_sifted(pairs, records, found)
    cohort = read_cohort(table)
    assert [int(case.tags["number"]) for case in cohort.cases] == list(found.kept)
    assert cohort.classes == CLASSES
    assert len(read_cohort(tmp_path).cases) == 5
    assert {path: path.read_bytes() for path in tmp_path.rglob("pair_*")} == before
    told = json.loads((tmp_path / "kept.json").read_text())
    assert told["kept"] == list(found.kept)
    assert told["counts"] == {"uncertain": 2}
    worst = sorted(records.values(), key=lambda one: one.score)[-2:]
    assert set(found.refused) == {one.number for one in worst}


def test_classes_real_against_generated():
    heart, lung = against_real([record(0, 0.1), record(1, 0.1, 30)], real_masks(), CLASSES)
    assert (heart.real_present, heart.made_present, lung.made_present) == (1, 1, 0)
    assert heart.real_area == (18.25, 20.5, 22.75)
    assert heart.made_area == (19.5, 23.0, 26.5)


def test_senseless_settings_are_refused():
    records = {0: record(0, 0.5)}
    for how in ({"uncertain_share": 1.0}, {"uncertain_share": -0.1}, {"real_masks": real_masks()}):
        with pytest.raises(ConfigError, match="pairs"):
            sift(records, **how)
    with pytest.raises(ConfigError, match="pairs"):
        sift({})
