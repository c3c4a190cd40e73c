import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.run import Run
from fewmask.core.volume import IGNORE
from fewmask.data.softmasks import soft_targets
from fewmask.networks import stylegan3
from fewmask.networks.pixelhead import PixelHead, resize
from fewmask.objectives.segmentation import cross_entropy
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
    chances,
    disagreement,
    fit_head,
    inverse_root_frequency,
    member_probabilities,
    predict_head,
    read_images,
    without_class_weights,
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


def test_an_interrupted_fit_goes_on_from_its_last_quarter(generator, stack, fabric, tmp_path):
    shots, looks = _shots(generator), []

    def watch(head):
        looks.append(1)
        if len(looks) == 5:
            raise KeyboardInterrupt
        return {}

    more = {"images": 32, "watch": watch, "watch_every": 4}
    with pytest.raises(KeyboardInterrupt):
        _fit(stack, shots, tmp_path / "a", fabric, **more)
    resumed = _fit(stack, shots, tmp_path / "a", fabric, **more)
    assert len(looks) == 5 + 4, "20 images seen, 16 of them kept"
    whole = _fit(stack, shots, tmp_path / "b", fabric, images=32)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name])


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


def test_class_weights_are_undone():
    true = torch.tensor([0.7, 0.2, 0.1]).view(1, 3, 1, 1)
    weights = (0.2, 1.0, 3.0)
    logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def loss():
        optimizer.zero_grad()
        value = cross_entropy(logits.log_softmax(dim=1), true, torch.tensor(weights))
        value.backward()
        return value

    optimizer.step(loss)
    learned = logits.detach().softmax(dim=1)
    assert learned[0, 2] > 0.4
    assert torch.allclose(without_class_weights(learned, weights), true, atol=1e-3)
    assert without_class_weights(learned, ()) is learned


def test_soft_masks_weigh_by_their_shares():
    masks = np.zeros((1, 10, 10), np.uint8)
    masks[0, 0, :4] = 1
    masks[0, 9] = IGNORE
    assert inverse_root_frequency(soft_targets(masks, 2), 2) == pytest.approx(
        inverse_root_frequency(masks, 2)
    )


@pytest.fixture(scope="module")
def aliasfree():
    torch.manual_seed(0)
    network = stylegan3.Generator(8, 8, 64, 1, channel_base=256, channel_max=8, mapping_layers=2)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["S", "M", "L", "mlp"])
@pytest.mark.parametrize("network", ["generator", "aliasfree"])
def test_labels_of_generated_images_equal_the_concatenating_computation(network, kind, request):
    network = request.getfixturevalue(network)
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ws = network.mapping(z)
        image = network.synthesis(ws, noise="constant")
    size = (network.resolution, network.resolution)
    source = FeatureStack([GeneratorFeatures(network)])
    maps = source.maps(image, ws)
    assert len({one.shape[2:] for one in maps}) > 1
    statistics = channel_statistics(source, image, ws)
    head = PixelHead([one.shape[1] for one in maps], 3, kind=kind, width=16, members=2)
    head.initialise(*chances(0, "test", 2))
    head.standardise(statistics.mean, statistics.deviation)
    big = torch.cat([resize(one, size) for one in maps], dim=1)
    big = (big - head.first.mean[:, None, None]) / head.first.deviation[:, None, None]
    with torch.no_grad():
        found = head(maps, size)
        for number in range(2):
            one = head.member(number)
            dense = torch.nn.functional.conv2d(big, one.first.weight[:, :, None, None], one.first.bias)
            expected = one.rest(dense)
            assert (found[number] - expected).abs().max() < 1e-5 * expected.std()


def test_members_learn_as_they_would_alone(generator, stack, fabric, tmp_path, monkeypatch):
    """With the same first weights and batches; whether all members fit at once or go in turns."""
    shots = _shots(generator)
    together = _fit(stack, shots, tmp_path / "all", fabric, images=48, members=3)
    monkeypatch.setattr("fewmask.objectives.pixelhead.FLOATS_AT_ONCE", 1)
    turns = _fit(stack, shots, tmp_path / "turns", fabric, images=48, members=3)
    first = _fit(stack, shots, tmp_path / "first", fabric, images=48)
    monkeypatch.setattr(
        "fewmask.synthesis.pixelhead.chances", lambda seed, label, members: chances(seed, label, 3)[2:]
    )
    third = _fit(stack, shots, tmp_path / "third", fabric, images=48)
    assert not torch.allclose(first.first.weight, third.first.weight, atol=1e-2)
    for number, alone in ((0, first), (2, third)):
        for joint in (together, turns):
            pairs = zip(joint.member(number).parameters(), alone.parameters(), strict=True)
            apart = torch.cat([(a - b).detach().abs().flatten() for a, b in pairs])
            # Adam makes a step of a tiny gradient's rounding: a few weights differ by one; with influence
            # between members all would
            assert apart.median() < 1e-5
            assert (apart > 1e-4).float().mean() < 0.05


def test_remembered_features_change_no_bit(generator, stack, fabric, tmp_path):
    shots, calls = _shots(generator), []

    class Counted:
        def maps(self, image, ws):
            calls.append(len(image))
            return ImageFeatures().maps(image, ws)

    stack = FeatureStack([*stack.sources, Counted()])
    found = []
    for name, room in (("none", 0), ("some", 100_000), ("all", 2**20)):
        before = len(calls)
        head = _fit(stack, shots, tmp_path / name, fabric, images=32, remember=room)
        found.append((len(calls) - before, head.state_dict()))
    assert found[0][0] > found[1][0] > found[2][0]
    assert found[2][0] <= 4 + 2, "each image once, and the looks before the training"
    for _, state in found[1:]:
        assert all(torch.equal(value, state[name]) for name, value in found[0][1].items())


def test_soft_masks_of_certain_pixels_are_hard_masks(generator, stack, fabric, tmp_path):
    shots = _shots(generator)
    soft = Shots(shots.images, soft_targets(shots.masks, 2), shots.ws)
    hard = _fit(stack, shots, tmp_path / "hard", fabric, images=16)
    other = _fit(stack, soft, tmp_path / "soft", fabric, images=16)
    for name, value in hard.state_dict().items():
        assert torch.allclose(value, other.state_dict()[name], atol=1e-6)
    empty = Shots(shots.images, soft.masks * np.array([1, 0], np.float16)[:, None, None], shots.ws)
    with pytest.raises(DataError, match="no labelled image shows any class"):
        _fit(stack, empty, tmp_path / "empty", fabric)


def test_watching_a_head_changes_nothing(generator, stack, fabric, tmp_path):
    shots, seen = _shots(generator), []

    def watch(head):
        torch.rand(3)
        said = predict_head([head], stack, shots.images, shots.ws)
        seen.append(float((said.argmax(axis=1) == shots.masks).mean()))
        return {"accuracy": seen[-1]}

    watched = _fit(stack, shots, tmp_path / "a", fabric, images=32, watch=watch, watch_every=8)
    plain = _fit(stack, shots, tmp_path / "b", fabric, images=32)
    assert len(seen) == 4
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name])


def test_disagreement_is_the_divergence_of_the_members():
    sure = torch.tensor([1.0, 0.0])
    torn = torch.tensor([0.5, 0.5])
    members = torch.stack(
        [torch.stack([sure, torn, sure, torn]), torch.stack([sure, torn, sure.flip(0), sure])]
    )  # (2 members, 4 pixels, 2 classes)
    found = disagreement(members.permute(0, 2, 1)[:, None, :, None, :])[0, 0]
    half = (-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) - 0.5 * np.log(2)) / np.log(2)
    assert found.tolist() == pytest.approx([0, 0, 1, half], abs=1e-6)


def test_an_ensemble_is_read_with_its_disagreement(generator, stack, fabric, tmp_path):
    shots = _shots(generator)
    head = _fit(stack, shots, tmp_path, fabric, images=16, members=3)
    judgement = read_images([head], stack, shots.images, shots.ws, batch_size=3)
    said = predict_head([head.member(number) for number in range(3)], stack, shots.images, shots.ws)
    assert np.allclose(judgement.probabilities, said, atol=1e-6)
    assert judgement.disagreement.shape == shots.masks.shape
    assert judgement.disagreement.min() >= 0
    assert judgement.uncertainty == pytest.approx(judgement.disagreement.mean(axis=(1, 2)))
    each = member_probabilities([head], stack, torch.from_numpy(shots.images), torch.from_numpy(shots.ws))
    assert np.allclose(disagreement(each).numpy(), judgement.disagreement, atol=1e-6)
    assert read_images([head.member(0)], stack, shots.images, shots.ws).disagreement.max() < 1e-6
