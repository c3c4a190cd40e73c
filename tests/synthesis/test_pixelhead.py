import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.run import Run
from fewmask.core.volume import IGNORE
from fewmask.synthesis.features import (
    DiscriminatorFeatures,
    FeatureStack,
    GeneratorFeatures,
    ImageFeatures,
    channel_statistics,
)
from fewmask.synthesis.pixelhead import (
    Shots,
    augmented_copies,
    fit_head,
    inverse_root_frequency,
    predict_head,
    read_head,
    write_head,
)
from fewmask.training.launch import launch


@pytest.fixture(scope="module")
def fabric():
    return launch(threads=1)


@pytest.fixture(scope="module")
def stack(generator, discriminator):
    return FeatureStack([GeneratorFeatures(generator), DiscriminatorFeatures(discriminator), ImageFeatures()])


def _shots(generator, count=4):
    """Generated images, labelled by their own grey values."""
    z = torch.randn(count, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ws = generator.mapping(z)
        image = generator.synthesis(ws, noise="constant").numpy()
    masks = (image[:, 0] > np.median(image)).astype(np.uint8)
    return Shots(image, masks, ws.numpy())


def _fit(stack, shots, folder, fabric, images=320, **more):
    ws = None if shots.ws is None else torch.from_numpy(shots.ws)
    statistics = channel_statistics(stack, torch.from_numpy(shots.images), ws)
    step = Run.open(folder).step("head")
    return fit_head(
        stack,
        shots,
        step,
        classes=2,
        statistics=statistics,
        images=images,
        seed=0,
        fabric=fabric,
        width=16,
        batch_size=4,
        **more,
    )


def test_a_head_learns_what_the_features_hold(generator, stack, fabric, tmp_path):
    shots = _shots(generator)
    head = _fit(stack, shots, tmp_path, fabric, dice_weight=0.0)
    said = predict_head([head], stack, shots.images, shots.ws, batch_size=3)
    assert said.shape == (4, 2, 16, 16)
    assert np.allclose(said.sum(axis=1), 1, atol=1e-5)
    assert (said.argmax(axis=1) == shots.masks).mean() > 0.9


def test_a_finished_fit_is_taken_up_with_the_same_weights(generator, stack, fabric, tmp_path):
    shots = _shots(generator)
    first = _fit(stack, shots, tmp_path, fabric, images=16)
    again = _fit(stack, shots, tmp_path, fabric, images=16)
    other = _fit(stack, shots, tmp_path / "other", fabric, images=16)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert torch.equal(weight, other.state_dict()[name])


def test_augmentation_on_the_fly_without_latents(generator, stack, fabric, tmp_path):
    shots = _shots(generator)
    images_only = FeatureStack([ImageFeatures()])
    calls = []

    def brighter(image, mask, chance):
        calls.append(float(torch.rand((), generator=chance)))
        return image + calls[-1], mask

    _fit(images_only, Shots(shots.images, shots.masks), tmp_path, fabric, images=16, augment=brighter)
    assert len(set(calls)) == 4
    with pytest.raises(ConfigError, match="as it was inverted"):
        _fit(stack, shots, tmp_path / "b", fabric, images=16, augment=brighter)


def test_heads_are_averaged(generator, stack, fabric, tmp_path):
    shots = _shots(generator)
    heads = [_fit(stack, shots, tmp_path / kind, fabric, images=16, kind=kind) for kind in ("S", "mlp")]
    both = predict_head(heads, stack, shots.images, shots.ws)
    each = [predict_head([head], stack, shots.images, shots.ws) for head in heads]
    assert np.allclose(both, (each[0] + each[1]) / 2, atol=1e-6)


def test_empty_masks_are_refused(generator, stack, fabric, tmp_path):
    shots = _shots(generator)
    empty = np.where(shots.masks > 0, IGNORE, 0).astype(np.uint8)
    with pytest.raises(DataError, match="no labelled image shows any class"):
        _fit(stack, Shots(shots.images, empty, shots.ws), tmp_path, fabric)


def test_wrong_class_weights_are_refused(generator, stack, fabric, tmp_path):
    with pytest.raises(ConfigError, match="one class weight per class"):
        _fit(stack, _shots(generator), tmp_path, fabric, class_weights=(1.0, 2.0, 3.0))


def test_a_head_survives_the_disk(generator, stack, fabric, tmp_path):
    shots = _shots(generator)
    head = _fit(stack, shots, tmp_path, fabric, images=16)
    path = write_head(tmp_path / "head.safetensors", head)
    assert np.array_equal(
        predict_head([head], stack, shots.images, shots.ws),
        predict_head([read_head(path)], stack, shots.images, shots.ws),
    )
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="not a pixel head"):
        read_head(path)


def test_augmented_copies_keep_the_original_and_do_not_depend_on_how_many():
    images = np.linspace(-1, 1, 2 * 16, dtype=np.float32).reshape(2, 1, 4, 4)
    masks = np.arange(32).reshape(2, 4, 4).astype(np.uint8)

    def shift(image, mask, chance):
        by = float(torch.rand((), generator=chance))
        return image + by, mask + 1

    few, few_masks = augmented_copies(images, masks, shift, copies=2, seed=0)
    many, _ = augmented_copies(images, masks, shift, copies=3, seed=0)
    assert few.shape == (4, 1, 4, 4)
    assert np.array_equal(few[0::2], images)
    assert np.array_equal(few[1::2], many[1::3])
    assert not np.allclose(many[1], many[2])
    assert np.array_equal(few_masks[1::2], masks + 1)
    with pytest.raises(ConfigError, match="copies"):
        augmented_copies(images, masks, shift, copies=0, seed=0)


def test_rare_classes_weigh_more():
    masks = np.zeros((1, 10, 10), np.uint8)
    masks[0, 0, :4] = 1
    masks[0, 9] = IGNORE
    weights = inverse_root_frequency(masks, 2)
    assert weights[1] / weights[0] == pytest.approx((86 / 4) ** 0.5)
    assert sum(weights) / 2 == pytest.approx(1)
