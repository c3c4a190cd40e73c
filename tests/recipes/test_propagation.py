"""The arm that registers: what it is given, what its labels are, and what is computed once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewmask.core.errors import RunError
from fewmask.core.files import read_json
from fewmask.recipes import arms, propagation
from fewmask.recipes.arms import UNET, class_numbers, place, train_unet
from fewmask.recipes.embedding import unlabelled_slices
from fewmask.recipes.propagation import PROPAGATION, Atlas, propagation_arm, voter
from fewmask.recipes.stage import every_draw
from fewmask.segmenter.fit import weights_sha256
from fewmask.synthesis.registration import Demons, register, voted, warped

WORDS = ("propagation={real: 0.2, warped: 0.3, side: 16}", "unet.class_weights=true")
N = 5


class AskedError(Exception):
    """A training that was asked for, and is not done."""


@pytest.fixture
def asked(monkeypatch) -> dict[str, Any]:
    """What the training of the arm (not of the plain U-Net) is given."""
    given: dict[str, Any] = {}
    fit = arms.fit_segmenter

    def spied(data, *rest, **how):
        if how["label"].startswith(UNET):
            return fit(data, *rest, **how)
        given.update(how, data=data)
        raise AskedError

    monkeypatch.setattr(arms, "fit_segmenter", spied)
    return given


@pytest.fixture
def registered(monkeypatch) -> list[bytes]:
    """The labelled slice of every registration, in turn."""
    done: list[bytes] = []

    def spied(target, image, how):
        done.append(image.tobytes())
        return register(target, image, how)

    monkeypatch.setattr(propagation, "register", spied)
    return done


@pytest.fixture
def targets(few_shot, tmp_path) -> np.ndarray:
    ground = few_shot(tmp_path / "unlabelled")[0].ground
    return np.asarray(unlabelled_slices(ground, 1)[:N], np.float32)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """The folder of a run whose plain U-Nets are trained once for several tests."""
    return tmp_path_factory.mktemp("propagation") / "run"


def atlas_of(targets, settings) -> Atlas:
    return Atlas(targets, Demons(side=settings.propagation.side, smoothness=settings.propagation.smoothness))


def test_the_unet_is_given_masks_warps_and_labelled_targets(few_shot, shared, asked, targets):
    stage, settings = few_shot(shared, *WORDS)
    few, items = list(every_draw(stage))[-1]
    atlas = atlas_of(targets, settings)
    with pytest.raises(AskedError):
        propagation_arm(stage, settings, atlas, few, items)
    images, masks = class_numbers(stage, items)
    data, classes = asked["data"], len(stage.labels)
    assert len(items.refs) == 3
    assert data.masks.shape == (3 + N + N, classes, 16, 16)
    assert data.masks.dtype == np.float16

    weights = np.array(asked["weights"])
    assert len(weights) == 3 + N + N
    for part, share in ((slice(3), 0.2), (slice(3, 3 + N), 0.3), (slice(3 + N, None), 0.5)):
        assert weights[part].sum() == pytest.approx(share)
        assert np.ptp(weights[part]) == 0

    np.testing.assert_array_equal(data.images[:3], images)
    np.testing.assert_array_equal(data.masks[:3].argmax(axis=1), masks)
    np.testing.assert_array_equal(data.masks[:3].max(axis=1), 1)
    shares = np.eye(classes, dtype=np.float32)[masks].transpose(0, 3, 1, 2)
    fields = [np.stack([register(target, one, atlas.how) for target in targets]) for one in images]
    bent, with_them = warped(images, shares, fields)
    np.testing.assert_array_equal(data.images[3 : 3 + N], bent)
    np.testing.assert_allclose(data.masks[3 : 3 + N], with_them, atol=1e-3)
    np.testing.assert_array_equal(data.images[3 + N :], targets)
    assert asked["teacher"] is None
    unet = train_unet(stage, items, arm=UNET, shots=few.count, draw=few.draw)
    assert weights_sha256(asked["start"].network) == weights_sha256(unet.network)


def test_the_targets_labels_are_what_unet_and_votes_agree_on(few_shot, tmp_path, asked, targets):
    stage, settings = few_shot(tmp_path / "run", *WORDS)
    few, items = list(every_draw(stage))[-1]
    atlas = atlas_of(targets, settings)
    items.masks[0][:4] = 255  # what one of three slices does not tell counts less there
    with pytest.raises(AskedError):
        propagation_arm(stage, settings, atlas, few, items)
    labels = asked["data"].masks[-N:].astype(np.float32)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=2e-3)
    answers = voter(stage, few, items)(torch.from_numpy(targets), None).numpy()
    images, masks = class_numbers(stage, items)
    shares = np.stack([masks == number for number in range(len(stage.labels))], axis=1).astype(np.float32)
    fields = [atlas.displacements(ref, one) for ref, one in zip(items.refs, images, strict=True)]
    votes = voted(shares, fields)
    judged = votes.sum(axis=1, keepdims=True)
    assert judged.min() < 0.7
    np.testing.assert_allclose(labels, (answers + votes) / (1 + judged), atol=1e-3)
    assert np.abs(labels - answers).max() > 0.05
    assert np.abs(labels - votes).max() > 0.05


def test_a_labelled_slice_is_registered_once_for_all_draws_that_hold_it(
    few_shot, shared, asked, registered, targets
):
    stage, settings = few_shot(shared, *WORDS)
    atlas = atlas_of(targets, settings)
    draws = list(every_draw(stage))
    assert [few.count for few, _ in draws] == [1, 3]
    for count, (few, items) in zip((1, 3), draws, strict=True):
        with pytest.raises(AskedError):
            propagation_arm(stage, settings, atlas, few, items)
        assert len(registered) == count * N
    assert set(registered[:N]) == {np.asarray(draws[0][1].images[0], np.float32).tobytes()}
    assert len(set(registered)) == 3


def test_the_arm_is_kept_and_other_settings_are_refused(few_shot, tmp_path, registered, targets):
    def arm(folder, *words, count=N):
        stage, settings = few_shot(tmp_path / folder, *WORDS, *words)
        few, items = next(every_draw(stage))
        return stage, propagation_arm(stage, settings, atlas_of(targets[:count], settings), few, items)

    stage, rows = arm("run")
    assert {(row.arm, row.shots) for row in rows} == {(PROPAGATION, 1)}
    told = read_json(stage.run.step(f"{place(PROPAGATION, 1, 0)}/scores").inputs_json)
    assert (told["targets"], told["propagation"]["warped"]) == (N, 0.3)
    few, items = next(every_draw(stage))
    unet = train_unet(stage, items, arm=UNET, shots=few.count, draw=few.draw)
    begun = read_json(stage.run.step(place(PROPAGATION, 1, 0)).inputs_json)["start"]
    assert begun == weights_sha256(unet.network)
    assert len(registered) == N
    assert arm("run")[1] == rows
    assert len(registered) == N  # nothing was done again
    with pytest.raises(RunError, match=r"propagation\.smoothness"):
        arm("run", "propagation.smoothness=2")
    with pytest.raises(RunError, match=r"other settings \(targets\)"):
        arm("run", count=3)
    assert len(registered) == N

    other, _ = arm("other", "propagation.smoothness=2")
    assert len(registered) == 2 * N
    weights = [
        next(one.run.step(place(PROPAGATION, 1, 0)).model.rglob("*.safetensors")) for one in (stage, other)
    ]
    assert weights[0].read_bytes() != weights[1].read_bytes()
