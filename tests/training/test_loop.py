"""The loop: resuming, stopping on bad numbers, what it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewmask.core.errors import ConfigError, RunError, TrainingError
from fewmask.core.run import Step
from fewmask.data.batches import ArraySource, Stream
from fewmask.training import checkpoint
from fewmask.training.launch import alone
from fewmask.training.loop import SMOOTHING, fit


def run(worker, fabric, folder: Path, *, images: int = 80, objective=None, **more):
    objective = objective or worker.TinyObjective()
    settings = {"checkpoint_every": 20, "report_every": 12, "seed": 3, "label": "tiny"} | more
    stream = settings.pop("stream", None) or worker.tiny_stream()
    return objective, fit(objective, stream, Step(folder), images=images, fabric=fabric, **settings)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in Step(folder).stats_jsonl.read_text().splitlines()]


def tensors(objective) -> dict[str, torch.Tensor]:
    return dict(checkpoint.gather(objective.modules(), objective.optimizers()).tensors)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_resumed_training_equals_an_uninterrupted_one(worker, fabric, tmp_path: Path) -> None:
    whole, fitted = run(worker, fabric, tmp_path / "whole")
    assert (fitted.images_seen, fitted.resumed_from) == (80, None)
    for images in (20, 40, 60, 80):
        parts, fitted = run(worker, fabric, tmp_path / "parts", images=images)
    assert fitted.resumed_from == 60
    assert same(tensors(whole), tensors(parts))
    assert whole.heat == parts.heat
    assert fitted.seconds > 0


def test_bfloat16_resumes_to_the_same_bits_and_not_as_float32(worker, fabric, tmp_path: Path) -> None:
    rounded = alone("cpu", "bf16")
    whole, _ = run(worker, rounded, tmp_path / "whole", images=40)
    exact, _ = run(worker, fabric, tmp_path / "exact", images=40)
    for images in (20, 40):
        parts, _ = run(worker, rounded, tmp_path / "parts", images=images)
    assert same(tensors(whole), tensors(parts))
    assert not same(tensors(whole), tensors(exact))
    assert {value.dtype for value in tensors(whole).values()} <= {torch.float32, torch.int64}
    with pytest.raises(RunError, match="'precision': 'bf16'"):
        run(worker, fabric, tmp_path / "parts", images=80)


def test_optimizer_state_and_schedule_survive(worker, fabric, tmp_path: Path) -> None:
    first, _ = run(worker, fabric, tmp_path)
    again, fitted = run(worker, fabric, tmp_path)
    assert fitted.resumed_from == 80
    old, new = first.optimizer.state_dict(), again.optimizer.state_dict()
    assert old["param_groups"] == new["param_groups"]
    assert isinstance(new["param_groups"][0]["betas"], tuple)
    for number, values in old["state"].items():
        for key, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(new["state"][number][key]))


def test_a_torn_checkpoint_is_told_and_the_one_before_is_used(worker, fabric, tmp_path: Path, capsys) -> None:
    whole, fitted = run(worker, fabric, tmp_path)
    torn = Step(tmp_path).checkpoint(80)
    torn.tensors.write_bytes(torn.tensors.read_bytes()[:-1])
    capsys.readouterr()
    again, fitted = run(worker, fabric, tmp_path)
    assert fitted.resumed_from == 60
    assert "passed over the damaged checkpoint 000000000080" in capsys.readouterr().err
    assert same(tensors(whole), tensors(again))


def test_last_batch_is_whole_and_a_finished_training_is_only_loaded(
    worker, fabric, tmp_path: Path, capsys
) -> None:
    trained, fitted = run(worker, fabric, tmp_path, images=33)
    assert fitted.images_seen == 36
    before = Step(tmp_path).stats_jsonl.read_bytes()
    capsys.readouterr()
    loaded, again = run(worker, fabric, tmp_path, images=33)
    assert "goes on" not in capsys.readouterr().err, "nothing is left to do"
    assert again.resumed_from == again.images_seen == 36
    assert again.checkpoint == fitted.checkpoint == Step(tmp_path).checkpoint(36).folder
    assert same(tensors(trained), tensors(loaded))
    assert Step(tmp_path).stats_jsonl.read_bytes() == before


def test_stats_hold_averages_speed_and_memory(worker, fabric, tmp_path: Path) -> None:
    run(worker, fabric, tmp_path / "each", report_every=4, images=24)
    run(worker, fabric, tmp_path / "mean", report_every=12, images=24)
    each, mean = lines(tmp_path / "each"), lines(tmp_path / "mean")
    assert [line["images"] for line in mean] == [12, 24]
    assert mean[0]["loss"] == pytest.approx(np.mean([line["loss"] for line in each[:3]]))
    for line in mean:
        assert line["images_per_second"] > 0
        assert 10 < line["memory_mb"] <= line["peak_memory_mb"] + 64


def test_stats_after_a_resume_equal_those_of_an_uninterrupted_run(worker, fabric, tmp_path: Path) -> None:
    """The checkpoint at 20 lies between the reports at 12 and 24: its sums must be taken up again."""

    def numbers(folder: Path) -> list[tuple]:
        return [(line["images"], line["loss"], line["heat"]) for line in lines(folder)]

    spoilt = worker.TinyObjective(spoil_at=32)
    with pytest.raises(TrainingError):
        run(worker, fabric, tmp_path / "parts", objective=spoilt)
    with Step(tmp_path / "parts").stats_jsonl.open("a") as stream:
        stream.write('{"images": 36, "lo')  # the process died while writing
    _, fitted = run(worker, fabric, tmp_path / "parts")
    assert fitted.resumed_from == 20
    run(worker, fabric, tmp_path / "whole")
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


def test_nan_in_a_loss_stops_with_images_values_and_last_good_checkpoint(
    worker, fabric, tmp_path: Path
) -> None:
    objective = worker.TinyObjective(spoil_at=48)
    with pytest.raises(TrainingError, match="after 48 images") as caught:
        run(worker, fabric, tmp_path, objective=objective)
    assert caught.value.exit_code == 1
    assert "loss=nan" in str(caught.value)
    assert str(Step(tmp_path).checkpoint(40).folder) in str(caught.value)
    assert all(torch.isfinite(value).all() for value in tensors(objective).values())


def test_a_gradient_that_is_no_number_leaves_the_weights_alone(worker, fabric, tmp_path: Path) -> None:
    """The root of 0 has a finite value and an infinite slope, as a norm within a penalty may."""

    class Rooted(worker.TinyObjective):
        def update(self, batch, images_seen, minimise):
            weight = next(self.network.parameters())
            minimise((weight * 0).square().sum().sqrt(), self.optimizer)
            return {}

    objective, before = Rooted(), tensors(worker.TinyObjective())
    with pytest.raises(TrainingError, match="gradient is not a finite number"):
        run(worker, fabric, tmp_path, objective=objective)
    assert all(torch.equal(before[key], value) for key, value in tensors(objective).items() if key in before)


def test_a_batch_that_cannot_be_divided_is_refused(worker, fabric, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="micro-batches"):
        run(worker, fabric, tmp_path, parts=3)


def test_infinite_logged_number_stops(worker, fabric, tmp_path: Path) -> None:
    class Overflowing(worker.TinyObjective):
        def update(self, batch, images_seen, minimise):
            return {**super().update(batch, images_seen, minimise), "penalty": float("inf")}

    with pytest.raises(TrainingError, match=r"(?s)penalty is not a finite number.*penalty=inf") as caught:
        run(worker, fabric, tmp_path, objective=Overflowing())
    assert "no good state yet" in str(caught.value)


def test_best_weights_are_kept_by_smoothed_score(worker, fabric, tmp_path: Path) -> None:
    scores = iter([0.0, 0.5, 0.9, 0.1, 0.1, 0.1])
    objective = worker.TinyObjective()
    kept = []

    def validate() -> float:
        kept.append({key: value.clone() for key, value in objective.network.state_dict().items()})
        objective.network.eval()
        return next(scores)

    _, fitted = run(
        worker, fabric, tmp_path, objective=objective, images=48, validate=validate, validate_every=8
    )
    expected, best, when = 0.0, -1.0, 0
    for number, score in enumerate([0.0, 0.5, 0.9, 0.1, 0.1, 0.1]):
        expected = score if number == 0 else SMOOTHING * expected + (1 - SMOOTHING) * score
        if expected > best:
            best, when = expected, number
    assert fitted.best_score == best
    assert objective.network.training, "validation must leave no mode behind"
    fresh = worker.TinyObjective()
    told = checkpoint.load_best(Step(tmp_path), fresh.modules())
    assert told["images_seen"] == 8 * (when + 1)
    assert all(torch.equal(value, kept[when][key]) for key, value in fresh.network.state_dict().items())


def test_a_judgement_may_hold_more_numbers_and_choose_without_smoothing(
    worker, fabric, tmp_path: Path
) -> None:
    scores = iter([0.0, 0.9, 0.5])
    _, fitted = run(
        worker,
        fabric,
        tmp_path,
        images=24,
        validate=lambda: {"score": next(scores), "distance": 7.0},
        validate_every=8,
        report_every=8,
        smoothing=0.0,
    )
    assert fitted.best_score == 0.9
    assert checkpoint.load_best(Step(tmp_path), worker.TinyObjective().modules())["images_seen"] == 16
    assert [line["distance"] for line in lines(tmp_path)] == [7.0, 7.0, 7.0]


def test_a_score_that_is_no_number_stops(worker, fabric, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="score is not a finite number"):
        run(worker, fabric, tmp_path, validate=lambda: float("nan"), validate_every=8)


def test_samples_are_written_as_grids(worker, fabric, tmp_path: Path) -> None:
    run(worker, fabric, tmp_path, images=40, sample_every=20)
    for images in (20, 40):
        with Image.open(Step(tmp_path).sample_png(images)) as picture:
            assert (picture.size, picture.mode) == ((32, 32), "L")


def test_neither_samples_nor_validation_change_the_training(worker, fabric, tmp_path: Path) -> None:
    plain, _ = run(worker, fabric, tmp_path / "plain", images=40)
    shown, _ = run(
        worker,
        fabric,
        tmp_path / "shown",
        images=40,
        sample_every=4,
        validate=lambda: torch.rand(1).item(),
        validate_every=4,
    )
    assert same(tensors(plain), tensors(shown))


def test_observing_is_told_and_changes_nothing(worker, fabric, tmp_path: Path) -> None:
    objective, modes = worker.TinyObjective(), []

    def observe() -> dict[str, float]:
        modes.append(objective.network.training)
        objective.network.eval()
        return {"iou": torch.rand(1).item() + len(modes), "undefined": float("nan")}

    plain, _ = run(worker, fabric, tmp_path / "plain", images=40)
    after = torch.rand(1)
    shown, fitted = run(
        worker, fabric, tmp_path / "shown", images=40, objective=objective, observe=observe, observe_every=8
    )
    assert torch.equal(after, torch.rand(1)), "the global generator is left as it was"
    assert same(tensors(plain), tensors(shown))
    assert (modes, objective.network.training) == ([False] * 5, True)
    assert fitted.best_score is None
    assert not Step(tmp_path / "shown").best_tensors.exists()
    told = lines(tmp_path / "shown")
    assert [1 <= line["iou"] <= 6 and "undefined" not in line for line in told] == [True] * len(told)


def test_without_an_interval_every_report_observes(worker, fabric, tmp_path: Path) -> None:
    run(worker, fabric, tmp_path, images=24, observe=lambda: {"iou": 0.5}, report_every=8)
    assert [line["iou"] for line in lines(tmp_path)] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("change", [{"seed": 4}, {"label": "other"}, {"stream": 8}])
def test_a_checkpoint_of_another_training_is_refused(worker, fabric, tmp_path: Path, change: dict) -> None:
    run(worker, fabric, tmp_path, images=20)
    if "stream" in change:
        source = ArraySource(np.zeros((3, 1, 16, 16), np.float32), np.zeros((3, 16, 16), np.uint8))
        change = {"stream": Stream(source, 8, seed=3, name="train")}
    with pytest.raises(RunError, match="belongs to another training"):
        run(worker, fabric, tmp_path, images=20, **change)


def test_a_training_that_went_further_is_refused(worker, fabric, tmp_path: Path) -> None:
    run(worker, fabric, tmp_path, images=40)
    with pytest.raises(RunError, match="already gone further"):
        run(worker, fabric, tmp_path, images=20)


def test_another_architecture_is_refused_in_words(worker, fabric, tmp_path: Path) -> None:
    run(worker, fabric, tmp_path, images=20)
    wider = worker.TinyObjective(width=5)
    with pytest.raises(RunError, match="another architecture") as caught:
        run(worker, fabric, tmp_path, images=40, objective=wider)
    assert "module/average/0.weight: checkpoint (4, 1, 3, 3), network (5, 1, 3, 3)" in str(caught.value)


@pytest.mark.parametrize("change", [{"images": 0}, {"checkpoint_every": 0}, {"report_every": -1}])
def test_settings_out_of_range_are_refused(worker, fabric, tmp_path: Path, change: dict) -> None:
    with pytest.raises(ConfigError, match="at least one image"):
        run(worker, fabric, tmp_path, **change)


def test_a_folder_without_the_right_to_write_is_a_run_error(
    worker, fabric, tmp_path: Path, monkeypatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match="no permission to write"):
        run(worker, fabric, tmp_path / "locked")
