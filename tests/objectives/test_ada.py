"""Adaptive augmentation: the reference's numbers, and the properties of the operations and of p."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.objectives.ada import (
    ANATOMY,
    KNOWN,
    PUBLISHED,
    SEQUENCES,
    AdaptiveAugmentation,
    apply,
    draw,
    unchanged,
)


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
        "imgfilter": normal,
        "cutout": 0.5,
        "cutout_centre": q,
    }
    names = PUBLISHED if operation == "bgc" else (operation,)
    names = (*names, "cutout_centre") if operation == "cutout" else names
    record = unchanged(count, like)
    return replace(record, **{n: torch.full_like(getattr(record, n), float(value[n])) for n in names})


def test_parity_of_every_augmentation(parity_folder):
    files = sorted(parity_folder.glob("ada_augment*.npz"))
    assert files
    bad, seen = [], set()
    for path in files:
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
        image = torch.from_numpy(data["in/img"])
        for key, theirs in data.items():
            kind, *rest = key.split("/")
            if kind != "out":
                continue
            seen.add(rest[0])
            ours = apply(image, at_percentile(rest[0], float(rest[1][1:]), len(image), image))
            error = np.abs(ours.numpy() - theirs).max() / theirs.std()
            if not error <= 1e-4:
                bad.append((path.name, key, error))
    assert not bad, bad
    assert {*KNOWN, "bgc"} <= seen


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels(channels):
    image = torch.rand(3, channels, 16, 16) * 2 - 1
    assert torch.equal(apply(image, unchanged(3, image)), image) or channels > 1
    torch.testing.assert_close(apply(image, unchanged(3, image)), image, atol=1e-5, rtol=1e-5)
    changed = apply(image, draw(3, 1.0, (*PUBLISHED, "cutout"), image))
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


def test_what_happens_to_an_image_does_not_depend_on_the_others():
    torch.manual_seed(0)
    image = torch.rand(8, 2, 24, 24) * 2 - 1
    record = draw(8, 0.3, KNOWN, image)
    whole = apply(image, record)
    for share in range(4):
        rows = slice(share, None, 4)
        torch.testing.assert_close(apply(image[rows], record.rows(rows)), whole[rows], rtol=0, atol=3e-6)


def test_the_map_is_twice_differentiable():
    torch.manual_seed(0)
    record = draw(2, 1.0, KNOWN, torch.zeros((), dtype=torch.float64))
    image = torch.rand(2, 1, 24, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda x: apply(x, record).square().sum(dim=(2, 3)), image, fast_mode=True, atol=1e-4
    )


def test_sequences_are_not_mixed():
    image = torch.rand(4, 3, 16, 16)
    image[:, 1] = 0
    changed = apply(image, draw(4, 1.0, [n for n in SEQUENCES if n not in ("brightness", "xint")], image))
    assert changed[:, 1].abs().max() < 1e-5


def test_a_cutout_is_grey_and_a_quarter_of_the_image():
    record = replace(
        unchanged(1, torch.zeros(())), cutout=torch.tensor([0.5]), cutout_centre=torch.tensor([[0.5, 0.25]])
    )
    cut = apply(torch.ones(1, 1, 16, 16), record)[0, 0] == 0
    assert cut.sum() == 64
    assert cut[:8, 4:12].all()


def test_small_images_have_no_frequency_bands():
    image = torch.rand(2, 1, 16, 16)
    with pytest.raises(ConfigError, match="imgfilter"):
        apply(image, draw(2, 1.0, ("imgfilter",), image))


def test_p_follows_the_sign_of_the_discriminator():
    ada = AdaptiveAugmentation(images=800, every=2)
    for minibatch in range(4):
        ada.observe(1.0, 8, minibatch)
    assert ada.p == pytest.approx(2 * 16 / 800)
    for minibatch in range(4, 6):
        ada.observe(0.0, 8, minibatch)
    assert ada.p == pytest.approx(16 / 800)
    ada.observe(1.0, 8, 6)
    again = AdaptiveAugmentation(images=800, every=2)
    again.load_state(ada.state())
    for each in (ada, again):
        each.observe(1.0, 8, 7)
    assert again.p == ada.p == pytest.approx(2 * 16 / 800)


def test_p_has_a_floor_and_a_ceiling():
    ada = AdaptiveAugmentation(images=10, every=1, p_max=0.5)
    assert ada.draw(4, torch.zeros(())) is None
    ada.observe(1.0, 8, 0)
    assert ada.p == 0.5
    assert ada.draw(4, torch.zeros(())) is not None
    for minibatch in range(1, 4):
        ada.observe(-1.0, 8, minibatch)
    assert ada.p == 0.0


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match="unknown augmentation"):
        AdaptiveAugmentation(("rotate", "melt"))
    with pytest.raises(ConfigError, match="out of range"):
        AdaptiveAugmentation(p=0.9, p_max=0.5)
