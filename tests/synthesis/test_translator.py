"""A CycleGAN learns to take blobs away, resumes to the same bytes, is kept, refuses what it cannot use."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError, ShapeError
from fewmask.core.run import Run
from fewmask.core.seed import stream
from fewmask.data.batches import Stream
from fewmask.synthesis.generator import read_stats
from fewmask.synthesis.healthy import Domains
from fewmask.synthesis.translator import (
    TranslatorDesign,
    read_translator,
    train_translator,
    write_translator,
)
from fewmask.training.launch import launch

SMALL = TranslatorDesign(width=4, blocks=1, layers=1, batch=2, history=5, flip=True)


def backgrounds(count, size, name):
    """Smooth grey images in about [-0.7, 0.1]."""
    chance = stream(0, name)
    across = np.linspace(-1, 1, size)
    tilt = chance.uniform(-0.3, 0.3, (2, count, 1, 1))
    grey = -0.3 + tilt[0] * across + tilt[1] * across[:, None] + chance.normal(0, 0.02, (count, size, size))
    return grey.astype(np.float32)[:, None]


def blobs(count, size, name):
    """Where a round spot lies, (count, 1, size, size), 0 to 1."""
    chance = stream(0, name, "blobs")
    at = chance.uniform(0.25 * size, 0.75 * size, (2, count, 1, 1))
    y, x = np.mgrid[:size, :size]
    return np.exp(-(((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 * 2.5**2))).astype(np.float32)[:, None]


def domains(count=24, size=16):
    sick = backgrounds(count, size, "sick") + 0.9 * blobs(count, size, "sick")
    return Domains(np.clip(sick, -1, 1), np.clip(backgrounds(count, size, "well"), -1, 1))


def train(folder, design=SMALL, images=16, given=None, **more):
    return train_translator(
        domains() if given is None else given,
        design,
        Run.open(folder).step("translator"),
        **{"images": images, "seed": 1, "fabric": launch(threads=1), **more},
    )


def weights(trained):
    return [value for network in trained.players.named().values() for value in network.state_dict().values()]


class Dying(Stream):
    """Batches until the power fails."""

    def at(self, images_seen, **where):
        if images_seen >= 12:
            raise KeyboardInterrupt
        return super().at(images_seen, **where)


@pytest.mark.parametrize(
    "design",
    [SMALL, replace(SMALL, profile="document", batch=4, schedule="document")],
    ids=["reference", "document"],
)
def test_a_cut_training_ends_in_the_same_bytes(design, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", design, keep_every=8)
    with monkeypatch.context() as patched:
        patched.setattr("fewmask.synthesis.translator.Stream", Dying)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", design, keep_every=8)
    resumed = train(tmp_path / "cut", design, keep_every=8)
    assert resumed.fitted.resumed_from == 8
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))
    last = [Run.open(tmp_path / name).step("translator").checkpoint(16).tensors for name in ("whole", "cut")]
    assert last[0].read_bytes() == last[1].read_bytes()  # with history and optimisers
    again = train(tmp_path / "whole", design, keep_every=8)
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(whole), strict=True))
    lines = read_stats(Run.open(tmp_path / "cut").step("translator").stats_jsonl)
    assert {"loss_g", "loss_d", "cycle_ab", "hidden_ba", "cycle_rounded_ab"} <= set(lines[-1])
    assert list(Run.open(tmp_path / "cut").step("translator").samples.glob("*.png"))


def test_micro_batches_take_the_same_way(tmp_path):
    design = replace(SMALL, batch=4)
    whole, divided = (train(tmp_path / f"{n}", design, images=8, parts=n) for n in (1, 2))
    for a, b in zip(weights(whole), weights(divided), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)
    with pytest.raises(ConfigError, match="batch norm needs the whole batch"):
        train(tmp_path / "document", replace(design, profile="document"), parts=2)


def test_it_takes_bright_blobs_away_and_leaves_healthy_images(tmp_path):
    design = replace(TranslatorDesign.tiny(), blocks=1, rotate_deg=0.0)
    trained = train(tmp_path, design, images=400, given=domains(200, 32))
    spots = blobs(20, 32, "new")
    ground, well = backgrounds(20, 32, "new"), backgrounds(20, 32, "other")
    sick = np.clip(ground + 0.9 * spots, -1, 1)
    healed = trained(sick)
    inside, outside = spots > 0.5, spots < 0.01
    before, after = ((one - ground)[inside].mean() for one in (sick, healed.images))
    assert before == pytest.approx(0.65, abs=0.02)
    assert after < before / 2, after
    delta = healed.delta[:, None]
    assert delta[inside].mean() > 3 * delta[outside].mean()
    assert trained(well).delta.mean() < 0.1
    assert [alarm.name for alarm in trained.alarms if alarm.name != "steganography"] == []
    back = trained.translate(healed.images, to="a")
    assert np.abs(back - healed.images).max() > 0.2


def test_images_are_translated_one_by_one_and_of_any_size(tmp_path):
    trained = train(tmp_path, images=4)
    images = domains().diseased[:3]
    both = trained(images)
    assert both.images.shape == images.shape
    assert both.delta.shape == (3, 16, 16)
    assert np.array_equal(trained(images[1:2]).images[0], both.images[1])
    np.testing.assert_allclose(both.delta, np.abs(images - both.images).mean(axis=1), atol=1e-6)
    assert trained(images[:0]).delta.shape == (0, 16, 16)
    assert trained.translate(backgrounds(1, 24, "wide")[..., :19], to="a").shape == (1, 1, 24, 19)
    with pytest.raises(ShapeError, match="do not fit this translator"):
        trained(images[:, 0])


def test_a_translator_is_kept(tmp_path):
    trained = train(tmp_path / "run", images=4)
    files = write_translator(tmp_path / "kept", trained)
    kept = read_translator(tmp_path / "kept")
    images = domains().diseased[:2]
    for to in ("a", "b"):
        assert np.array_equal(kept.translate(images, to=to), trained.translate(images, to=to))
    assert kept.design == SMALL
    assert kept.key == trained.key
    record = json.loads(files.translator_json.read_text())
    files.translator_json.write_text(json.dumps(record | {"format": 2}))
    with pytest.raises(DataError, match="was changed"):
        read_translator(tmp_path / "kept")
    files.translator_json.write_text(json.dumps(record | {"design": record["design"] | {"width": 8}}))
    with pytest.raises(RunError, match="another architecture"):
        read_translator(tmp_path / "kept")
    files.translator_json.write_text("{}")
    with pytest.raises(DataError, match="does not describe a translator"):
        read_translator(tmp_path / "kept")
    with pytest.raises(DataError, match="holds no translator"):
        read_translator(tmp_path / "run")


def test_the_augmentation_turns_a_little(tmp_path):
    """At most five degrees: the middle of the border moves by at most 4 % of the side."""
    augment = TranslatorDesign(flip=True).augment()
    image = torch.full((200, 1, 33, 33), -1.0)
    image[:, :, 16, 28] = 1.0
    chance = torch.Generator().manual_seed(0)
    moved, none = augment(image, None, chance)
    assert none is None
    at = (moved[:, 0] + 1).flatten(1).argmax(dim=1)
    rows, columns = at // 33, at % 33
    assert int((rows - 16).abs().max()) <= 1
    left, right = int((columns < 10).sum()), int((columns > 22).sum())
    assert left + right == 200
    assert 70 < left < 130
    assert TranslatorDesign(rotate_deg=0.0).augment() is None


def test_designs_and_refusals(tmp_path):
    document = TranslatorDesign.document()
    assert [rate.at(0) for rate in document.rates(100)] == [0.005, 0.0002]
    assert [rate.at(90) for rate in document.rates(100)] == [0.005, 0.0002]
    assert TranslatorDesign.document(stable=True).rates(100)[0].at(90) < 5e-5
    with pytest.raises(ConfigError, match="batch norm needs more images"):
        replace(document, batch=2)
    with pytest.raises(ConfigError, match="cannot be trained like this"):
        TranslatorDesign(batch=0)
    with pytest.raises(ConfigError, match="too small for these networks"):
        train(tmp_path / "small", replace(SMALL, layers=3))
    with pytest.raises(ShapeError, match="at least one slice"):
        train(tmp_path / "empty", given=Domains(domains().diseased, domains().healthy[:0]))
    with pytest.raises(ShapeError, match="differ in more than the disease"):
        train(tmp_path / "wide", given=Domains(domains().diseased, domains(size=20).healthy))
    train(tmp_path / "run", images=4)
    with pytest.raises(RunError, match="other settings"):
        train(tmp_path / "run", replace(SMALL, cycle=5.0), images=4)
