import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.volume import IGNORE
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.pixelhead import PixelHead
from fewmask.synthesis.autoshot import (
    LabelledSamples,
    collect,
    judged_labels,
    label_images,
    mix_with_real,
    most_certain,
    sample_labelled,
    weighed_labels,
)
from fewmask.synthesis.features import FeatureStack, GeneratorFeatures


@pytest.fixture(scope="module")
def stack(generator):
    return FeatureStack([GeneratorFeatures(generator)])


@pytest.fixture(scope="module")
def head(generator, stack):
    image, ws = torch.zeros(1, 1, 16, 16), torch.zeros(1, generator.num_ws, 8)
    head = PixelHead(stack.channels(image, ws), 3, width=8)
    head.initialise(torch.Generator().manual_seed(0))
    return head.eval()


def _sample(generator, head, stack, count=5, **more):
    return collect(sample_labelled(generator, [head], stack, count, seed=0, **more))


def test_samples_are_fixed_by_their_number(generator, head, stack):
    one = _sample(generator, head, stack, batch_size=2, mixing=0.5)
    other = _sample(generator, head, stack, batch_size=5, mixing=0.5)
    assert one.images.shape == (5, 1, 16, 16)
    assert one.probabilities.shape == (5, 3, 16, 16)
    assert np.allclose(one.images, other.images, atol=1e-5)
    assert np.allclose(one.probabilities, other.probabilities, atol=1e-2)
    assert np.abs(one.images).max() <= 1
    assert one.labels.dtype == np.uint8
    assert one.confidence.min() >= 1 / 3 - 1e-3


def test_real_images_are_labelled_in_the_same_way(generator, head, stack):
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    ws = generator.mapping(z)
    images = generator.synthesis(ws, noise="constant").numpy()
    found = label_images([head], stack, images, ws.numpy())
    assert np.array_equal(found.images, images)
    assert np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-2)


def test_others_vote_beside_the_heads(generator, head, stack):
    def sure_of_class_2(image, ws):
        assert ws is not None
        return torch.eye(3)[2].view(1, 3, 1, 1).expand(len(image), -1, 16, 16)

    alone = _sample(generator, head, stack).probabilities.astype(np.float32)
    voted = _sample(generator, head, stack, others=[sure_of_class_2]).probabilities
    alone[:, 2] += 1
    assert np.allclose(voted, alone / 2, atol=2e-3)


def test_truncation_takes_variety_away(generator, head, stack):
    spread = [_sample(generator, head, stack, truncation=t).images.std(axis=0).mean() for t in (1.0, 0.3)]
    assert spread[1] < spread[0]


def _certain_and_not():
    probabilities = np.full((3, 2, 4, 4), 0.5, np.float16)
    probabilities[1, 0], probabilities[1, 1] = 0.99, 0.01
    probabilities[2, 0], probabilities[2, 1] = 0.2, 0.8
    return LabelledSamples(np.arange(3 * 16, dtype=np.float32).reshape(3, 1, 4, 4), probabilities)


def test_the_most_uncertain_are_left_out():
    samples = _certain_and_not()
    assert samples.uncertainty()[0] == pytest.approx(1.0, abs=1e-3)
    kept = most_certain(samples, 0.67)
    assert np.array_equal(kept.images, samples.images[1:])
    with pytest.raises(ConfigError, match="share"):
        most_certain(samples, 0.0)


def test_unsure_pixels_are_not_judged():
    labels = judged_labels(_certain_and_not(), min_confidence=0.9)
    assert labels.dtype == np.uint8
    assert (labels[0] == IGNORE).all()
    assert (labels[1] == 0).all()
    assert (judged_labels(_certain_and_not())[2] == 1).all()


def test_real_images_get_their_share():
    samples = _certain_and_not()
    images, masks, weights = mix_with_real(
        samples, samples.labels, samples.images[:1], samples.labels[:1], real_share=0.25
    )
    assert len(images) == len(masks) == len(weights) == 4
    assert weights[3:].sum() == pytest.approx(0.25)
    assert weights.sum() == pytest.approx(1)
    with pytest.raises(ConfigError, match="real"):
        mix_with_real(samples, samples.labels, samples.images, samples.labels, real_share=2)


def test_soft_labels_count_as_much_as_the_head_is_sure():
    samples = _certain_and_not()
    weighed = weighed_labels(samples)
    assert weighed.dtype == np.float16
    entropy = -(0.2 * np.log2(0.2) + 0.8 * np.log2(0.8))
    assert np.allclose(weighed[0], 0, atol=1e-3)
    assert np.allclose(weighed[2, 1], 0.8 * (1 - entropy), atol=2e-3)
    assert np.allclose(weighed[2, 0] / weighed[2].sum(axis=0), 0.2, atol=2e-3)
    assert weighed_labels(samples, "none") is samples.probabilities
    assert np.allclose(
        1 - weighed.sum(axis=1, dtype=np.float32).mean(axis=(1, 2)), samples.uncertainty(), atol=2e-3
    )


def test_soft_labels_and_real_masks_become_one_source():
    samples = _certain_and_not()
    real = np.array([[0, 1, IGNORE, 0]] * 4, np.uint8)[None]
    images, masks, weights = mix_with_real(samples, weighed_labels(samples), samples.images[:1], real)
    batch = Stream(ArraySource(images, masks), 8, seed=0, name="auto", weights=weights).at(0)
    assert batch.mask.shape == (8, 2, 4, 4)
    shown = batch.mask[batch.index == 3]
    assert torch.equal(shown[0, :, 0], torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]]))
    with pytest.raises(DataError, match="class numbers"):
        mix_with_real(samples, samples.probabilities, samples.images[:1], real + 2)


def test_senseless_settings_are_refused(generator, head, stack):
    for wrong in ({"count": 0}, {"mixing": 2.0}):
        with pytest.raises(ConfigError, match="auto-shot"):
            _sample(generator, head, stack, **wrong)
