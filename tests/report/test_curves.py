"""Training curves are read from what a training wrote, also when it was cut off."""

import json

import pytest

from fewmask.report.curves import read_curve, read_watched


def test_series_without_times(tmp_path):
    path = tmp_path / "stats.jsonl"
    lines = [
        {"images": 10 * i, "seconds": i, "images_per_second": 3.0, "memory_mb": 7.0, "loss": float(i)}
        for i in range(1, 4)
    ]
    lines[1]["r1"] = 0.5
    lines[2]["loss"] = float("nan")
    path.write_text("\n".join(json.dumps(line) for line in lines) + '\n{"images": 40, "lo')
    curve = read_curve("U-Net", path)
    assert curve.name == "U-Net"
    assert curve.images == (10, 20, 30)
    assert dict(curve.series) == {"loss": (1.0, 2.0, None), "r1": (None, 0.5, None)}


def test_long_trainings_are_averaged(tmp_path):
    path = tmp_path / "stats.jsonl"
    path.write_text("\n".join(json.dumps({"images": i, "loss": i % 2}) for i in range(1, 1001)))
    curve = read_curve("x", path, points=100)
    assert len(curve.images) == 100
    assert curve.images[-1] == 1000
    assert curve.series["loss"] == pytest.approx([0.5] * 100)


def test_nothing_to_show(tmp_path):
    assert read_curve("x", tmp_path / "absent.jsonl") is None
    (tmp_path / "empty.jsonl").write_text('{"images": 5, "seconds": 1}\n[1]\n')
    assert read_curve("x", tmp_path / "empty.jsonl") is None


def test_the_watched_iou_has_a_curve_of_its_own(tmp_path):
    path = tmp_path / "stats.jsonl"
    lines = [{"images": 50 * i, "loss": 1.0} for i in range(1, 9)]
    lines[1]["watched_iou"], lines[3]["watched_iou"], lines[5]["watched_iou"] = 0.5, 0.7, float("nan")
    path.write_text("\n".join(json.dumps(line) for line in lines))
    found = read_watched("unet/k=3/draw=0", "unet", 3, path)
    assert (found.step, found.arm, found.shots) == ("unet/k=3/draw=0", "unet", 3)
    assert found.done == (0.25, 0.5)
    assert found.iou == (0.5, 0.7)
    assert set(read_curve("unet", path).series) == {"loss"}
    path.write_text(json.dumps({"images": 50, "loss": 1.0}))
    assert read_watched("unet/all", "unet", None, path) is None
