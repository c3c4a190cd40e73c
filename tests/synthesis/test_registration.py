"""Masks travel with registered slices: to the right pixel at every size, and the same way twice."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.synthesis.registration import (
    Demons,
    agreed,
    carried_shares,
    carried_slices,
    carry,
    register,
    voted,
    warped,
)

H, W = 32, 48


def disks(height=H, width=W, *, shift=(0.0, 0.0), scale=1.0, bend=0.0):
    """A body with two organs, seen at p -> (p - shift) / scale: slice (1, h, w) and soft mask (3, h, w).

    All lengths are shares of the slice's width, y downwards; `bend` moves rows sideways by a sine.
    """
    y, x = (np.mgrid[:height, :width] + 0.5) / width
    x = x - 0.5 - shift[0] - bend * np.sin(2 * np.pi * y * width / height)
    x, y = x / scale, (y - height / width / 2 - shift[1]) / scale

    def inside(across, down, wide, high):
        return 1 - np.hypot((x - across) / wide, (y - down) / high)

    body, left, right = (
        inside(0, 0, 0.4, 0.27),
        inside(-0.17, 0.02, 0.13, 0.17),
        inside(0.18, -0.03, 0.1, 0.1),
    )
    image = -1 + 0.8 * soft(body) + 0.5 * soft(left) + 0.9 * soft(right)
    numbers = np.where(left > 0, 1, np.where(right > 0, 2, 0))
    return image[None].astype(np.float32), np.eye(3, dtype=np.float32)[numbers].transpose(2, 0, 1)


def soft(distance):
    return 1 / (1 + np.exp(-25 * distance))


def dice(found, truth) -> float:
    """Soft, the worse of the two organs."""
    return min(
        float(2 * np.minimum(a, b).sum() / (a + b).sum()) for a, b in zip(found[1:], truth[1:], strict=True)
    )


def shifted(dx: float, dy: float, height: int, width: int, count=1):
    """Displacements that look dx of the width to the right, and dy of the height further down."""
    field = np.empty((count, 2, height, width), np.float32)
    field[:, 0], field[:, 1] = 2 * dx, 2 * dy
    return field


def test_a_slice_lies_in_itself_where_it_is():
    image, mask = disks()
    field = register(image, image)
    assert field.shape == (2, H, W)
    assert field.dtype == np.float32
    assert np.abs(field * np.array([W, H])[:, None, None] / 2).max() < 0.02  # pixels
    np.testing.assert_allclose(carried_shares(mask[None], field[None])[0], mask, atol=0.03)


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ({"shift": (0.08, -0.05)}, 0.45),
        ({"scale": 0.75}, 0.7),
        ({"bend": 0.07}, 0.8),
        ({"shift": (-0.05, 0.04), "scale": 1.15, "bend": 0.04}, 0.65),
    ],
)
@pytest.mark.parametrize("tall", [False, True])
def test_what_was_moved_is_found(change, before, tall):
    image, mask, other, truth = (one.swapaxes(1, 2) if tall else one for one in (*disks(), *disks(**change)))
    assert dice(mask, truth) < before
    field = register(other, image, Demons(side=48))
    assert dice(carried_shares(mask[None], field[None])[0], truth) > 0.9
    apart = [np.abs(one - other).mean() for one in (image, carried_slices(image[None], field[None])[0])]
    assert apart[1] < 0.35 * apart[0]


def test_a_translation_is_found_to_the_pixel():
    (image, _), (other, truth) = disks(), disks(shift=(5 / W, -3 / W))
    organ = truth[1:].sum(axis=0) > 0
    found = register(other, image) * np.array([W, H])[:, None, None] / 2
    np.testing.assert_allclose(found[:, organ].mean(axis=1), [-5, 3], atol=0.2)  # there, it lies back here


@pytest.mark.parametrize(("height", "width"), [(96, 64), (50, 75)])
def test_a_large_slice_is_registered_small_and_its_mask_carried_whole(height, width):
    change = {"shift": (0.07, 0.04), "scale": 0.9}
    (image, mask), (other, truth) = disks(height, width), disks(height, width, **change)
    field = register(other, image, Demons(side=40))
    assert max(field.shape[1:]) == 40
    assert field.shape[1] / field.shape[2] == pytest.approx(height / width, rel=0.03)
    carried = carried_shares(mask[None], field[None])[0]
    assert carried.shape == truth.shape
    assert dice(mask, truth) < 0.7
    assert dice(carried, truth) > 0.9


def test_exposure_does_not_matter():
    (image, mask), (other, truth) = disks(), disks(shift=(0.06, 0.03), scale=0.9)
    burnt = np.clip(2 * other + 1.2, -1, 1)  # most of the body is white
    assert (burnt == 1).mean() > 0.1
    assert dice(mask, truth) < 0.7
    assert dice(carried_shares(mask[None], register(burnt, image)[None])[0], truth) > 0.85


def test_channels_are_averaged():
    (image, _), (other, _) = disks(), disks(scale=0.9)
    two = np.concatenate([image - 0.3, image + 0.3])
    np.testing.assert_allclose(register(other, two), register(other, image), atol=0.02)  # greys are rounded


@pytest.mark.parametrize(("rows", "columns"), [(6, 10), (3, 5), (12, 20), (1, 1)])
def test_a_displacement_is_a_share_of_the_slice_whatever_its_own_size(rows, columns):
    image = np.arange(60, dtype=np.float32).reshape(1, 1, 6, 10)
    moved = carry(image, shifted(2 / 10, -1 / 6, rows, columns), outside=[-7])
    expected = np.full((6, 10), -7.0)
    expected[1:, :8] = image[0, 0, :5, 2:]
    np.testing.assert_allclose(moved[0, 0], expected, atol=1e-4)
    still = carry(image, shifted(0, 0, rows, columns), outside=[-7])
    np.testing.assert_allclose(still, image, atol=1e-4)


def test_a_displacement_field_is_read_pixel_by_pixel():
    chance = np.random.default_rng(0)
    height, width = 7, 11
    image = chance.normal(size=(1, 1, height, width)).astype(np.float32)
    rows, columns = chance.integers(0, height, (height, width)), chance.integers(0, width, (height, width))
    y, x = np.mgrid[:height, :width]
    field = np.stack([(columns - x) * 2 / width, (rows - y) * 2 / height])[None]
    np.testing.assert_allclose(carry(image, field, outside=[0])[0, 0], image[0, 0][rows, columns], atol=1e-5)


def test_many_slices_are_carried_as_one_by_one():
    chance = np.random.default_rng(1)
    images = chance.normal(size=(37, 2, 8, 8)).astype(np.float16)
    fields = chance.normal(size=(37, 2, 4, 4)).astype(np.float32) * 0.2
    together = carry(images, fields, outside=[0, 1])
    for number in (0, 15, 16, 36):
        np.testing.assert_array_equal(
            together[number],
            carry(images[number : number + 1], fields[number : number + 1], outside=[0, 1])[0],
        )
    assert together.dtype == np.float32


def test_black_and_background_come_in_from_beyond_the_border():
    shares = np.zeros((1, 3, 8, 8), np.float32)
    shares[:, 1] = 1
    away = shifted(0.5, 0, 8, 8)
    carried = carried_shares(shares, away)
    np.testing.assert_allclose(carried[0, :, :, 4:], np.eye(3)[0][:, None, None].repeat(8, 1).repeat(4, 2))
    np.testing.assert_allclose(carried[0, 1, :, :4], 1)
    images = carried_slices(np.full((1, 2, 8, 8), 0.5, np.float32), away)
    np.testing.assert_allclose(images[..., 4:], -1)
    np.testing.assert_allclose(images[..., :4], 0.5)


def test_carried_shares_add_up_to_one_where_somebody_judged():
    chance = np.random.default_rng(2)
    numbers = chance.integers(0, 4, (20, 12, 16))
    shares = np.eye(4, dtype=np.float16)[numbers].transpose(0, 3, 1, 2)
    fields = chance.normal(size=(20, 2, 6, 8)).astype(np.float32) * 0.3
    carried = carried_shares(shares, fields)
    np.testing.assert_allclose(carried.sum(axis=1), 1, atol=1e-5)
    assert 0 <= carried.min() <= carried.max() <= 1


def test_unjudged_travels_and_stays_unjudged():
    shares = np.zeros((1, 2, 8, 8), np.float32)
    shares[0, 1] = 1
    shares[0, :, 2:5, 3:6] = 0
    carried = carried_shares(shares, shifted(2 / 8, 1 / 8, 8, 8))
    mass = carried[0].sum(axis=0)
    expected = np.ones((8, 8))
    expected[1:4, 1:4] = 0
    np.testing.assert_allclose(mass, expected, atol=1e-5)
    only = carried_shares(np.zeros((1, 2, 8, 8), np.float32), shifted(0, 0, 8, 8))
    np.testing.assert_array_equal(only, 0)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_vote_is_the_mean_of_what_the_masks_say(kind):
    chance = np.random.default_rng(3)
    shares = np.eye(3, dtype=kind)[chance.integers(0, 3, (4, 8, 8))].transpose(0, 3, 1, 2)
    shares[1, :, :4] = 0  # nobody judged
    fields = [chance.normal(size=(5, 2, 4, 4)).astype(np.float32) * 0.2 for _ in range(4)]
    votes = voted(shares, fields)
    assert (votes.shape, votes.dtype) == ((5, 3, 8, 8), np.float32)
    for target in range(5):
        each = [carried_shares(shares[n][None], fields[n][target][None])[0] for n in range(4)]
        np.testing.assert_allclose(votes[target], np.mean(each, axis=0), atol=1e-6)
    assert votes.sum(axis=1).min() == pytest.approx(0.75, abs=1e-5)
    assert votes.sum(axis=1).max() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("slices", [1, 2, 5])
def test_labelled_slices_take_turns_to_be_warped(slices):
    """A slice of the value n tells which one it was; more slices than targets do no harm."""
    images = np.full((slices, 1, 4, 4), 0.1, np.float32) * np.arange(slices)[:, None, None, None]
    shares = np.zeros((slices, 2, 4, 4), np.float16)
    shares[:, 1] = np.arange(slices)[:, None, None] / 8
    shares[:, 0] = 1 - shares[:, 1]
    fields = [shifted(0, 0, 4, 4, count=3) for _ in range(slices)]
    fields[-1][:, 0] += 2 * (slices - 1)  # the last one is not to be seen
    bent, masks = warped(images, shares, fields)
    who = np.arange(3) % slices
    seen = who != slices - 1 if slices > 1 else who == 0
    np.testing.assert_allclose(bent[:, 0, 0, 0], np.where(seen, who / 10, -1), atol=1e-6)
    np.testing.assert_allclose(masks[:, 1, 0, 0], np.where(seen, who / 8, 0), atol=1e-6)
    np.testing.assert_allclose(masks.sum(axis=1), 1, atol=1e-6)


def test_two_agree_by_how_much_they_judge():
    one = np.array([0.7, 0.3]).reshape(1, 2, 1, 1) * np.array([1, 0.5, 0])
    other = np.broadcast_to(np.array([0.1, 0.9]).reshape(1, 2, 1, 1), (1, 2, 1, 3))
    both = agreed(one, other)
    assert both.dtype == np.float32
    np.testing.assert_allclose(both[0, 0, 0], [0.4, (0.35 + 0.1) / 1.5, 0.1], rtol=1e-6)
    np.testing.assert_allclose(both.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(agreed(one * 0, one * 0), 0)


def test_the_same_slices_give_the_same_bits_on_any_number_of_threads():
    (image, _), (other, _) = disks(64, 48), disks(64, 48, shift=(0.05, 0.02), scale=1.1, bend=0.02)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 3, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append(register(other, image))
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    assert np.abs(found[0]).max() > 0.05


def test_a_slice_without_contrast_is_no_error_and_no_noise(capfd):
    (image, mask), empty = disks(), np.full((1, H, W), -1, np.float32)
    for fixed, moving in ((empty, image), (image, empty), (empty, empty)):
        field = register(fixed, moving)
        assert np.isfinite(field).all()
        np.testing.assert_allclose(carried_shares(mask[None], field[None]).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(register(empty, empty), 0)
    assert capfd.readouterr() == ("", "")
    assert sitk.ProcessObject.GetGlobalWarningDisplay()


def test_an_affine_map_that_mirrors_is_left_out():
    """Two far dots, each in its corner: the best map by correlation alone folds the slice over."""
    y, x = np.mgrid[:32, :32] + 0.5
    first, second = (np.tanh(3 * (1 - np.hypot(x - at, y - at) ** 2 / 4))[None] for at in (4, 28))
    field = register(first, second, Demons(steps=0))
    np.testing.assert_allclose(field, 0, atol=1e-6)


def test_what_cannot_be_registered_is_told():
    image, _ = disks()
    for fixed, moving in ((image, image[:, :-1]), (image[0], image[0]), (image[0], image)):
        with pytest.raises(ShapeError, match="two sizes"):
            register(fixed, moving)
    for wrong in ({"side": 15}, {"smoothness": 0}, {"steps": -1}):
        with pytest.raises(ConfigError, match="side of 16 pixels"):
            Demons(**wrong)
    with pytest.raises(ValueError, match="shorter"):
        voted(np.zeros((2, 2, 4, 4), np.float32), [shifted(0, 0, 4, 4)])
