"""Pairs on the disk: whole, once each, and the same bytes however the work was divided or interrupted."""

import errno
import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest

from fewmask.core import files
from fewmask.core.errors import ConfigError, DataError, RunError
from fewmask.data.check import check_cohort
from fewmask.data.cohort import read_case_mask, read_cohort, read_images
from fewmask.metrics.shapes import shapes
from fewmask.synthesis.factory import FACTORY_JSON, make_pairs, open_pairs

CLASSES = {"heart": 1, "lung": 2}
MADE_FROM = {"generator": "abc", "seed": 3, "truncation": 0.7}
COUNT = 7


def make(folder, maker, count=COUNT, **how):
    return make_pairs(folder, maker, count, made_from=MADE_FROM, classes=CLASSES, **how)


def coloured(maker):
    """Pairs of two channels that differ."""

    def draw(number):
        pair = maker(number)
        return replace(pair, image=np.concatenate([pair.image, -pair.image]))

    return draw


def hashes(folder):
    """Of every file but the journals and the locks."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "journal"
    }


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """Thousands of them take long, and no machine crashes here."""
    monkeypatch.setattr(files.os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def drawn(maker):
    """The same pairs, drawn once."""
    return [maker(number) for number in range(COUNT)].__getitem__


@pytest.fixture(scope="module")
def whole(maker, tmp_path_factory):
    """All pairs, made without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "pairs"
    make(folder, maker)
    return folder


@pytest.mark.parametrize("image_format", ["png", "nifti"])
@pytest.mark.parametrize("modalities", [("image",), ("flair", "t1")])
def test_the_folder_is_a_cohort_without_fault(maker, tmp_path, image_format, modalities):
    draw = coloured(maker) if len(modalities) > 1 else maker
    made = make(tmp_path, draw, 3, image_format=image_format, modalities=modalities)
    cohort = read_cohort(tmp_path, on_fault="report")
    report = check_cohort(cohort)
    assert not report.faults
    assert cohort.classes == CLASSES
    assert cohort.modalities == modalities
    assert [case.name for case in cohort.cases] == ["pair_000000", "pair_000001", "pair_000002"]
    step = 2 / (255 if image_format == "png" else 4095)
    for number, case in enumerate(cohort.cases):
        pair = draw(number)
        assert np.array_equal(read_case_mask(case, cohort).voxels[0], pair.mask)
        assert tuple(read_images(case)) == modalities
        assert np.abs(made.image(number) - pair.image).max() <= step / 2 + 1e-6
        assert np.array_equal(made.mask(number), pair.mask)
        soft, uncertain = made.soft(number)
        assert np.array_equal(soft, pair.soft)
        assert np.array_equal(uncertain, pair.uncertain.astype(np.float16))


def test_the_index_tells_of_every_pair(whole, maker):
    records = open_pairs(whole).records()
    assert list(records) == list(range(COUNT))
    for number, record in records.items():
        image, mask = (whole / kind / f"pair_{number:06d}.png" for kind in ("images", "masks"))
        assert record.image_sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
        assert record.mask_sha256 == hashlib.sha256(mask.read_bytes()).hexdigest()
        assert record.shapes == shapes(maker(number).mask, CLASSES)
        assert record.score == pytest.approx(maker(number).score, abs=1e-6)
    case = read_cohort(whole).cases[2]
    assert case.tags["number"] == "2"
    assert case.tags["image_sha256"] == records[2].image_sha256
    assert case.tags["pixels_heart"] == str(records[2].shapes["heart"].pixels)


@pytest.mark.parametrize(("shards", "batch_size"), [(1, 4), (2, 1), (3, 8), (8, 1)])
def test_neither_shards_nor_batches_change_a_byte(whole, maker, tmp_path, shards, batch_size):
    for number in reversed(range(shards)):
        made = make(tmp_path, maker, shard=(number, shards), batch_size=batch_size)
    assert hashes(tmp_path) == hashes(whole)
    assert list(made.records()) == list(range(COUNT))


def test_gzip_keeps_neither_time_nor_name(drawn, tmp_path, monkeypatch):
    """Other processes at other times write the same bytes."""
    made = make(tmp_path / "a", drawn, 1, image_format="nifti")
    monkeypatch.setattr(os, "getpid", lambda: 123456789)
    monkeypatch.setattr("time.time", lambda: 1e9)
    make(tmp_path / "b", drawn, 1, image_format="nifti")
    assert made.mask_of(0).suffixes == [".nii", ".gz"]
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_work_goes_on_under_another_division_and_count(whole, drawn, tmp_path):
    seen = []

    def counting(number):
        seen.append(number)
        return drawn(number)

    make(tmp_path, counting, 4, shard=(1, 2))
    make(tmp_path, counting, 3)
    assert sorted(seen) == [0, 1, 2, 3]
    told = []
    make(tmp_path, counting, batch_size=2, on_progress=lambda done, of: told.append((done, of)))
    assert sorted(seen) == list(range(COUNT))
    assert told == [(6, COUNT), (7, COUNT)]
    make(tmp_path, counting)
    assert len(seen) == COUNT
    assert hashes(tmp_path) == hashes(whole)


class Killed(BaseException):
    """Nothing catches this."""


def failing_at(call, error):
    """fsync fails at the n-th call."""
    calls = [0]

    def fsync(_):
        calls[0] += 1
        if calls[0] == call:
            raise error

    return fsync


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6, 11, 17, 23, 29, 31])
def test_a_kill_loses_no_pair_and_doubles_none(whole, drawn, tmp_path, monkeypatch, call):
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", failing_at(call, Killed()))
        with pytest.raises(Killed):
            make(tmp_path, drawn, batch_size=3)
    before = open_pairs(tmp_path).records() if (tmp_path / FACTORY_JSON).is_file() else {}
    assert len(before) < COUNT or not (tmp_path / "cases.csv").exists()
    make(tmp_path, drawn, batch_size=3)
    assert hashes(tmp_path) == hashes(whole)
    assert list(open_pairs(tmp_path).records()) == list(range(COUNT))


@pytest.mark.parametrize("cut", [1, 30])
def test_a_line_that_was_cut_short_does_not_count(whole, drawn, tmp_path, cut):
    make(tmp_path, drawn, 4)
    journal = tmp_path / "journal" / "0_of_1.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert list(open_pairs(tmp_path).records()) == ([0, 1, 2, 3] if cut == 1 else [0, 1, 2])
    make(tmp_path, drawn)
    assert hashes(tmp_path) == hashes(whole)


@pytest.mark.parametrize("call", [4, 5, 6, 14])
def test_a_full_disk_is_told_and_the_next_call_completes(whole, drawn, tmp_path, monkeypatch, call):
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", failing_at(call, full))
        with pytest.raises(RunError, match="disk is full"):
            make(tmp_path, drawn)
    make(tmp_path, drawn)
    assert hashes(tmp_path) == hashes(whole)


def test_soft_labels_on_a_full_disk(drawn, tmp_path, monkeypatch):
    """The library's own writer raises what is no OSError."""

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(RunError, match="disk is full"):
        make(tmp_path, drawn)


def test_other_pairs_are_refused(drawn, tmp_path):
    make(tmp_path, drawn, 1)
    with pytest.raises(ConfigError, match="made_from"):
        make_pairs(tmp_path, drawn, 1, made_from={"seed": 4}, classes=CLASSES)
    with pytest.raises(ConfigError, match="image_format"):
        make(tmp_path, drawn, 1, image_format="nifti")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scan.png").touch()
    with pytest.raises(ConfigError, match=r"other files(.|\n)*scan\.png"):
        make(tmp_path / "other", drawn)
    with pytest.raises(DataError, match="no generated pairs"):
        open_pairs(tmp_path / "nothing")


def test_two_journals_must_agree(drawn, tmp_path):
    pairs = make(tmp_path, drawn, 2)
    journal = tmp_path / "journal" / "0_of_1.jsonl"
    line = journal.read_text().splitlines()[0]
    (tmp_path / "journal" / "0_of_2.jsonl").write_text(line + "\n")
    assert list(pairs.records()) == [0, 1]
    (tmp_path / "journal" / "0_of_2.jsonl").write_text(line.replace('"mask_sha256": "', '"mask_sha256": "0'))
    with pytest.raises(RunError, match="pair 0 was drawn twice"):
        pairs.records()


def test_two_processes_do_not_share_a_shard(drawn, tmp_path):
    make(tmp_path / "a", drawn, 1)
    with files.held(tmp_path / "a" / "journal" / ".0_of_1.lock"), pytest.raises(RunError, match="another"):
        make(tmp_path / "a", drawn)


@pytest.mark.parametrize(
    "how",
    [
        {"count": 0},
        {"shard": (2, 2)},
        {"shard": (-1, 2)},
        {"batch_size": 0},
        {"modalities": ()},
        {"modalities": ("a", "a")},
        {"modalities": ("../a",)},
        {"classes": {"heart": 2}},
        {"classes": {"heart": 1}},
        {"modalities": ("a", "b")},
    ],
)
def test_senseless_settings_are_refused(drawn, tmp_path, how):
    settings = {"count": 2, "classes": CLASSES, "made_from": MADE_FROM, **how}
    with pytest.raises(ConfigError):
        make_pairs(tmp_path, drawn, settings.pop("count"), **settings)
