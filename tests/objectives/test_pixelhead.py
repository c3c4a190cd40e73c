import pytest
import torch

from fewmask.core.volume import IGNORE
from fewmask.data.augment_spatial import SpatialRanges, Warp, draw_warp
from fewmask.data.batches import Batch
from fewmask.networks.pixelhead import PixelHead
from fewmask.objectives.minimise import Alone
from fewmask.objectives.pixelhead import FrozenMaps, PixelHeadObjective, warp_maps

MIRROR = SpatialRanges(probability=0.0, elastic=0.0, flips=("x",))


def _flat(turn=False):
    matrix = torch.eye(2)[None].clone()
    if turn:
        matrix[:, 1, 1] = -1.0
    return Warp(matrix, torch.zeros(1, 2), None)


def test_a_warp_meets_every_map_at_its_own_size():
    chance = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 2, s, s, generator=chance) for s in (4, 16)]
    for one, same, mirrored in zip(
        maps, warp_maps(maps, _flat()), warp_maps(maps, _flat(turn=True)), strict=True
    ):
        assert torch.allclose(one, same, atol=1e-5)
        assert torch.allclose(one.flip(3), mirrored, atol=1e-5)


def test_a_smooth_picture_is_warped_alike_at_every_size():
    def ramp(size):
        at = (torch.arange(size) + 0.5) / size
        return (2 * at[:, None] - at[None, :])[None, None]

    ranges = SpatialRanges(probability=1.0, shift=0.02, scale=1.0, stretch=1.0, shear=0.0, elastic=0.0)
    warp = draw_warp(1, 2, ranges, torch.Generator().manual_seed(1))
    coarse, fine = warp_maps([ramp(32), ramp(64)], warp)
    assert (coarse - ramp(32)).abs().max() > 0.05
    inside = slice(6, -6)
    means = torch.nn.functional.avg_pool2d(fine, 2)
    assert torch.allclose(means[..., inside, inside], coarse[..., inside, inside], atol=1e-4)


def test_beyond_the_border_features_go_on_and_the_mask_is_unjudged():
    warp = Warp(torch.eye(2)[None], torch.tensor([[0.0, 1.0]]), None)
    (moved,) = warp_maps([torch.full((1, 1, 8, 8), 3.0)], warp)
    assert torch.equal(moved, torch.full((1, 1, 8, 8), 3.0))
    objective, batch = _learner(augment_features=SpatialRanges(shift=0.5, probability=1.0, elastic=0.0))
    torch.manual_seed(3)
    _, mask = objective._warped([], batch.mask, objective.augment_features, Alone())
    assert (mask == IGNORE).any()
    assert set(mask.unique().tolist()) <= {0, 1, IGNORE}


def _learner(members=1, **more):
    chance = torch.Generator().manual_seed(0)
    image = torch.randn(4, 1, 16, 16, generator=chance)
    mask = (image[:, 0] > 0).long()
    head = PixelHead([1], 2, kind="mlp", width=16, members=members)
    head.initialise(*[torch.Generator().manual_seed(number) for number in range(members)])
    objective = PixelHeadObjective(head, lambda image, ws: [image], images=1000, learning_rate=1e-2, **more)
    return objective, Batch(image, mask, torch.arange(4))


@pytest.mark.parametrize("soft", [False, True])
def test_mask_and_features_are_mirrored_together(soft):
    """A head can learn the sign of a pixel only if the mask went where the features went."""
    objective, batch = _learner(augment_features=MIRROR)
    if soft:
        hot = torch.nn.functional.one_hot(batch.mask, 2).movedim(-1, 1).float()
        batch = Batch(batch.image, 0.5 * hot, batch.index)
    torch.manual_seed(0)
    told = [objective.update(batch, 0, Alone()) for _ in range(40)]
    assert told[-1]["dice_loss"] < 0.1 < told[0]["dice_loss"]


def test_told_losses_are_means_over_the_members():
    joint, batch = _learner(members=3)
    alone = []
    for number in range(3):
        single, _ = _learner()
        single.head.load_state_dict(joint.head.member(number).state_dict())
        alone.append(single.update(batch, 0, Alone()))
    told = joint.update(batch, 0, Alone())
    for name in ("cross_entropy", "dice_loss"):
        assert told[name] == pytest.approx(sum(one[name] for one in alone) / 3, rel=1e-5)


def test_what_is_augmented_on_the_way_is_not_remembered():
    calls = []

    def maps(image, ws):
        calls.append(len(image))
        return [image]

    batch = Batch(torch.randn(2, 1, 4, 4), None, torch.tensor([5, 5]))
    for numbered, expected in ((True, [1]), (False, [2, 2])):
        frozen = FrozenMaps(maps, None, remember=1000, numbered=numbered)
        calls.clear()
        for _ in range(2):
            (found,) = frozen.of(batch)
        assert calls == expected
        assert len(found) == 2


def test_latents_follow_their_images():
    latents = torch.arange(6.0).view(3, 1, 2)
    frozen = FrozenMaps(lambda image, ws: [ws[:, :, None]], latents, remember=0, numbered=True)
    (found,) = frozen.of(Batch(torch.zeros(2, 1, 4, 4), None, torch.tensor([2, 0])))
    assert torch.equal(found[:, 0, 0], latents[[2, 0], 0])
