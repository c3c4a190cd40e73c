import dataclasses
import json

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError, ShapeError
from fewmask.core.run import ModelFolder, Step
from fewmask.core.seed import stream
from fewmask.core.volume import IGNORE
from fewmask.data.batches import ArraySource
from fewmask.data.prepare import Preparation
from fewmask.data.softmasks import soft_targets
from fewmask.objectives.teacher import TeacherSettings
from fewmask.segmenter.fit import FitSettings, fit_segmenter
from fewmask.segmenter.heldout import mean_iou, pooled_dice
from fewmask.segmenter.predict import probabilities_of
from fewmask.segmenter.sources import Labelled, encode, with_unlabelled
from fewmask.training.launch import alone, launch

SETTINGS = FitSettings(widths=(4, 8), images=16, batch_size=4)
SLICES = Preparation(channels={"image": ("film",)}, orientation="native")
VOLUMES = Preparation(channels={"image": ("zscore",)}, axes="volume")
CLASSES = {"square": 2, "frame": 5}


@pytest.fixture(scope="module")
def fabric():
    return launch(threads=1)


def squares(count=4, size=(16, 16), seed=0):
    chance = stream(seed, "squares")
    masks = np.zeros((count, *size), dtype=np.uint8)
    masks[:, :2] = 5
    for mask in masks:
        mask[tuple(slice(at, at + 6) for at in chance.integers(3, 9, len(size)))] = 2
    images = np.where(masks == 2, 0.6, np.where(masks == 5, -0.2, -0.8))
    images = images + 0.1 * chance.standard_normal(images.shape)
    return Labelled(np.clip(images, -1, 1).astype(np.float32)[:, None], masks)


def train(folder, fabric, data=None, **settings):
    how = {"step": Step(folder), "seed": 3, "fabric": fabric, "settings": SETTINGS, **settings}
    return fit_segmenter(data or squares(), how.pop("preparation", SLICES), CLASSES, **how)


def logged(step):
    return [json.loads(line) for line in (step / "stats.jsonl").read_text().splitlines()]


def weights(step):
    return ModelFolder(step / "model").weights.read_bytes()


def test_same_seed_same_weights(tmp_path, fabric):
    train(tmp_path / "a", fabric)
    torch.rand(3)
    train(tmp_path / "b", fabric)
    train(tmp_path / "c", fabric, seed=4)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")
    description = ModelFolder(tmp_path / "a" / "model").model_json
    assert description.read_bytes() == ModelFolder(tmp_path / "b" / "model").model_json.read_bytes()


def test_the_same_call_again_loads_what_is_finished(tmp_path, fabric):
    first = train(tmp_path, fabric, about={"arm": "unet"})
    stamp = (tmp_path / "stats.jsonl").stat().st_mtime_ns
    again = train(tmp_path, fabric, about={"arm": "unet"})
    assert (tmp_path / "stats.jsonl").stat().st_mtime_ns == stamp
    assert again.design == first.design
    image = squares(seed=9).images[0][:, None]
    np.testing.assert_array_equal(probabilities_of(first, image), probabilities_of(again, image))


def test_other_data_or_settings_in_the_same_folder_are_refused(tmp_path, fabric):
    train(tmp_path, fabric)
    with pytest.raises(RunError, match=r"other settings \(data\)"):
        train(tmp_path, fabric, data=squares(seed=1))
    with pytest.raises(RunError, match=r"other settings \(settings\.lr\)"):
        train(tmp_path, fabric, settings=dataclasses.replace(SETTINGS, lr=0.5))


def test_a_broken_off_training_goes_on_to_the_same_weights(tmp_path, fabric, monkeypatch):
    settings = dataclasses.replace(SETTINGS, checkpoint_every=8, average=8)
    train(tmp_path / "whole", fabric, settings=settings)
    stop_at = 12

    def fetch(self, indices, chance, seen=[0]):  # noqa: B006 - counts the calls
        seen[0] += len(indices)
        if seen[0] > stop_at:
            raise KeyboardInterrupt
        return honest(self, indices, chance)

    honest = ArraySource.fetch
    monkeypatch.setattr(ArraySource, "fetch", fetch)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", fabric, settings=settings)
    monkeypatch.setattr(ArraySource, "fetch", honest)
    train(tmp_path / "broken", fabric, settings=settings)
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


def test_it_learns_two_labels_that_are_not_1_and_2(tmp_path, fabric):
    settings = dataclasses.replace(SETTINGS, images=320, lr=0.01, augment=None)
    segmenter = train(tmp_path, fabric, settings=settings)
    test = squares(seed=9)
    encoded = Labelled(test.images, [encode(mask, (0, 2, 5), "") for mask in test.masks])
    assert pooled_dice(segmenter.network, encoded, segmenter.design) > 0.9


def test_the_best_validated_weights_are_kept(tmp_path, fabric):
    settings = dataclasses.replace(SETTINGS, validate_every=4)
    train(tmp_path, fabric, settings=settings, validation=squares(2, seed=5))
    done = json.loads((tmp_path / "done.json").read_text())
    assert 0 < done["best"]["images_seen"] <= 16
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert any("smoothed_score" in str(line) for line in lines)


def test_volumes_of_any_size_are_learned_in_patches(tmp_path, fabric):
    data = Labelled(
        [squares(1, size, seed=n).images[0] for n, size in enumerate([(9, 14, 16), (14, 17, 20)])],
        [squares(1, size, seed=n).masks[0] for n, size in enumerate([(9, 14, 16), (14, 17, 20)])],
    )
    settings = dataclasses.replace(SETTINGS, patch=(9, 12, 12), images=4, batch_size=2)
    segmenter = train(tmp_path, fabric, data=data, settings=settings, preparation=VOLUMES)
    assert segmenter.design.patch == (10, 12, 12)
    assert probabilities_of(segmenter, data.images[1]).shape == (3, 14, 17, 20)


def test_without_a_patch_the_largest_image_is_rounded_up(tmp_path, fabric):
    data = squares(2, (15, 17))
    segmenter = train(tmp_path, fabric, data=data)
    assert segmenter.design.patch == (16, 18)


def test_a_source_of_images_needs_a_patch_and_may_be_weighted(tmp_path, fabric):
    data = squares()
    source = ArraySource(np.stack(data.images), np.stack(data.masks))
    with pytest.raises(ConfigError, match="needs a patch size"):
        train(tmp_path, fabric, data=source)
    settings = dataclasses.replace(SETTINGS, patch=(16, 16))
    train(tmp_path, fabric, data=source, settings=settings, weights=[1, 0, 0, 1])
    assert weights(tmp_path)


def test_soft_masks_are_learned_over_the_networks_classes(tmp_path, fabric):
    data = squares()
    images = np.stack(data.images)
    soft = soft_targets(np.stack([encode(mask, (0, 2, 5), "") for mask in data.masks]), 3)
    settings = dataclasses.replace(SETTINGS, patch=(16, 16), images=320, lr=0.01, augment=None)
    hard = train(tmp_path / "hard", fabric, data=ArraySource(images, np.stack(data.masks)), settings=settings)
    learned = train(tmp_path / "soft", fabric, data=ArraySource(images, soft), settings=settings)
    image = squares(seed=9).images[0][:, None]
    expected = probabilities_of(hard, image)
    np.testing.assert_allclose(probabilities_of(learned, image), expected, atol=1e-3)
    with pytest.raises(RunError, match=r"other settings \(data\)"):
        train(tmp_path / "soft", fabric, data=ArraySource(images, soft / np.float16(2)), settings=settings)
    with pytest.raises(ShapeError, match="another number of classes"):
        train(tmp_path / "few", fabric, data=ArraySource(images, soft[:, :2]), settings=settings)


def taught(folder, fabric, count=1, **settings):
    """A training on `count` labelled images and seven that nobody labelled."""
    known, pool = squares(count), squares(7, seed=8)
    source, drawn = with_unlabelled(np.stack(known.images), np.stack(known.masks), np.stack(pool.images))
    how = dataclasses.replace(SETTINGS, patch=(16, 16), **settings.pop("how", {}))
    return train(folder, fabric, data=source, weights=drawn, settings=how, **settings)


def test_a_teacher_learns_from_images_without_masks_and_resumes(tmp_path, fabric, monkeypatch):
    teacher, how = (
        TeacherSettings(average=8, ramp=0.5),
        {"checkpoint_every": 8, "class_weights": (1.0, 2.0, 2.0)},
    )
    taught(tmp_path / "whole", fabric, teacher=teacher, how=how)
    honest, calls = ArraySource.fetch, []

    def fetch(self, indices, chance):
        calls.append(indices)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return honest(self, indices, chance)

    monkeypatch.setattr(ArraySource, "fetch", fetch)
    with pytest.raises(KeyboardInterrupt):
        taught(tmp_path / "broken", fabric, teacher=teacher, how=how)
    monkeypatch.setattr(ArraySource, "fetch", honest)
    taught(tmp_path / "broken", fabric, teacher=teacher, how=how)
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    assert "unlabelled_cross_entropy" in logged(tmp_path / "whole")[-1]
    taught(tmp_path / "alone", fabric, teacher=dataclasses.replace(teacher, weight=0.0), how=how)
    taught(tmp_path / "even", fabric, teacher=teacher, how={"checkpoint_every": 8})
    assert len({weights(tmp_path / name) for name in ("whole", "alone", "even")}) == 3
    with pytest.raises(RunError, match=r"other settings \(teacher\.average\)"):
        taught(tmp_path / "whole", fabric, teacher=dataclasses.replace(teacher, average=9), how=how)


def test_a_training_starts_from_a_segmenter_of_its_design(tmp_path, fabric):
    first = train(tmp_path / "first", fabric)
    still = dataclasses.replace(SETTINGS, lr=0.0)
    train(tmp_path / "still", fabric, start=first, settings=still, data=squares(seed=4))
    assert weights(tmp_path / "still") == weights(tmp_path / "first")
    assert all(not p.requires_grad for p in first.network.parameters())
    train(tmp_path / "on", fabric, start=first)
    assert weights(tmp_path / "on") != weights(tmp_path / "first")
    with pytest.raises(RunError, match=r"other settings \(start\)"):
        train(tmp_path / "on", fabric, start=train(tmp_path / "other", fabric, seed=9))
    with pytest.raises(ConfigError, match=r"another design[\s\S]*\(4, 8\)"):
        train(tmp_path / "wide", fabric, start=first, settings=dataclasses.replace(SETTINGS, widths=(4, 6)))


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_watching_changes_nothing(tmp_path, fabric, validated, with_teacher):
    settings = dataclasses.replace(SETTINGS, patch=(16, 16), validate_every=8)
    how = {"settings": settings, "teacher": TeacherSettings() if with_teacher else None}
    how["validation"] = squares(2, seed=5) if validated else None
    train(tmp_path / "alone", fabric, **how)
    segmenter = train(tmp_path / "watched", fabric, watch=squares(2, seed=6), **how)
    assert weights(tmp_path / "alone") == weights(tmp_path / "watched")
    seen = {
        line["images"]: line["watched_iou"] for line in logged(tmp_path / "watched") if "watched_iou" in line
    }
    assert list(seen) == [8, 16]
    assert not any("watched_iou" in line for line in logged(tmp_path / "alone"))
    if not validated:
        test = squares(2, seed=6)
        encoded = Labelled(test.images, [encode(mask, (0, 2, 5), "") for mask in test.masks])
        assert seen[16] == mean_iou(segmenter.network, encoded, segmenter.design)


def test_undeclared_labels_and_empty_masks_are_refused(tmp_path, fabric):
    strange = squares()
    strange.masks[1][3, 3] = 9
    with pytest.raises(DataError, match=r"training mask 1: a mask holds label values[\s\S]*found: 9"):
        train(tmp_path, fabric, data=strange)
    empty = Labelled(squares().images, [np.zeros((16, 16), np.uint8)] * 4)
    with pytest.raises(DataError, match="no training mask shows any class"):
        train(tmp_path, fabric, data=empty)


def test_masks_that_do_not_fit_their_images_are_refused():
    data = squares()
    with pytest.raises(ShapeError, match="every training image needs its mask"):
        Labelled(data.images, data.masks[:2])
    with pytest.raises(ShapeError, match=r"image 0: a mask has another size"):
        Labelled(data.images, [mask[1:] for mask in data.masks])


def test_unjudged_voxels_keep_their_label():
    mask = np.array([0, 5, 2, IGNORE], dtype=np.uint8)
    np.testing.assert_array_equal(encode(mask, (0, 2, 5), ""), [0, 2, 1, IGNORE])


def test_a_finished_training_of_another_precision_is_refused(tmp_path, fabric):
    train(tmp_path, fabric)
    assert "precision" not in json.loads(Step(tmp_path).inputs_json.read_text())
    with pytest.raises(RunError, match=r"other settings \(precision\)"):
        train(tmp_path, alone("cpu", "bf16"))
