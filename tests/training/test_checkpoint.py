"""Checkpoints: whole or not at all."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from fewmask.core.errors import RunError
from fewmask.core.run import Step
from fewmask.training import checkpoint
from fewmask.training.checkpoint import State, clean, read_newest, write_checkpoint


def state(value: float, size: int = 8) -> State:
    return State({"module/a/w": torch.full((size,), value)}, {"value": value})


def value_of(step: Step) -> float | None:
    newest = read_newest(step)
    if newest is None:
        return None
    assert newest[1].tensors["module/a/w"][0].item() == newest[1].numbers["value"]
    return newest[1].numbers["value"]


def names(step: Step) -> list[str]:
    return sorted(path.name for path in step.checkpoints.iterdir())


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    step = Step(tmp_path)
    assert read_newest(step) is None
    for n in (1, 5, 20, 100):
        write_checkpoint(step, n, state(n))
    assert names(step) == ["000000000020", "000000000100"]
    assert value_of(step) == 100


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    tensors = {f"module/a/{n}": torch.arange(n + 1.0) for n in range(20)}
    backwards = dict(reversed(tensors.items()))
    for name, given in (("a", tensors), ("b", backwards)):
        checkpoint.write_tensors(tmp_path / f"{name}.safetensors", given)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_a_number(path: Path) -> None:
    path.write_text(path.read_text().replace('"value": 2', '"value": 3'))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("tensors", truncate),
        ("tensors", flip),
        ("tensors", Path.unlink),
        ("tensors", lambda path: path.write_bytes(b"")),
        ("numbers", truncate),
        ("numbers", change_a_number),
        ("numbers", Path.unlink),
        ("numbers", lambda path: path.write_text("[]")),
    ],
)
def test_a_torn_checkpoint_is_passed_over(file: str, damage, tmp_path: Path) -> None:
    step = Step(tmp_path)
    write_checkpoint(step, 10, state(1))
    write_checkpoint(step, 20, state(2))
    damage(getattr(step.checkpoint(20), file))
    assert value_of(step) == 1
    assert clean(step, step.checkpoint(10).folder) == ["000000000020"]
    assert names(step) == ["000000000010"]
    write_checkpoint(step, 20, state(2))
    assert value_of(step) == 2


def test_an_unreadable_checkpoint_is_not_trained_over(tmp_path: Path, monkeypatch) -> None:
    step = Step(tmp_path)
    write_checkpoint(step, 10, state(1))

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(RunError, match="cannot be read"):
        read_newest(step)


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    step = Step(tmp_path)
    folder = write_checkpoint(step, 10, state(1))
    shutil.copytree(folder, step.checkpoints / ".000000000020.99.tmp")
    (step.checkpoints / ".best.json.99.tmp.json").write_text("{")
    assert value_of(step) == 1
    clean(step, folder)
    assert names(step) == ["000000000010"]


def test_full_disk_leaves_the_old_checkpoints(tmp_path: Path, monkeypatch) -> None:
    step = Step(tmp_path)
    write_checkpoint(step, 10, state(1))
    words = "Error while serializing: I/O error: No space left on device (os error 28)"

    def full(*_: object) -> None:
        raise SafetensorError(words)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match=r"(?s)000000000020: the disk is full.*it goes on"):
        write_checkpoint(step, 20, state(2))
    monkeypatch.undo()
    assert names(step) == ["000000000010"]
    assert value_of(step) == 1


def test_a_real_write_that_stops_half_way(tmp_path: Path, files_of_at_most) -> None:
    step = Step(tmp_path)
    write_checkpoint(step, 10, state(1))
    with files_of_at_most(4096), pytest.raises(RunError, match="File too large"):
        write_checkpoint(step, 20, state(2, size=10_000))
    assert names(step) == ["000000000010"]
    assert value_of(step) == 1


def test_a_full_disk_at_the_rename(tmp_path: Path, monkeypatch) -> None:
    step = Step(tmp_path)
    write_checkpoint(step, 10, state(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="the disk is full"):
        write_checkpoint(step, 20, state(2))
    monkeypatch.undo()
    assert names(step) == ["000000000010"]


def test_damaged_best_weights_are_refused(tmp_path: Path) -> None:
    step, net = Step(tmp_path), nn.Linear(2, 1)
    checkpoint.write_best(step, {"net": net}, {"score": 1.0})
    other = nn.Linear(2, 1)
    assert checkpoint.load_best(step, {"net": other})["score"] == 1.0
    assert torch.equal(net.weight, other.weight)
    flip(step.best_tensors)
    with pytest.raises(RunError, match="best weights are damaged"):
        checkpoint.load_best(step, {"net": other})


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("not tensors")
    with pytest.raises(RunError, match="not a readable safetensors file"):
        checkpoint.read_tensors(path)


def test_shared_weights_and_layouts_survive(tmp_path: Path) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)).to(memory_format=torch.channels_last)
        net[1].weight = net[0].weight
        return net, torch.optim.Adam(net.parameters())

    net, optimizer = build()
    net(torch.ones(1, 2, 8, 8)).sum().backward()
    optimizer.step()
    step = Step(tmp_path)
    write_checkpoint(step, 4, checkpoint.gather({"net": net}, {"net": optimizer}))
    again, its = build()
    folder, saved = read_newest(step)
    checkpoint.restore({"net": again}, {"net": its}, saved, folder)
    assert again[1].weight is again[0].weight
    assert torch.equal(again[0].weight, net[0].weight)
    moment = its.state[again[0].weight]["exp_avg"]
    assert moment.stride() == optimizer.state[net[0].weight]["exp_avg"].stride()
    assert torch.equal(moment, optimizer.state[net[0].weight]["exp_avg"])


def test_other_optimizers_are_refused(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    saved = checkpoint.gather({"net": net}, {"net": torch.optim.Adam(net.parameters())})
    with pytest.raises(RunError, match="other optimizers"):
        checkpoint.restore({"net": net}, {"head": torch.optim.Adam(net.parameters())}, saved, tmp_path)
    few = torch.optim.Adam([net.weight])
    with pytest.raises(RunError, match="other parameters"):
        checkpoint.restore({"net": net}, {"net": few}, saved, tmp_path)
