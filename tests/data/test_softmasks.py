import numpy as np
import pytest
import torch

from fewmask.core.errors import DataError, ShapeError
from fewmask.core.volume import IGNORE
from fewmask.data.batches import ArraySource
from fewmask.data.softmasks import soft_targets
from fewmask.objectives.segmentation import targets_of

IMAGES = np.zeros((2, 1, 3, 4), np.float32)


@pytest.mark.parametrize("size", [(3, 4), (2, 3, 4)])
def test_soft_targets_are_what_the_loss_makes_of_integer_masks(size):
    masks = np.random.Generator(np.random.PCG64(0)).choice([0, 1, 2, IGNORE], (2, *size)).astype(np.uint8)
    soft = soft_targets(masks, 3)
    assert (soft.dtype, soft.shape) == (np.float16, (2, 3, *size))
    expected, judged = targets_of(torch.from_numpy(masks).long(), 3)
    found, weight = targets_of(torch.from_numpy(soft).float(), 3)
    assert torch.equal(found, expected)
    assert torch.equal(weight, judged)
    with pytest.raises(DataError, match=r"class numbers[\s\S]*found: 2"):
        soft_targets(masks, 2)


@pytest.mark.parametrize("wrong", [-0.1, 0.4, np.nan, np.inf])
def test_shares_out_of_range_are_refused(wrong):
    soft = np.full((2, 3, 3, 4), 1 / 3, np.float16)
    ArraySource(IMAGES, soft)
    soft[1, 2, 0, 0] = wrong
    with pytest.raises(DataError, match="mask 1: the shares of a soft mask"):
        ArraySource(IMAGES, soft)


@pytest.mark.parametrize(
    "masks",
    [
        np.zeros((2, 3, 3, 4), np.uint8),
        np.zeros((2, 3, 3, 4), np.float64),
        np.zeros((2, 3, 4), np.float32),
        np.zeros((1, 3, 3, 4), np.float32),
        np.zeros((2, 3, 4, 3), np.float32),
    ],
)
def test_soft_masks_that_do_not_fit_are_refused(masks):
    with pytest.raises(ShapeError, match=r"do not fit their images[\s\S]*classes, 3, 4\) float16 or float32"):
        ArraySource(IMAGES, masks)
