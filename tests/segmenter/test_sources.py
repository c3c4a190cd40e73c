import numpy as np
import pytest

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.seed import stream
from fewmask.core.volume import IGNORE
from fewmask.data.batches import ArraySource, Stream
from fewmask.data.softmasks import soft_targets
from fewmask.segmenter.sources import EncodedSource, told, with_unlabelled

IMAGES = np.linspace(-1, 1, 2 * 16, dtype=np.float32).reshape(2, 1, 4, 4)
MASKS = np.array([[[0, 2, 5, IGNORE]] * 4] * 2, np.uint8)
POOL = np.zeros((6, 1, 4, 4), np.float32)


def test_label_values_become_class_numbers_and_soft_masks_stay():
    (_, masks) = EncodedSource(ArraySource(IMAGES, MASKS), (0, 2, 5)).fetch([1], stream(0))
    assert masks[0, 0].tolist() == [0, 1, 2, IGNORE]
    soft = soft_targets(np.zeros_like(MASKS), 3)
    (_, masks) = EncodedSource(ArraySource(IMAGES, soft), (0, 2, 5)).fetch([1], stream(0))
    assert np.array_equal(masks, soft[1:])
    with pytest.raises(ShapeError, match="another number of classes"):
        EncodedSource(ArraySource(IMAGES, soft), (0, 2))


@pytest.mark.parametrize("soft", [False, True])
def test_unlabelled_images_are_unjudged_and_get_their_share(soft):
    masks = soft_targets(np.zeros_like(MASKS), 3) if soft else MASKS
    source, weights = with_unlabelled(IMAGES, masks, POOL, labelled_share=0.25)
    assert (len(source), sum(weights[:2])) == (8, pytest.approx(0.25))
    assert sum(weights) == pytest.approx(1)
    batch = Stream(source, 400, seed=0, name="x", weights=weights).at(0)
    assert (batch.index < 2).float().mean() == pytest.approx(0.25, abs=0.07)
    unlabelled = batch.mask[batch.index >= 2]
    assert (unlabelled == (0 if soft else IGNORE)).all()


def test_what_cannot_be_taught_is_refused():
    with pytest.raises(ConfigError, match="share of labelled"):
        with_unlabelled(IMAGES, MASKS, POOL, labelled_share=1.0)
    for images, pool in ((IMAGES[:0], POOL), (IMAGES, POOL[:0]), (IMAGES, POOL[..., :3])):
        with pytest.raises(ShapeError, match="labelled and unlabelled"):
            with_unlabelled(images, MASKS, pool)


def test_the_fingerprint_of_a_source_knows_soft_masks_and_scale():
    soft = soft_targets(np.zeros_like(MASKS), 3)
    sources = [
        ArraySource(IMAGES, MASKS),
        ArraySource(IMAGES, soft),
        ArraySource(IMAGES, soft * np.float16(0.5)),
    ]
    sources.append(ArraySource(IMAGES, soft, scale=(0.5, 0)))
    assert len({told(source) for source in sources}) == 4
    assert told(sources[1]) == told(ArraySource(IMAGES.copy(), soft.copy()))
