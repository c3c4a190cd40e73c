"""The mean teacher: who teaches what, that image and mask move together, and that nothing is hidden."""

import copy
import math

import pytest
import torch
from torch import nn

from fewmask.core.errors import ConfigError
from fewmask.core.volume import IGNORE
from fewmask.data.augment import StrongAugment
from fewmask.data.augment_intensity import IntensityRanges
from fewmask.data.augment_spatial import SpatialRanges
from fewmask.data.batches import Batch
from fewmask.objectives.minimise import Alone
from fewmask.objectives.segmentation import Schedule, SegmentationObjective, targets_of
from fewmask.objectives.teacher import MeanTeacherObjective, TeacherSettings

LATE = 1000
"""Images seen when the weight of unlabelled images has risen to its end."""


def learner(settings=None, augment=None, lr=0.1, network=None, **student):
    torch.manual_seed(0)
    student = SegmentationObjective(
        network or nn.Conv2d(1, 3, 1), Schedule(lr, 1000, "constant"), classes=3, weight_decay=0.0, **student
    )
    return MeanTeacherObjective(student, augment, settings or TeacherSettings())


def batch(labelled=2, unlabelled=2, size=8):
    chance = torch.Generator().manual_seed(1)
    count = labelled + unlabelled
    image = torch.rand(count, 1, size, size, generator=chance) * 2 - 1
    mask = torch.bucketize(image[:, 0], torch.tensor([-0.3, 0.3]))
    mask[labelled:] = IGNORE
    return Batch(image, mask, torch.arange(count))


def weights(objective):
    return {name: [p.clone() for p in part.parameters()] for name, part in objective.modules().items()}


@pytest.mark.parametrize("soft", [False, True])
def test_the_teacher_speaks_where_nobody_judged(soft):
    objective, given = learner(TeacherSettings(temperature=0.5)), batch()
    given.mask[0, 0] = IGNORE
    mask = targets_of(given.mask, 3)[0] if soft else given.mask
    target, labelled = objective.targets(given.image, mask)
    assert labelled.flatten().tolist() == [1, 1, 0, 0]
    assert torch.equal(target[:2], targets_of(given.mask, 3)[0][:2])
    assert (target[0, :, 0] == 0).all(), "an unjudged voxel of a labelled image stays unjudged"
    p = objective.teacher(given.image[2:]).softmax(dim=1)
    torch.testing.assert_close(target[2:], p**2 / (p**2).sum(dim=1, keepdim=True))


def test_voxels_it_is_not_sure_of_teach_nothing():
    objective, given = learner(TeacherSettings(confidence=0.45)), batch()
    target, _ = objective.targets(given.image, given.mask)
    p = objective.teacher(given.image[2:]).softmax(dim=1)
    sure = p.amax(dim=1) >= 0.45
    assert 0 < sure.float().mean() < 1
    torch.testing.assert_close(target[2:].sum(dim=1), sure.float())
    torch.manual_seed(0)
    assert float(objective.update(given, 0, Alone())["confident"]) == pytest.approx(
        float(sure.float().mean())
    )


class Recorded(Alone):
    """Remembers the last loss."""

    def __call__(self, loss, optimizer):
        self.loss = float(super().__call__(loss, optimizer))
        return self.loss


@pytest.mark.parametrize("class_weights", [(), (0.2, 1.0, 3.0)])
def test_class_weights_count_only_where_a_person_judged(class_weights):
    objective, given = learner(TeacherSettings(weight=0.4), class_weights=class_weights), batch()
    target, _ = objective.targets(given.image, given.mask)
    labelled = [one.item() for one in objective.student.loss(given.image[:2], given.mask[:2])]
    logits = objective.student.network(given.image[2:])
    others = [one.item() for one in objective.student.judge(logits, target[2:], weighted=False)]
    minimise = Recorded()
    told = objective.update(given, LATE, minimise)
    assert minimise.loss == pytest.approx(sum(labelled) + 0.4 * sum(others), rel=1e-5)
    found = [
        float(told[f"{kind}labelled_{name}"])
        for kind in ("", "un")
        for name in ("dice_loss", "cross_entropy")
    ]
    assert found == pytest.approx([*labelled, *others], rel=1e-5)
    plain = learner(TeacherSettings(weight=0.4)).update(batch(), 0, Alone())
    assert float(plain["unlabelled_cross_entropy"]) == pytest.approx(found[3], rel=1e-5)
    same = float(plain["labelled_cross_entropy"]) == pytest.approx(found[1], rel=1e-5)
    assert same == (not class_weights), "class weights count where a person judged"


def test_class_weights_leave_soft_masks_alone():
    given = batch()
    given = Batch(given.image, targets_of(given.mask, 3)[0], given.index)
    weighed, plain = (learner(class_weights=w).update(given, 0, Alone()) for w in ((0.2, 1.0, 3.0), ()))
    assert float(weighed["labelled_cross_entropy"]) == float(plain["labelled_cross_entropy"])


def test_without_unlabelled_images_it_is_the_plain_objective():
    objective, given = learner(), batch(unlabelled=0)
    plain = copy.deepcopy(objective.student)
    plain.update(given, 30, Alone())
    told = objective.update(given, 30, Alone())
    assert torch.allclose(objective.student.network.weight, plain.network.weight, atol=1e-6)
    assert told["unlabelled_cross_entropy"] == told["confident"] == 0


def test_the_student_comes_to_agree_with_its_teacher_without_a_label():
    objective = learner(TeacherSettings(average=10**12), lr=0.3)
    given = batch(labelled=0, unlabelled=4)
    with torch.no_grad():
        objective.teacher.weight.copy_(torch.tensor([-9.0, 0.0, 9.0]).view(3, 1, 1, 1))
    seen = objective.teacher(given.image).argmax(dim=1)
    before = (objective.student.network(given.image).argmax(dim=1) == seen).float().mean()
    for _ in range(25):
        told = objective.update(given, 10**13, Alone())
    after = (objective.student.network(given.image).argmax(dim=1) == seen).float().mean()
    assert before < 0.6 < 0.9 < after
    assert told["labelled_dice_loss"] == told["labelled_cross_entropy"] == 0


def test_the_teacher_follows_and_is_the_result():
    objective, given = learner(TeacherSettings(average=4)), batch()
    before = objective.teacher.weight.clone()
    objective.update(given, 10**6, Alone())
    assert torch.allclose(
        objective.teacher.weight, (before + objective.student.network.weight) / 2, atol=1e-6
    )
    assert objective.result is objective.teacher
    assert not objective.teacher.training
    assert not any(p.requires_grad for p in objective.teacher.parameters())
    assert objective.settings.half_life(20) == 2
    pair = Alone()
    pair.ranks, pair.rank = 2, 0
    objective, before = learner(TeacherSettings(average=8)), before
    objective.update(given, 10**6, pair)
    assert torch.allclose(
        objective.teacher.weight, (before + objective.student.network.weight) / 2, atol=1e-6
    )


def test_the_weight_of_unlabelled_images_rises_over_the_ramp():
    settings = TeacherSettings(weight=2.0, ramp=0.5)
    assert settings.weight_at(0) == pytest.approx(2 * math.exp(-5))
    assert settings.weight_at(0.25) == pytest.approx(2 * math.exp(-1.25))
    assert settings.weight_at(0.5) == settings.weight_at(1) == 2


def test_image_and_mask_move_together():
    tones = {"bias": (0.0, 0.0), "gamma": (1.0, 0.0), "contrast": (1.0, 0.0), "brightness": (0.0, 0.0)}
    tones |= {"noise": (0.0, 0.0), "blur": (0.0, 0.0), "low_resolution": (1.0, 0.0)}
    moves = StrongAugment(SpatialRanges(probability=1.0), IntensityRanges(**tones))
    image = torch.full((2, 1, 32, 32), -1.0)
    image[:, :, 8:20, 10:24] = 1.0
    share = (image + 1) / 2
    torch.manual_seed(3)
    new, target = learner(augment=moves).varied(image, torch.cat([1 - share, share], dim=1), 0, 1)
    assert (new - image).abs().mean() > 0.05
    torch.testing.assert_close(target[:, 1:], (new + 1) / 2, atol=1e-3, rtol=0)


def test_views_of_two_processes_are_the_rows_of_one():
    objective, given = learner(augment=StrongAugment()), batch(3, 3, size=16)
    target, _ = objective.targets(given.image, given.mask)
    torch.manual_seed(5)
    whole = objective.varied(given.image, target, 0, 1)
    for rank in range(2):
        torch.manual_seed(5)
        mine = objective.varied(given.image[rank::2], target[rank::2], rank, 2)
        for part, all_of_it in zip(mine, whole, strict=True):
            torch.testing.assert_close(part, all_of_it[rank::2], atol=1e-5, rtol=0)


def test_nothing_is_hidden_from_a_checkpoint():
    objective = learner(augment=StrongAugment())
    for seen in (0, 4, 8):
        torch.manual_seed(seen)
        objective.update(batch(), seen, Alone())
        if seen == 4:
            kept = [copy.deepcopy(part.state_dict()) for part in objective.modules().values()]
            steps = [copy.deepcopy(one.state_dict()) for one in objective.optimizers().values()]
    again = learner(augment=StrongAugment())
    for part, state in zip(again.modules().values(), kept, strict=True):
        part.load_state_dict(state)
    for one, state in zip(again.optimizers().values(), steps, strict=True):
        one.load_state_dict(state)
    again.load_state(objective.state())
    torch.manual_seed(8)
    again.update(batch(), 8, Alone())
    for name, found in weights(again).items():
        assert all(map(torch.equal, found, weights(objective)[name])), name


def test_it_learns_in_16_bits():
    with torch.autocast("cpu", torch.bfloat16):
        told = learner(augment=StrongAugment()).update(batch(), 0, Alone())
    assert all(math.isfinite(float(value)) for value in told.values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"average": 0},
        {"weight": -1.0},
        {"ramp": 0.0},
        {"ramp": 2.0},
        {"confidence": 1.5},
        {"temperature": 0.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="setting of the teacher"):
        TeacherSettings(**wrong)


def test_a_batch_without_mask_is_refused():
    with pytest.raises(ConfigError, match="learns from masks"):
        learner().update(Batch(batch().image, None, torch.arange(4)), 0, Alone())
