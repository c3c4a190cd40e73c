from pathlib import Path

import pytest

from fewmask.core.errors import RunError
from fewmask.segmenter.journal import Entry, append, read


def test_the_last_line_of_a_scan_counts(tmp_path):
    path = tmp_path / "new" / "journal.jsonl"
    first = Entry("a", "quarantined", {"input": "1"}, 0.5, reason="a text file")
    last = Entry("a", "done", {"input": "2"}, 1.5, confidence=0.9, by_class={"x": 0.9})
    other = Entry("sub/b", "done", {}, 2.0)
    assert read(path) == {}
    for entry in (first, other, last):
        append(path, entry)
    found = read(path)
    assert found["a"].outcome == "done"
    assert found["a"].confidence == 0.9
    assert list(found) == ["a", "sub/b"]


def test_a_line_cut_short_is_passed_over_and_not_continued(tmp_path):
    path = tmp_path / "journal.jsonl"
    append(path, Entry("a", "done", {}, 1.0))
    with path.open("a") as stream:
        stream.write('{"scan": "b", "outc')
    append(path, Entry("c", "done", {}, 1.0))
    assert sorted(read(path)) == ["a", "c"]


def test_a_journal_that_cannot_be_written_is_a_run_error(tmp_path):
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(RunError, match="journal"):
        append(tmp_path / "journal.jsonl", Entry("a", "done", {}, 1.0))


def test_a_line_is_added_without_reading_the_others(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    append(path, Entry("a", "done", {}, 1.0))

    def refuse(_):
        raise AssertionError("the whole journal was read")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        append(path, Entry("ä", "done", {}, 1.0))
    assert sorted(read(path)) == ["a", "ä"]
