"""A generator trained from scratch: resumes to the same weights, is judged, and tells what went wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError
from fewmask.core.run import Run
from fewmask.core.seed import stream
from fewmask.synthesis.design import build_generator
from fewmask.synthesis.generator import GeneratorDesign, Slices, read_stats, train_generator
from fewmask.synthesis.start import Start
from fewmask.training.launch import launch

DESIGN = GeneratorDesign(channel_base=64, channel_max=4, latent=8, mapping_layers=1, batch=4, r1_every=2)


def slices(count: int = 20, size: int = 16, name: str = "slices") -> np.ndarray:
    return stream(0, name).uniform(-1, 1, (count, 1, size, size)).astype(np.float16)


def train(folder, images=None, design=DESIGN, total=16, **more):
    step = Run.open(folder).step("gan")
    given = slices() if images is None else images
    return train_generator(given, design, step, total=total, seed=1, fabric=launch(threads=1), **more)


def test_the_same_call_gives_and_keeps_the_same_generator(tmp_path):
    first, again, other = train(tmp_path / "a"), train(tmp_path / "a"), train(tmp_path / "b")
    for one, two, three in zip(
        first.generator.parameters(), again.generator.parameters(), other.generator.parameters(), strict=True
    ):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    assert first.fitted.images_seen == again.fitted.images_seen == 16
    assert not any(p.requires_grad for p in first.discriminator.parameters())
    assert first.generator is first.last
    assert first.best is None
    rebuilt = build_generator(first.settings["generator"])
    rebuilt.load_state_dict(first.generator.state_dict())


def test_the_best_by_the_judge_is_kept_beside_the_last(tmp_path):
    scores = iter([1.0, 3.0, 2.0, 0.0])
    seen = []

    def judge(generator):
        score = next(scores)
        seen.append((score, generator.synthesis.const.detach().clone()))
        return {"score": score, "distance": -score}

    trained = train(tmp_path, judge=judge, judge_every=4)
    assert trained.best["score"] == 3.0
    assert trained.best["images_seen"] == 8
    torch.testing.assert_close(trained.generator.synthesis.const, seen[1][1])
    torch.testing.assert_close(trained.last.synthesis.const, seen[3][1])
    (line,) = read_stats(Run.open(tmp_path).step("gan").stats_jsonl)
    assert "distance" in line


def test_classes_and_scaled_bytes_are_learned_and_recorded(tmp_path):
    images = stream(0, "bytes").integers(0, 255, (20, 1, 16, 16), dtype=np.uint8)
    labels = np.eye(2, dtype=np.float32)[np.arange(20) % 2]
    given = Slices(images, labels, scale=(2 / 255, -1.0), intensities={"window": [-1000, 400]})
    trained = train(tmp_path, given, held_out=Slices(images[:8], labels[:8], scale=(2 / 255, -1.0)))
    assert trained.generator.classes == trained.discriminator.classes == 2
    assert trained.key["intensities"] == {"window": [-1000, 400]}
    (line,) = read_stats(Run.open(tmp_path).step("gan").stats_jsonl)
    assert "logit_held_out" in line


def test_weights_say_how_often_slices_are_shown_and_labels_drawn(tmp_path):
    labels = np.eye(2, dtype=np.float32)[[0] * 15 + [1] * 5]
    weights = np.array([0.5 / 15] * 15 + [0.5 / 5] * 5)
    plain, given = Slices(slices(), labels), Slices(slices(), labels, weights=weights)
    assert plain.drawn_labels[:, 1].mean() == 0.25
    assert given.drawn_labels[:, 1].mean() == 0.5
    assert Slices(slices(), weights=weights).drawn_labels is None
    never = Slices(slices(), labels, weights=np.array([1.0] * 15 + [0.0] * 5))
    assert never.drawn_labels[:, 1].sum() == 0
    stream_ = given.stream(20, seed=0, name="x")
    drawn = np.concatenate([stream_.at(20 * n).index for n in range(100)])
    assert (drawn >= 15).mean() == pytest.approx(0.5, abs=0.04)
    first, second = train(tmp_path / "a", plain, total=8), train(tmp_path / "b", given, total=8)
    assert "weights" not in first.key
    assert second.key["weights"]
    assert not torch.equal(first.generator.synthesis.const, second.generator.synthesis.const)


def test_stylegan3_trains_through_the_same_door(tmp_path):
    trained = train(tmp_path, design=replace(DESIGN, kind="stylegan3-r", mixing=0.0), total=8)
    assert trained.settings["generator"]["kind"] == "stylegan3"
    assert trained.generator(torch.zeros(1, 8)).shape == (1, 1, 16, 16)


def test_a_training_goes_on_from_trained_networks(tmp_path):
    first = train(tmp_path / "a")
    start = Start(first.generator, first.discriminator)
    design = DESIGN.transferred(freeze=1)
    second = train(tmp_path / "b", slices(name="others"), design, start=start)
    kept, learned = second.discriminator, first.discriminator
    assert torch.equal(kept.from_image.weight, learned.from_image.weight)
    assert not torch.equal(kept.out.weight, learned.out.weight)
    with pytest.raises(RunError, match="start"):
        train(tmp_path / "b", slices(name="others"), design, start=Start(first.generator))
    with pytest.raises(ConfigError, match="another architecture"):
        train(tmp_path / "c", design=replace(DESIGN, channel_max=8), start=start)


def test_a_collapse_is_told_while_it_trains_and_afterwards(tmp_path, capsys):
    design = replace(DESIGN, batch=20, learning_rate=1e-9)
    grey = build_generator(design.generator(1, 16)).requires_grad_(False)
    for parameter in grey.parameters():
        parameter.zero_()
    trained = train(tmp_path, None, design, total=300, start=Start(grey))
    assert [alarm.name for alarm in trained.alarms] == ["collapse"]
    assert "ALARM collapse" in capsys.readouterr().err


def test_slices_that_teach_nothing_are_refused_before_anything_is_written(tmp_path):
    broken = slices()
    broken[4, 0, 0, 0] = np.nan
    with pytest.raises(ConfigError, match="too few slices"):
        train(tmp_path, slices(5))
    with pytest.raises(ConfigError, match="square"):
        train(tmp_path, slices()[:, :, :8])
    with pytest.raises(DataError, match="no numbers"):
        train(tmp_path, broken)
    with pytest.raises(ConfigError, match="another kind"):
        train(tmp_path, held_out=Slices(slices(size=32)))
    assert not Run.open(tmp_path).step("gan").inputs_json.exists()
