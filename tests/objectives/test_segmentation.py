import math

import pytest
import torch
from torch import nn

from fewmask.core.errors import ConfigError
from fewmask.core.volume import IGNORE
from fewmask.data.batches import Batch
from fewmask.objectives.minimise import Alone
from fewmask.objectives.segmentation import (
    Schedule,
    SegmentationObjective,
    cross_entropy,
    soft_dice_loss,
    targets_of,
)

step = Alone()


def batch(mask, *, channels=1):
    image = torch.randn(len(mask), channels, *mask.shape[-2:], generator=torch.Generator().manual_seed(0))
    return Batch(image, mask, torch.arange(len(mask)))


def objective(**settings):
    torch.manual_seed(0)
    return SegmentationObjective(nn.Conv2d(1, 3, 1), Schedule(0.1, 100), classes=3, **settings)


def test_dice_by_hand():
    p = torch.tensor([[0.5, 0.5], [0.75, 0.25]]).T.reshape(1, 2, 1, 2)  # class 1: 0.5, 0.25
    target, judged = targets_of(torch.tensor([[[1, 0]]]), 2)
    assert soft_dice_loss(p, target, judged, smooth=0.0).item() == pytest.approx(1 - 2 * 0.5 / (0.75 + 1))


@pytest.mark.parametrize("share", [0.2, 0.35, 0.8])
def test_of_soft_masks_the_best_answer_is_the_mask_itself(share):
    target = torch.full((1, 2, 4, 4), 0.1)
    target[:, :, :2] = share * 0.5
    target[:, 0] = 0.5 - target[:, 1]  # every voxel counts half
    answers = torch.linspace(0.02, 0.98, 49)
    losses = []
    for answer in answers:
        p = 2 * target.clone()
        p[:, 1, :2], p[:, 0, :2] = answer, 1 - answer
        losses.append(soft_dice_loss(p, target, target.sum(dim=1, keepdim=True)).item())
    assert answers[losses.index(min(losses))].item() == pytest.approx(share, abs=0.02)
    assert min(losses) == pytest.approx(0, abs=0.03)


def test_cross_entropy_by_hand_with_weights():
    log_p = torch.log(torch.tensor([[0.2, 0.6], [0.8, 0.4]])).reshape(1, 2, 1, 2)
    target, _ = targets_of(torch.tensor([[[1, 0]]]), 2)
    plain = -(math.log(0.8) + math.log(0.6)) / 2
    weighted = -(3 * math.log(0.8) + math.log(0.6)) / 4
    assert cross_entropy(log_p, target).item() == pytest.approx(plain)
    assert cross_entropy(log_p, target, torch.tensor([1.0, 3.0])).item() == pytest.approx(weighted)


def test_unjudged_voxels_have_no_gradient():
    mask = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    mask[:, :2] = IGNORE
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target, judged = targets_of(mask, 3)
    log_p = torch.log_softmax(logits, dim=1)
    (soft_dice_loss(log_p.exp(), target, judged) + cross_entropy(log_p, target)).backward()
    assert (logits.grad[:, :, :2] == 0).all()
    assert (logits.grad[:, :, 2:] != 0).all()


def test_a_batch_without_any_judged_voxel_teaches_nothing():
    learner = objective(weight_decay=0.0)
    before = learner.network.weight.detach().clone()
    losses = learner.update(batch(torch.full((1, 4, 4), IGNORE)), 10, step)
    assert losses["cross_entropy"] == 0
    assert torch.equal(learner.network.weight, before)


def test_soft_masks_of_whole_numbers_equal_integer_masks():
    mask = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    mask[0, 0] = IGNORE
    soft, _ = targets_of(mask, 3)
    learner = objective()
    image = batch(mask).image
    assert learner.loss(image, mask) == learner.loss(image, soft)


def test_class_weights_count_for_integer_masks_alone():
    mask = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    soft, _ = targets_of(mask, 3)
    plain, weighed = objective(), objective(class_weights=(0.2, 1.0, 3.0))
    weighed.network.load_state_dict(plain.network.state_dict())
    image = batch(mask).image
    assert weighed.loss(image, soft) == plain.loss(image, soft) == plain.loss(image, mask)
    assert weighed.loss(image, mask)[1] != plain.loss(image, mask)[1]
    told = weighed.update(Batch(image, soft, torch.arange(2)), 0, step)
    assert told["cross_entropy"] == plain.loss(image, mask)[1]


def test_it_learns_from_soft_masks():
    image = torch.tensor([-1.0, 1.0]).repeat(8).reshape(1, 1, 4, 4)
    mask = torch.cat([(image < 0) * 0.9 + 0.05, (image > 0) * 0.9 + 0.05, 0 * image], dim=1)
    learner = SegmentationObjective(nn.Conv2d(1, 3, 1), Schedule(0.1, 1000), classes=3)
    losses = [learner.update(Batch(image, mask, torch.arange(1)), n, step) for n in range(60)]
    assert losses[-1]["cross_entropy"] < 0.5 * losses[0]["cross_entropy"]


def test_schedule_depends_on_images_seen_alone():
    cosine = Schedule(1.0, 100, warm_up=0.1)
    assert cosine.at(0) < 0.02
    assert cosine.at(50) == pytest.approx(0.5)
    assert cosine.at(100) == pytest.approx(0.0)
    assert Schedule(1.0, 100, "polynomial").at(50) == pytest.approx(0.5**0.9)
    assert Schedule(1.0, 100, "constant").at(500) == 1.0
    learner = objective()
    assert learner.update(batch(torch.zeros(1, 4, 4, dtype=torch.long)), 50, step)["lr"] == pytest.approx(
        0.05
    )


def test_moving_average_is_renewed_by_half_every_so_many_images():
    learner = objective(average=2)
    start = learner.network.weight.detach().clone()
    learner.update(batch(torch.ones(2, 4, 4, dtype=torch.long)), 10, step)
    assert torch.allclose(learner.result.weight, (start + learner.network.weight) / 2)
    assert set(learner.modules()) == {"network", "average"}
    assert not learner.result.training


def test_the_moving_average_counts_the_images_of_all_processes():
    learner, pair = objective(average=4), Alone()
    start, pair.ranks = learner.network.weight.detach().clone(), 2
    learner.update(batch(torch.ones(2, 4, 4, dtype=torch.long)), 10, pair)
    assert torch.allclose(learner.result.weight, (start + learner.network.weight) / 2)


def test_sgd_is_nnunets():
    group = objective(optimizer="sgd").optimizers()["network"].param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.99, True)


def test_state_is_empty():
    learner = objective()
    learner.load_state(learner.state())
    assert learner.state() == {}


def test_class_weights_must_be_one_per_class():
    with pytest.raises(ConfigError, match="one class weight per class"):
        objective(class_weights=(1.0, 2.0))
    assert torch.isfinite(objective(class_weights=(1.0, 2.0, 3.0)).loss(*_pair())[1])


def test_a_batch_without_mask_is_refused():
    image, _ = _pair()
    with pytest.raises(ConfigError, match="learns from masks"):
        objective().update(Batch(image, None, torch.arange(1)), 0, step)


def _pair():
    data = batch(torch.ones(1, 4, 4, dtype=torch.long))
    return data.image, data.mask
