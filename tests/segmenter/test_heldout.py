import numpy as np
import pytest

from fewmask.core.volume import IGNORE
from fewmask.segmenter.heldout import mean_iou, pooled_dice
from fewmask.segmenter.sources import Labelled


def test_pooled_dice_leaves_unjudged_voxels_out(threshold):
    image = np.array([[1.0, -1.0], [1.0, -1.0]], dtype=np.float32)[None]
    mask = np.array([[1, 1], [IGNORE, 0]], dtype=np.uint8)
    segmenter = threshold(patch=(2, 2))
    assert pooled_dice(segmenter.network, Labelled([image], [mask]), segmenter.design) == pytest.approx(2 / 3)
    empty = Labelled([-np.abs(image)], [np.zeros_like(mask)])
    assert pooled_dice(segmenter.network, empty, segmenter.design) == 1


def test_every_image_weighs_the_same_in_the_mean_iou(threshold):
    image = np.array([[1.0, -1.0], [1.0, -1.0]], dtype=np.float32)[None]
    half = np.array([[1, 1], [IGNORE, 0]], dtype=np.uint8)  # of two judged positive voxels one is found
    empty = np.zeros_like(half)
    segmenter = threshold(patch=(2, 2))
    data = Labelled([image, -np.abs(image), image, image], [half, empty, empty, empty + np.uint8(IGNORE)])
    assert mean_iou(segmenter.network, data, segmenter.design) == pytest.approx((1 / 2 + 1 + 0) / 3)
