import numpy as np
import pytest

from fewmask.core.errors import DataError
from fewmask.core.volume import Volume
from fewmask.segmenter.predict import class_confidence, predict


@pytest.mark.parametrize("patch", [(16, 16), (8, 16, 16), (64, 64)])
@pytest.mark.parametrize("tta", [False, True])
def test_masks_land_exactly_on_an_oblique_scan(threshold, oblique, patch, tta):
    volume, inside = oblique
    segmenter = threshold(patch=patch, flips=("x", "y"))
    prediction = predict(segmenter, {"image": volume}, tta=tta)
    np.testing.assert_array_equal(prediction.mask.voxels, np.where(inside, 7, 0))
    np.testing.assert_array_equal(prediction.mask.affine, volume.affine)
    assert prediction.mask.voxels.dtype == np.uint8
    assert prediction.confidence > 0.99


def test_a_blob_survives_resizing_and_small_shifts(threshold):
    voxels = np.full((2, 40, 40), -1.0, dtype=np.float32)
    voxels[:, 10:30, 12:28] = 1.0
    segmenter = threshold(patch=(20, 20), preparation={"size": (20, 20)})
    plain = predict(segmenter, {"image": Volume(voxels, np.eye(4))})
    moved = predict(segmenter, {"image": Volume(voxels, np.eye(4))}, tta=True)
    np.testing.assert_array_equal(plain.mask.voxels > 0, voxels > 0)
    np.testing.assert_array_equal(moved.mask.voxels > 0, voxels > 0)


def test_probabilities_only_on_request(threshold, oblique):
    volume, _ = oblique
    assert predict(threshold(), {"image": volume}).probabilities is None
    kept = predict(threshold(), {"image": volume}, keep_probabilities=True).probabilities
    assert kept.shape == (2, 5, 21, 34)
    np.testing.assert_allclose(kept.astype(np.float32).sum(0), 1, atol=2e-3)


def test_a_missing_modality_is_told(threshold, oblique):
    segmenter = threshold(channels={"t1": ("zscore",), "flair": ("zscore",)})
    with pytest.raises(DataError, match=r"needs a modality that the case does not have: flair"):
        predict(segmenter, {"t1": oblique[0]})


def test_unsure_answers_have_less_confidence(threshold, oblique):
    volume, _ = oblique
    sure = predict(threshold(sharpness=50.0), {"image": volume}).confidence
    unsure = predict(threshold(sharpness=0.5), {"image": volume}).confidence
    assert unsure < 0.8 < sure <= 1


def test_confidence_by_hand():
    p = np.array([[0.2, 0.6, 0.9, 0.9], [0.8, 0.3, 0.1, 0.0], [0.0, 0.1, 0.0, 0.1]]).reshape(3, 1, 1, 4)
    found = class_confidence(p, ("a", "b"))
    assert found["a"] == pytest.approx(2 * 0.8 / (1.2 + 1))
    assert found["b"] == 0.0
    assert class_confidence(p, ("a", "b"), may_be_absent=("b",))["b"] == pytest.approx(0.9)


def test_nothing_found_is_no_confidence_unless_it_may_be_absent(threshold):
    dark = {"image": Volume(np.full((2, 16, 16), -1.0, dtype=np.float32), np.eye(4))}
    assert predict(threshold(), dark).confidence == 0
    assert predict(threshold(may_be_absent=("bright",)), dark).confidence > 0.99
