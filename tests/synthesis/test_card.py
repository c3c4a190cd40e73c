"""A card tells what is known of a set of pairs, survives the disk unchanged, and says what is missing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.seed import stream
from fewmask.metrics.calibration import uncertainty_curve
from fewmask.metrics.fidelity import coverage
from fewmask.metrics.memorisation import CopyDetector
from fewmask.metrics.planted import Planted
from fewmask.synthesis.card import card_of, digest_of, examine
from fewmask.synthesis.card_file import CARD_JSON, CARD_MD, read_card, write_card
from fewmask.synthesis.card_words import card_sections, card_text
from fewmask.synthesis.factory import make_pairs, open_pairs
from fewmask.synthesis.sift import against_real, read_sifted, sift, write_sifted

CLASSES = {"heart": 1, "lung": 2}
MADE_FROM = {"generator": "abc123", "seed": 3, "truncation": 0.7, "heads": ["d1", "d2"]}
COUNT = 6


@pytest.fixture(scope="module")
def folder(painter, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs")
    make_pairs(path, painter, COUNT, made_from=MADE_FROM, classes=CLASSES)
    return path


@pytest.fixture(scope="module")
def pairs(folder):
    return open_pairs(folder)


def noise(name, count):
    return stream(0, "card", name).uniform(-1, 1, (count, 1, 16, 18)).astype(np.float32)


@pytest.fixture(scope="module")
def detector(pairs):
    """Of a generator that repeats two of its training images: those of pairs 1 and 4."""
    training = np.concatenate([noise("training", 28), [pairs.image(1), pairs.image(4)]])
    return CopyDetector.of(training, noise("held out", 40))


@pytest.fixture(scope="module")
def full(pairs, detector):
    records = pairs.records()
    write_sifted(pairs, records, sift(records, uncertain_share=0.34))
    real = np.stack([pairs.mask(n) for n in range(COUNT)])
    score = np.linspace(0, 0.3, 40)
    return card_of(
        pairs,
        copies=examine(pairs, detector, patients=np.arange(40), plants=20),
        frequencies=against_real(list(records.values()), real, CLASSES),
        coverage=coverage(noise("a", 20), noise("b", 20), noise("c", 30)),
        uncertainty=uncertainty_curve(score, 1 - score, [f"p{n // 2}" for n in range(40)], resamples=100),
        licence="CC BY 4.0",
    )


def test_copies_are_told_by_the_numbers_of_their_pairs(full, pairs):
    report = full.copies
    assert report.copies == (1, 4)
    assert report.examined == tuple(range(COUNT))
    assert report.digest == digest_of(pairs.records(), range(COUNT))
    assert (report.training, report.held_out) == (30, 40)
    assert report.numbers["copies"] == 2
    assert report.planted.found["exact"] == 1
    assert report.proven == report.planted.proven
    assert 0 <= report.false_alarms <= 0.1


def test_some_pairs_may_be_looked_at_alone(pairs, detector):
    report = examine(pairs, detector, numbers=[5, 4, 2], plants=0)
    assert report.examined == (2, 4, 5)
    assert report.copies == (4,)
    assert report.digest == digest_of(pairs.records(), [4, 5, 2]) != digest_of(pairs.records(), [4, 5])
    assert report.planted is None
    assert report.false_alarms is None
    assert not report.proven


def test_a_detector_need_be_proven_only_once(pairs, detector):
    known = Planted({"exact": 1.0, "noise": 0.97}, 30)
    report = examine(pairs, detector, numbers=[0], planted=known)
    assert report.planted == known
    assert not report.proven


def test_a_card_survives_the_disk(full, pairs, tmp_path):
    write_card(tmp_path, full)
    assert read_card(tmp_path) == full
    told = json.loads((tmp_path / CARD_JSON).read_text())
    assert told["copies"]["examined"] == "0-5"
    assert told["generator"] == "abc123"
    odd = replace(full, copies=replace(full.copies, examined=(0, 2, 3, 4, 9)))
    write_card(tmp_path, odd)
    assert json.loads((tmp_path / CARD_JSON).read_text())["copies"]["examined"] == "0, 2-4, 9"
    assert read_card(tmp_path) == odd
    bare = card_of(pairs)
    write_card(tmp_path, bare)
    assert read_card(tmp_path) == bare


def test_a_full_card_says_all_in_words(full):
    text = card_text(full, "Handed on.")
    for said in (
        "Handed on.",
        "generator: abc123",
        "licence: CC BY 4.0",
        "truncation: 0.7",
        '["d1", "d2"]',
        "6 pairs were drawn, 4 kept. Refused: uncertain 2",
        "2 of 6 pairs are copies of training images: pair_000001, pair_000004",
        "| fine |",
        "| coarse |",
        "Planted copies found (20 of each kind): exact 100.0%",
        "| heart |",
        "Generated images cover",
        "Rank correlation of uncertainty and error (1 - Dice): 1.00 [1.00, 1.00]",
        "The score is of use here.",
        "* fewmask ",
    ):
        assert said in text
    assert "Missing" not in text


def test_what_is_missing_is_said(folder, painter, tmp_path):
    bare = make_pairs(tmp_path, painter, 1, made_from={"seed": 1}, classes=CLASSES)
    sections = dict(card_sections(card_of(bare)))
    assert "* generator: not told" in sections["What they were made from"]
    assert any("licence: not told" in line for line in sections["What they were made from"])
    for title in (
        "How many",
        "Copies of training images",
        "Classes, real against generated",
        "Coverage",
        "Does the uncertainty know the errors?",
    ):
        assert "Missing: " in sections[title][0]
    assert read_card(tmp_path) is None


def test_an_unproven_detector_is_called_so(full):
    for planted, said in (
        (None, "no copies were planted"),
        (Planted({"exact": 1.0, "noise": 0.9}, 50), "finds less than 99% of these: noise"),
    ):
        report = replace(full.copies, planted=planted, copies=(), false_alarms=None)
        text = card_text(replace(full, copies=report))
        assert said in text
        assert "The detector is unproven" in text
        assert "No copy was found among 6 pairs" in text
        assert "false alarms were not counted" in text
    proven = replace(full.copies, planted=Planted({"exact": 1.0, "noise": 0.995}, 200))
    assert "The detector is proven" in card_text(replace(full, copies=proven))


def test_a_useless_score_is_called_so(full):
    curve = replace(full.uncertainty, fall=0.001, fall_interval=(-0.01, 0.02), rank=None)
    text = card_text(replace(full, uncertainty=curve))
    assert "that the score is of use here is not shown" in text
    assert "undefined" in text
    assert "no interval" in card_text(replace(full, uncertainty=replace(curve, fall_interval=None)))


def test_many_copies_are_not_all_named(full):
    report = replace(full.copies, copies=tuple(range(30)), examined=tuple(range(40)))
    text = card_text(replace(full, copies=report))
    assert "pair_000019 and 10 more" in text
    assert "pair_000020" not in text


def test_the_choice_is_read_back(full, pairs, painter, tmp_path):
    chosen = sift(pairs.records(), uncertain_share=0.34)
    assert read_sifted(pairs) == chosen
    small = make_pairs(tmp_path, painter, 3, made_from={}, classes=CLASSES)
    assert read_sifted(small) is None
    table = write_sifted(small, small.records(), sift(small.records(), uncertain_share=0.34))
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match="not the table"):
        read_sifted(small)
    (tmp_path / "kept.json").write_text('{"kept": ["x"], "refused": {}}')
    with pytest.raises(DataError, match="no choice among pairs"):
        read_sifted(small)


def test_what_is_no_card_is_refused(full, pairs, tmp_path):
    for told in ("[]", '{"format": 9}', '{"format": 1, "drawn": 3}'):
        (tmp_path / CARD_JSON).write_text(told)
        with pytest.raises(DataError, match="no card"):
            read_card(tmp_path)
    with pytest.raises(ConfigError, match="one line"):
        card_of(pairs, licence="CC BY\nor so")
    assert not (tmp_path / CARD_MD).exists()
