"""Class activation maps: by hand, and on slices whose disease is a bright spot."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewmask.core.errors import ShapeError
from fewmask.core.run import Run
from fewmask.networks.classifier import Classifier
from fewmask.synthesis.activation import (
    ActivationMap,
    ClassifierSettings,
    activation_map,
    gradient_map,
    image_scores,
    train_classifier,
)
from fewmask.training.launch import launch


def known(size=16):
    torch.manual_seed(0)
    network = Classifier(1, widths=(4, 8), blocks=1)
    torch.nn.init.normal_(network.out.weight)
    return network.eval().requires_grad_(False), torch.rand(2, 1, size, size) * 2 - 1


def test_the_map_of_known_features_by_hand():
    maps = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]])
    assert activation_map(maps, torch.tensor([3.0, -1.0])).tolist() == [[[3.0, 2.0]]]
    assert activation_map(maps, torch.tensor([-3.0, 1.0])).tolist() == [[[0.0, 0.0]]]


def test_the_map_lies_on_the_image():
    network, image = known(15)
    made, delta = ActivationMap(network).heal(image)
    coarse = activation_map(network.maps(image), network.out.weight[1])
    fine = torch.nn.functional.interpolate(coarse[:, None], scale_factor=2, mode="bilinear")
    assert torch.equal(made, image)
    assert torch.equal(delta, fine[:, 0, :15, :15])


def test_at_the_last_maps_the_slope_says_the_same():
    network, image = known()
    maps = network.maps(image)
    by_weight = activation_map(maps, network.out.weight[1]) / maps[0, 0].numel()
    assert torch.allclose(gradient_map(network, image, 1), by_weight, atol=1e-7)
    assert by_weight.max() > 0


def test_at_earlier_maps_it_is_finer():
    network, image = known()
    assert gradient_map(network, image, 1, 1).shape == (2, 16, 16)
    assert ActivationMap(network, "gradcam", 1).heal(image)[1].shape == (2, 16, 16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, spots):
    settings = ClassifierSettings(images=1920, widths=(8, 16, 32), lr=3e-3)
    step = Run.open(tmp_path_factory.mktemp("activation")).step("classifier")
    fabric = launch(threads=1)
    return train_classifier(spots.domains, settings, step, seed=0, fabric=fabric, augment=None)


def test_spots_are_found(trained, spots):
    assert spots.auroc(trained(spots.test).delta) > 0.85
    finer = replace(trained, generator=ActivationMap(trained.networks["network"], "gradcam", 2))
    assert spots.auroc(finer(spots.test).delta) > 0.8


def test_images_have_scores(trained, spots):
    network = trained.networks["network"]
    sick, well = image_scores(network, spots.test), image_scores(network, spots.well)
    assert np.median(sick) > 0.8
    assert np.median(well) < 0.2
    assert (sick >= 0).all()
    assert (sick <= 1).all()


def test_images_of_other_channels(trained, spots):
    with pytest.raises(ShapeError, match="do not fit"):
        trained(np.repeat(spots.test, 2, axis=1))
