"""Adaptive augmentation: the reference's numbers, and the properties of the operations and of p."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.objectives.ada import ANATOMY, PUBLISHED, AdaptiveAugmentation, apply, draw, unchanged


def at_percentile(operation, q, count, like):
    """The reference's fixed draws: every operation at percentile q of its distribution."""
    normal = float(torch.erfinv(torch.tensor(2 * q - 1)))  # as published: without the factor sqrt(2)
    uniform = 2 * q - 1
    value = {
        "xflip": math.floor(2 * q),
        "rotate90": math.floor(4 * q),
        "xint": uniform * 0.125,
        "scale": normal * 0.2,
        "rotate": uniform * math.pi,
        "aniso": normal * 0.2,
        "xfrac": normal * 0.125,
        "brightness": normal * 0.2,
        "contrast": normal * 0.5,
        "lumaflip": math.floor(2 * q),
        "hue": uniform * math.pi,
        "saturation": normal,
    }
    names = PUBLISHED if operation == "bgc" else (operation,)
    record = unchanged(count, like)
    return replace(record, **{n: torch.full_like(getattr(record, n), float(value[n])) for n in names})


@pytest.mark.parametrize("name", ["ada_augment_1ch", "ada_augment_3ch"])
def test_operations_equal_the_reference(parity_folder, name):
    with np.load(parity_folder / f"{name}.npz", allow_pickle=False) as file:
        data = {key: file[key] for key in file.files}
    image = torch.from_numpy(data["in/img"])
    checked = []
    for key, theirs in data.items():
        _, *rest = key.split("/")
        if not key.startswith("out/") or rest[0] not in (*PUBLISHED, "bgc"):
            continue  # image filters and cut-out are not among the twelve
        ours = apply(image, at_percentile(rest[0], float(rest[1][1:]), len(image), image))
        error = np.abs(ours.numpy() - theirs).max() / theirs.std()
        checked.append((key, error))
    bad = [(key, error) for key, error in checked if error > 1e-4]
    assert checked
    assert not bad, bad


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels(channels):
    image = torch.rand(3, channels, 16, 16) * 2 - 1
    assert torch.equal(apply(image, unchanged(3, image)), image) or channels > 1
    torch.testing.assert_close(apply(image, unchanged(3, image)), image, atol=1e-5, rtol=1e-5)
    changed = apply(image, draw(3, 1.0, PUBLISHED, image))
    assert changed.shape == image.shape
    assert torch.isfinite(changed).all()


def test_a_whole_shift_moves_whole_pixels():
    image = torch.rand(1, 1, 16, 16)
    record = replace(unchanged(1, image), xint=torch.tensor([[0.125, 0.0]]))
    inside = apply(image, record)[..., 2:]
    torch.testing.assert_close(inside, image[..., :-2], atol=0.03, rtol=0)


def test_records_obey_the_list_and_the_probability():
    like = torch.zeros(())
    record = draw(4000, 0.25, ANATOMY, like)
    assert not record.xflip.any()
    assert not record.rotate90.any()
    assert not record.lumaflip.any()
    assert abs(float((record.scale != 0).float().mean()) - 0.25) < 0.04
    turned = (record.rotate != 0) | (record.rotate_after != 0)
    assert abs(float(turned.float().mean()) - 0.25) < 0.04


def test_gradients_reach_the_image():
    image = torch.rand(2, 1, 16, 16, requires_grad=True)
    record = draw(2, 1.0, ANATOMY, image.detach())
    (gradient,) = torch.autograd.grad(apply(image, record).sum(), image)
    assert gradient.abs().sum() > 0


def test_p_follows_the_sign_of_the_discriminator():
    ada = AdaptiveAugmentation(images=800, every=2)
    sure, unsure = torch.ones(8, 1), torch.tensor([[1.0], [-1.0]] * 4)
    for minibatch in range(4):
        ada.observe(sure, minibatch)
    assert ada.p == pytest.approx(2 * 16 / 800)
    for minibatch in range(4, 6):
        ada.observe(unsure, minibatch)
    assert ada.p == pytest.approx(16 / 800)
    ada.observe(sure, 6)
    again = AdaptiveAugmentation(images=800, every=2)
    again.load_state(ada.state())
    for each in (ada, again):
        each.observe(sure, 7)
    assert again.p == ada.p == pytest.approx(2 * 16 / 800)


def test_p_has_a_floor_and_a_ceiling():
    ada = AdaptiveAugmentation(images=10, every=1, p_max=0.5)
    ada.observe(torch.ones(8, 1), 0)
    assert ada.p == 0.5
    for minibatch in range(1, 4):
        ada.observe(-torch.ones(8, 1), minibatch)
    assert ada.p == 0.0


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match="unknown augmentation"):
        AdaptiveAugmentation(("rotate", "melt"))
    with pytest.raises(ConfigError, match="out of range"):
        AdaptiveAugmentation(p=0.9, p_max=0.5)
