import pytest
import torch

from fewmask.core.errors import ShapeError
from fewmask.networks.generator import Feature
from fewmask.networks.lpips import LpipsNetwork
from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.perceptual import (
    DiscriminatorDistance,
    EncoderDistance,
    LpipsDistance,
    StructureDistance,
    SumOfDistances,
    multiscale_similarity,
    unit_length,
)


@pytest.fixture(scope="module")
def discriminator():
    chance = torch.Generator().manual_seed(1)
    network = Discriminator(16, 1, channel_base=64, channel_max=8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=chance))
    return network


class _Encoder:
    """Two activations of which the second would be an error to look at."""

    def features(self, image):
        smooth = torch.nn.functional.avg_pool2d(image, 2)
        return [
            Feature("a", 8, torch.cat([smooth, smooth.square()], dim=1)),
            Feature("b", 8, smooth * torch.nan),
        ]


def _images(count=3, size=16):
    chance = torch.Generator().manual_seed(2)
    return torch.rand(count, 1, size, size, generator=chance) * 2 - 1


def _distances(discriminator):
    network = DiscriminatorDistance(discriminator, layers=2)
    return {
        "l2": network,
        "l1": DiscriminatorDistance(discriminator, layers=2, power=1),
        "structure": StructureDistance(),
        "encoder": EncoderDistance(_Encoder(), layers=1),
        "sum": SumOfDistances([(1.0, network), (0.5, StructureDistance())]),
    }


@pytest.mark.parametrize("name", ["l2", "l1", "structure", "encoder", "sum"])
def test_equal_images_are_at_distance_zero_and_others_are_not(discriminator, name):
    images = _images()
    distance = _distances(discriminator)[name].towards(images)
    assert torch.allclose(distance(images), torch.zeros(3), atol=1e-6)
    noisy = images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    assert (distance(noisy) > 1e-4).all()


@pytest.mark.parametrize("name", ["l2", "l1", "structure", "encoder", "sum"])
def test_an_image_does_not_feel_its_neighbours(discriminator, name):
    images, others = _images(), _images().flip(0)
    distance = _distances(discriminator)[name]
    together = distance.towards(images)(others)
    alone = torch.cat([distance.towards(images[n : n + 1])(others[n : n + 1]) for n in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_gradient_reaches_the_image_and_not_the_target(discriminator):
    target = _images().requires_grad_()
    image = _images().flip(0).requires_grad_()
    SumOfDistances([(1.0, DiscriminatorDistance(discriminator)), (1.0, StructureDistance())]).towards(target)(
        image
    ).sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().sum() > 0
    assert target.grad is None


def test_more_noise_is_farther():
    image = _images(1, 64)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(5))
    distance = StructureDistance().towards(image)
    steps = [float(distance(image + s * noise)) for s in (0.05, 0.2, 0.8)]
    assert steps == sorted(steps)


def test_similarity_is_one_for_equal_images_and_needs_no_large_image():
    for size in (4, 8, 16, 64):
        image = _images(2, size)
        assert torch.allclose(multiscale_similarity(image, image), torch.ones(2), atol=1e-5)


def test_unit_length_over_channels():
    activation = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(unit_length(activation).square().sum(dim=1), torch.ones(2, 4, 4), atol=1e-5)


def _lpips():
    network = LpipsNetwork().requires_grad_(False)
    chance = torch.Generator().manual_seed(4)
    for name, parameter in network.named_parameters():
        wide = parameter.ndim > 1
        spread = parameter[0].numel() ** -0.5 if wide else 1.0
        parameter.copy_(torch.randn(parameter.shape, generator=chance) * spread)
        if name.startswith("weights"):
            parameter.abs_()
    return LpipsDistance(network)


def test_lpips_is_the_paper_s_sum():
    image, target = _images(2, 40), _images(2, 40).flip(0)
    distance = _lpips()
    found = distance.towards(target)(image)
    assert torch.allclose(distance.towards(target)(target), torch.zeros(2), atol=1e-6)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    wanted = torch.zeros(2)
    x, y = ((z.repeat(1, 3, 1, 1) - shift[:, None, None]) / scale[:, None, None] for z in (image, target))
    for n, layer in enumerate(distance.network.convolutions):
        if n in (1, 2):
            x, y = (torch.nn.functional.max_pool2d(z, 3, 2) for z in (x, y))
        x, y = layer(x).relu(), layer(y).relu()
        a, b = (z / z.norm(dim=1, keepdim=True) for z in (x, y))
        both = torch.isfinite(a) & torch.isfinite(b)
        weight = distance.network.weights[n][:, None, None]
        wanted += torch.where(both, weight * (a - b).square(), 0.0).sum(dim=1).mean(dim=(1, 2))
    assert [layer.weight.shape[0] for layer in distance.network.convolutions] == [64, 192, 384, 256, 256]
    assert torch.allclose(found, wanted, rtol=1e-3)


@pytest.mark.parametrize("shape", [(1, 2, 64, 64), (1, 1, 16, 16)])
def test_lpips_refuses_what_it_cannot_look_at(shape):
    with pytest.raises(ShapeError, match="LPIPS cannot look"):
        _lpips().towards(torch.zeros(shape))
