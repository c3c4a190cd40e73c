"""CycleGAN's and pix2pix's networks: shapes of any size, receptive fields, first weights, refusals."""

import pytest
import torch

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.networks.cyclegan import (
    DocumentDiscriminator,
    DocumentGenerator,
    PatchDiscriminator,
    ResNetGenerator,
)
from fewmask.networks.pix2pix import UNetGenerator

GENERATORS = [
    lambda a, b: ResNetGenerator(a, b, width=3, blocks=1),
    lambda a, b: DocumentGenerator(a, b, width=3, blocks=1),
    lambda a, b: DocumentGenerator(a, b, width=3, blocks=1, down="maxpool2"),
    lambda a, b: UNetGenerator(a, b, width=2, depth=5),
]


@pytest.mark.parametrize("build", GENERATORS)
@pytest.mark.parametrize("size", [(32, 32), (45, 70)])
def test_any_channels_height_and_width(build, size):
    torch.manual_seed(0)
    network = build(2, 3)
    image = torch.rand(2, 2, *size) * 2 - 1
    y = network(image)
    assert y.shape == (2, 3, *size)
    assert float(y.detach().abs().max()) <= 1
    assert y.dtype == torch.float32
    y.square().mean().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    network.eval()
    alone = torch.cat([network(image[:1]), network(image[1:])])
    torch.testing.assert_close(network(image), alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="number of channels"):
        network(image[:, :1])
    with pytest.raises(ShapeError, match="too small"):
        network(image[..., :5, :5])
    with torch.autocast("cpu", torch.bfloat16):
        assert float((network(image) - alone).detach().abs().max()) < 0.1


def seen(network, size=96):
    """Rows of the image that the middle patch depends on, were all weights 1 and nothing normalised."""
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 1e-3)
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    answer = network.eval()(image)
    answer[0, 0, answer.shape[2] // 2, answer.shape[3] // 2].backward()
    return int((image.grad[0, 0].abs().sum(dim=1) > 0).sum())


def test_receptive_fields():
    assert seen(PatchDiscriminator(1, width=2, norm="batch")) == 70
    assert seen(PatchDiscriminator(1, width=2, layers=2, norm="batch")) == 34
    assert seen(DocumentDiscriminator(1, width=2)) == 46


def test_published_sizes():
    """Parameters of the published generator and discriminator, less the biases that a norm takes away."""
    with torch.device("meta"):
        nets = ResNetGenerator(1, 1), PatchDiscriminator(1), UNetGenerator(1, 1)
    counts = [sum(p.numel() for p in network.parameters()) for network in nets]
    biases = 64 + 128 + 256 + 18 * 256 + 128 + 64, 128 + 256 + 512
    assert counts[0] + biases[0] == 11_365_633
    assert counts[1] + biases[1] == 2_762_689
    assert counts[2] + 2 * 16 * (64 + 128) + 2 == 41_828_995  # with three channels, as published


def test_document_halves_three_times():
    torch.manual_seed(0)
    network = DocumentGenerator(1, 1, width=4, blocks=6)
    inner = []
    network.layers[9].register_forward_hook(lambda _, __, y: inner.append(y.shape))
    network(torch.zeros(2, 1, 128, 128))
    assert inner == [(2, 16, 16, 16)]
    kinds = [type(layer).__name__ for layer in network.layers[:3]]
    assert kinds == ["Conv2d", "ReLU", "BatchNorm2d"]


def test_first_weights():
    torch.manual_seed(0)
    for network in (ResNetGenerator(1, 1, width=16, blocks=1), DocumentGenerator(1, 1, width=16, blocks=1)):
        weights = torch.cat([p.flatten() for n, p in network.named_parameters() if p.ndim == 4])
        assert float(weights.detach().std()) == pytest.approx(0.02, rel=0.02)
        assert all(not bool(p.any()) for n, p in network.named_parameters() if n.endswith("last.bias"))


def test_refusals():
    with pytest.raises(ConfigError, match="translator of images"):
        ResNetGenerator(1, 0)
    with pytest.raises(ConfigError, match="discriminator of patches"):
        PatchDiscriminator(1, layers=0)
    with pytest.raises(ConfigError, match="U-Net of pix2pix"):
        UNetGenerator(1, 1, depth=4)
    for judge, least in ((PatchDiscriminator(1, width=2), 24), (DocumentDiscriminator(1, width=2), 16)):
        assert judge(torch.zeros(2, 1, least, least)).shape[1] == 1
        with pytest.raises(ShapeError, match="too small for the discriminator"):
            judge(torch.zeros(2, 1, least, least - 1))
