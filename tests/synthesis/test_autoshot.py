import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.volume import IGNORE
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.pixelhead import PixelHead
from fewmask.synthesis import autoshot
from fewmask.synthesis.autoshot import (
    LabelledSamples,
    collect,
    mix_with_real,
    most_certain,
    sample_labelled,
    weighed_labels,
)
from fewmask.synthesis.features import FeatureStack, GeneratorFeatures
from fewmask.synthesis.pixelhead import draw_and_read, member_probabilities


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
    one = _sample(generator, head, stack, batch_size=2)
    other = _sample(generator, head, stack, batch_size=5)
    assert one.images.shape == (5, 1, 16, 16)
    assert one.probabilities.shape == (5, 3, 16, 16)
    assert np.allclose(one.images, other.images, atol=1e-5)
    assert np.allclose(one.probabilities, other.probabilities, atol=1e-2)
    assert np.abs(one.images).max() <= 1
    assert one.labels.dtype == np.uint8
    assert np.allclose(one.uncertain, other.uncertain, atol=1e-3)


@pytest.fixture(scope="module")
def ensemble(generator, stack):
    image, ws = torch.zeros(1, 1, 16, 16), torch.zeros(1, generator.num_ws, 8)
    head = PixelHead(stack.channels(image, ws), 3, width=8, members=2)
    head.initialise(*(torch.Generator().manual_seed(number) for number in range(2)))
    return head.eval()


@pytest.mark.parametrize("class_weights", [(), (0.2, 1.0, 3.0)])
def test_an_ensemble_votes_and_disagrees(generator, ensemble, stack, class_weights, monkeypatch):
    seen = []

    def spied(heads, stack, generator, ws):
        image, each = draw_and_read(heads, stack, generator, ws)
        seen.append((image, ws))
        return image, each

    monkeypatch.setattr(autoshot, "draw_and_read", spied)
    found = _sample(generator, ensemble, stack, 4, class_weights=class_weights, batch_size=4)
    each = member_probabilities([ensemble], stack, *seen[0])
    each = each / torch.tensor(class_weights or (1.0, 1.0, 1.0)).view(3, 1, 1)
    each = list(each / each.sum(dim=2, keepdim=True))
    mean = sum(each) / len(each)

    def h(p):
        return -(p * p.log()).sum(dim=1) / np.log(3)

    expected = (h(mean) - sum(map(h, each)) / len(each)).mean(dim=(1, 2))
    assert np.allclose(found.probabilities, mean, atol=1e-3)
    assert expected.min() > 1e-3
    assert found.uncertain == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_single_head_is_as_unsure_as_its_entropy(generator, head, stack):
    found = _sample(generator, head, stack)
    p = found.probabilities.astype(np.float32)
    assert found.uncertain == pytest.approx(
        -(p * np.log(p)).sum(axis=1).mean(axis=(1, 2)) / np.log(3), abs=1e-3
    )


def test_truncation_takes_variety_away(generator, head, stack):
    spread = [_sample(generator, head, stack, truncation=t).images.std(axis=0).mean() for t in (1.0, 0.3)]
    assert spread[1] < spread[0]


def _certain_and_not():
    probabilities = np.full((3, 2, 4, 4), 0.5, np.float16)
    probabilities[1, 0], probabilities[1, 1] = 0.99, 0.01
    probabilities[2, 0], probabilities[2, 1] = 0.2, 0.8
    images = np.arange(3 * 16, dtype=np.float32).reshape(3, 1, 4, 4)
    return LabelledSamples(images, probabilities, np.array([0.9, 0.1, 0.2], np.float32))


def test_the_most_uncertain_are_left_out():
    samples = _certain_and_not()
    kept = most_certain(samples, 0.67)
    assert np.array_equal(kept.images, samples.images[1:])
    assert np.array_equal(kept.uncertain, samples.uncertain[1:])
    with pytest.raises(ConfigError, match="share"):
        most_certain(samples, 0.0)


def test_real_images_get_their_share():
    samples = _certain_and_not()
    images, masks, weights = mix_with_real(
        samples.images, samples.labels, samples.images[:1], samples.labels[:1], real_share=0.25
    )
    assert len(images) == len(masks) == len(weights) == 4
    assert weights[3:].sum() == pytest.approx(0.25)
    assert weights.sum() == pytest.approx(1)
    with pytest.raises(ConfigError, match="real"):
        mix_with_real(samples.images, samples.labels, samples.images, samples.labels, real_share=2)


def test_soft_labels_count_as_much_as_the_head_is_sure():
    samples = _certain_and_not()
    weighed = weighed_labels(samples)
    assert weighed.dtype == np.float16
    entropy = -(0.2 * np.log2(0.2) + 0.8 * np.log2(0.8))
    assert np.allclose(weighed[0], 0, atol=1e-3)
    assert np.allclose(weighed[2, 1], 0.8 * (1 - entropy), atol=2e-3)
    assert np.allclose(weighed[2, 0] / weighed[2].sum(axis=0), 0.2, atol=2e-3)
    assert weighed_labels(samples, "none") is samples.probabilities


def test_soft_labels_and_real_masks_become_one_source():
    samples = _certain_and_not()
    real = np.array([[0, 1, IGNORE, 0]] * 4, np.uint8)[None]
    images, masks, weights = mix_with_real(samples.images, weighed_labels(samples), samples.images[:1], real)
    batch = Stream(ArraySource(images, masks), 8, seed=0, name="auto", weights=weights).at(0)
    assert batch.mask.shape == (8, 2, 4, 4)
    shown = batch.mask[batch.index == 3]
    assert torch.equal(shown[0, :, 0], torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]]))
    with pytest.raises(DataError, match="class numbers"):
        mix_with_real(samples.images, samples.probabilities, samples.images[:1], real + 2)


def test_senseless_settings_are_refused(generator, head, stack):
    with pytest.raises(ConfigError, match="auto-shot"):
        _sample(generator, head, stack, count=0)
    for wrong in ((1.0, 2.0), (1.0, 0.0, 2.0)):
        with pytest.raises(ConfigError, match="class weight"):
            _sample(generator, head, stack, class_weights=wrong)
