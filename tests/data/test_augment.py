import numpy as np
import pytest
import torch

from fewmask.core.volume import IGNORE
from fewmask.data.augment import StrongAugment
from fewmask.data.augment_intensity import IntensityRanges, apply_tone, draw_tone
from fewmask.data.augment_spatial import (
    SpatialRanges,
    apply_warp,
    draw_warp,
    sampling_grid,
    smooth_field,
    spline_basis,
)
from fewmask.data.softmasks import soft_targets
from fewmask.objectives.segmentation import cross_entropy, soft_dice_loss, targets_of

STILL = SpatialRanges(rotate_deg=0, scale=1, stretch=1, shear=0, shift=0, elastic=0)
OFF = (1.0, 0.0)
NONE = (0.0, 0.0)
PLAIN = IntensityRanges(
    gamma=OFF,
    contrast=OFF,
    brightness=NONE,
    bias=NONE,
    noise=NONE,
    blur=NONE,
    low_resolution=OFF,
    erase=NONE,
)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(count=4, size=(32, 40)):
    mask = torch.zeros(count, *size, dtype=torch.long)
    mask[(..., *[slice(n // 4, n // 2) for n in size])] = 1
    mask[(..., *[slice(n // 2, 3 * n // 4) for n in size])] = 2
    return mask.unsqueeze(1).float() - 1, mask


@pytest.mark.parametrize("size", [(32, 40), (12, 16, 20)])
def test_same_generator_same_result_and_nothing_changes_in_place(size):
    image, mask = blobs(size=size)
    image_before, mask_before = image.clone(), mask.clone()
    first, second = (StrongAugment()(image, mask, chance(3)) for _ in range(2))
    other = StrongAugment()(image, mask, chance(4))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(image, image_before)
    assert torch.equal(mask, mask_before)
    assert first[0].shape == image.shape
    assert first[1].dtype == torch.long
    assert -1 <= first[0].min() <= first[0].max() <= 1


@pytest.mark.parametrize("size", [(32, 40), (12, 16, 20)])
def test_neutral_settings_change_nothing(size):
    image, mask = blobs(size=size)
    new_image, new_mask = StrongAugment(STILL, PLAIN)(image, mask, chance())
    assert torch.allclose(new_image, image, atol=1e-4)
    assert torch.equal(new_mask, mask)


@pytest.mark.parametrize("size", [(48, 64), (20, 24, 24)])
def test_image_and_mask_move_together(size):
    image, mask = blobs(size=size)
    spatial = SpatialRanges(shift=0.05, scale=1.1, elastic_cells=3)
    new_image, new_mask = apply_warp(image, mask, draw_warp(4, len(size), spatial, chance(1)))
    moved = (new_mask != mask) & (new_mask != IGNORE)
    assert moved.float().mean() > 0.02
    judged = new_mask != IGNORE
    agree = (new_image[:, 0] + 1).round()[judged] == new_mask[judged]
    assert agree.float().mean() > 0.9


def test_beyond_the_border_is_black_and_unjudged_or_what_is_asked():
    image, mask = torch.ones(1, 1, 16, 16), torch.ones(1, 16, 16, dtype=torch.long)
    warp = draw_warp(1, 2, SpatialRanges(shift=0.45, probability=1.0, elastic=0), chance(2))
    new_image, new_mask = apply_warp(image, mask, warp)
    assert set(new_mask.unique().tolist()) == {1, IGNORE}
    assert new_image[0, 0][new_mask[0] == IGNORE].max() <= 0.0
    assert set(apply_warp(image, mask, warp, outside=0)[1].unique().tolist()) == {0, 1}


def test_soft_masks_stay_shares_and_fade_out_at_the_border():
    image, mask = blobs()
    soft = torch.nn.functional.one_hot(mask, 3).movedim(-1, 1).float()
    warp = draw_warp(4, 2, SpatialRanges(), chance(5))
    _, warped = apply_warp(image, soft, warp)
    _, hard = apply_warp(image, mask, warp)
    total = warped.sum(1)
    assert warped.min() >= 0
    assert total.max() <= 1 + 1e-5
    sure = (warped.max(1).values > 0.99) & (hard != IGNORE)
    assert torch.equal(warped.argmax(1)[sure], hard[sure])


@pytest.mark.parametrize("outside", [0, 2, IGNORE])
def test_soft_and_integer_masks_say_the_same_away_from_borders_of_labels(outside):
    image, mask = blobs()
    mask[:, 8:14, 22:30] = IGNORE
    soft = torch.from_numpy(soft_targets(mask.numpy().astype(np.uint8), 3)).float()
    augment = StrongAugment(SpatialRanges(shift=0.3, probability=1.0), PLAIN, outside)
    new_image, hard = augment(image, mask, chance(5))
    soft_image, shares = augment(image, soft, chance(5))
    assert torch.equal(new_image, soft_image)
    total, most = shares.sum(1), shares.max(1)
    assert shares.min() >= 0
    assert total.max() <= 1 + 1e-5
    sure = most.values > 0.99
    assert sure.float().mean() > 0.5
    assert torch.equal(most.indices[sure], hard[sure])
    nobody = total < 0.01
    assert nobody.any()
    assert (hard[nobody] == IGNORE).all()
    beyond = augment(image, torch.ones_like(mask) * 3, chance(5))[1] == outside
    thirds = augment(image, torch.ones_like(soft) / 3, chance(5))[1]
    expected = torch.zeros(3) if outside == IGNORE else torch.eye(3)[outside]
    assert beyond.any()
    assert (thirds.movedim(1, -1)[beyond] - expected).abs().median() < 1e-5


def test_without_a_warp_soft_masks_give_the_loss_of_integer_masks():
    image, mask = blobs()
    mask[:, 8:14, 22:30] = IGNORE
    soft = torch.from_numpy(soft_targets(mask.numpy().astype(np.uint8), 3)).float()
    logits = torch.randn(4, 3, 32, 40, generator=chance(1))
    losses = []
    for given in (mask, soft):
        target, judged = targets_of(StrongAugment(STILL, PLAIN)(image, given, chance())[1], 3)
        log_p = logits.log_softmax(dim=1)
        losses.append(float(soft_dice_loss(log_p.exp(), target, judged) + cross_entropy(log_p, target)))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_flips_only_where_allowed():
    image = torch.arange(16.0).view(1, 1, 1, 16).expand(64, 1, 8, 16) / 8 - 1
    plain, _ = apply_warp(image, None, draw_warp(64, 2, STILL, chance()))
    assert torch.allclose(plain, image, atol=1e-5)
    only_x = SpatialRanges(**{**vars(STILL), "flips": ("x",)})
    flipped, _ = apply_warp(image, None, draw_warp(64, 2, only_x, chance()))
    mirrored = (flipped[:, 0, 0, 0] > flipped[:, 0, 0, -1]).float().mean()
    assert 0.3 < mirrored < 0.7
    assert torch.allclose(flipped.sort(dim=-1).values, image, atol=1e-5)
    up, _ = apply_warp(
        image, None, draw_warp(64, 2, SpatialRanges(**{**vars(STILL), "flips": ("y",)}), chance())
    )
    assert torch.allclose(up, image, atol=1e-5)


def test_a_rotation_is_rigid_on_any_grid():
    ranges = SpatialRanges(**{**vars(STILL), "rotate_deg": 40.0, "probability": 1.0, "spacing": (3.0, 1.0)})
    size, spacing = (10, 60), np.array([3.0, 1.0])
    grid = sampling_grid(draw_warp(1, 2, ranges, chance(1)), size, ranges.spacing)[0].flip(-1)
    mm = grid.numpy() * (np.array(size) * spacing / 2)
    along_y = np.linalg.norm(mm[1:] - mm[:-1], axis=-1)
    along_x = np.linalg.norm(mm[:, 1:] - mm[:, :-1], axis=-1)
    np.testing.assert_allclose(along_y, 3.0, rtol=1e-4)
    np.testing.assert_allclose(along_x, 1.0, rtol=1e-4)
    assert abs(mm[0, 0] - [-13.5, -29.5]).max() > 1


def test_splines_are_a_partition_of_one_and_smooth():
    assert torch.allclose(spline_basis(17, 4).sum(1), torch.ones(17))
    field = smooth_field(torch.randn(1, 2, 7, 7, generator=chance()), (40, 40))
    assert field.shape == (1, 2, 40, 40)
    assert field.diff(dim=-1).abs().max() < 0.5


def test_elastic_displacement_has_the_size_asked_for():
    ranges = SpatialRanges(**{**vars(STILL), "elastic": 0.05, "probability": 1.0})
    grid = sampling_grid(draw_warp(400, 2, ranges, chance()), (16, 16))
    still = sampling_grid(draw_warp(1, 2, STILL, chance()), (16, 16))
    assert (grid - still).std().item() / 2 == pytest.approx(0.05, rel=0.1)


def test_images_of_a_batch_get_their_own_draws():
    image = torch.rand(6, 2, 24, 24, generator=chance()) * 2 - 1
    same = image[:1].expand(6, -1, -1, -1)
    new, _ = StrongAugment()(same, None, chance(7))
    assert len({tuple(one.flatten()[::50].tolist()) for one in new}) == 6


@pytest.mark.parametrize(
    "name", ["gamma", "contrast", "brightness", "bias", "noise", "blur", "low_resolution", "erase"]
)
@pytest.mark.parametrize("size", [(24, 32), (8, 12, 16)])
def test_each_change_of_tone_changes_grey_values_alone(name, size):
    strengths = {"gamma": 2.0, "contrast": 2.0, "low_resolution": 3.0, "blur": 2.0, "erase": 0.9}
    ranges = IntensityRanges(**{**vars(PLAIN), name: (strengths.get(name, 0.5), 1.0)})
    image = torch.rand(4, 2, *size, generator=chance()) * 1.6 - 0.8
    new = apply_tone(image, draw_tone(image.shape, ranges, chance(1)))
    assert new.shape == image.shape
    assert (new - image).abs().flatten(1).max(1).values.median() > 1e-3
    assert -1 <= new.min() <= new.max() <= 1


def test_blur_and_low_resolution_keep_the_mean_of_a_flat_image():
    ranges = IntensityRanges(**{**vars(PLAIN), "blur": (2.0, 1.0), "low_resolution": (3.0, 1.0)})
    image = torch.full((3, 1, 16, 20), 0.25)
    assert torch.allclose(apply_tone(image, draw_tone(image.shape, ranges, chance())), image, atol=1e-4)
