"""Cross-entropy of image labels."""

import copy
import math

import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks.classifier import Classifier
from fewmask.objectives.classifier import ClassifierObjective
from fewmask.objectives.minimise import Alone


def batch():
    torch.manual_seed(1)
    label = torch.eye(2)[torch.tensor([0, 1, 1, 0])]
    image = torch.rand(4, 1, 16, 16) + label[:, 1, None, None, None]
    return Batch(image, None, torch.arange(4), label)


def objective():
    torch.manual_seed(0)
    return ClassifierObjective(Classifier(1, widths=(4, 8)), images=400, lr=1e-2)


def test_it_learns_from_log_2_downwards():
    learner, told = objective(), []
    for number in range(20):
        told.append(learner.update(batch(), 4 * number, Alone()))
    assert float(told[0]["loss"]) == pytest.approx(math.log(2))
    assert float(told[-1]["loss"]) < 0.3
    assert float(told[-1]["accuracy"]) == 1


def test_weights_of_two_classes_stay_opposite():
    learner = objective()
    for number in range(5):
        learner.update(batch(), 4 * number, Alone())
    healthy, diseased = learner.network.out.weight
    assert diseased.abs().max() > 1e-3
    assert torch.allclose(healthy, -diseased, atol=1e-6)


def test_micro_batches_give_the_same_step():
    one, two = objective(), objective()
    one.update(batch(), 0, Alone())
    two.update(batch(), 0, Alone(parts=2))
    for ours, theirs in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    assert one.state() == {}


def test_images_without_labels_are_refused():
    learner = objective()
    before = copy.deepcopy(learner.network.state_dict())
    with pytest.raises(ConfigError, match="labels"):
        learner.update(Batch(torch.rand(2, 1, 16, 16), None, torch.arange(2)), 0, Alone())
    assert torch.equal(before["stem.weight"], learner.network.stem.weight)
