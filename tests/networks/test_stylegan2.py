"""StyleGAN2: shapes, and the properties the papers state. Its numbers are compared in tests/parity."""

import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.networks.stylegan2 import Discriminator, Generator, append_group_deviation


def close(ours, theirs, tolerance=1e-4):
    """Relative to the output's own spread."""
    error = (ours - theirs).abs().max() / theirs.double().std().clamp_min(1e-12)
    assert error <= tolerance, f"relative error {error:.2e}"


@pytest.mark.parametrize(("resolution", "channels"), [(16, 3), (64, 1), (128, 5)])
def test_sizes_and_names(resolution, channels):
    generator = Generator(8, 12, resolution, channels, channel_base=256, channel_max=6, mapping_layers=2)
    ws = generator.mapping(torch.randn(3, 8))
    assert ws.shape == (3, generator.num_ws, 12)
    assert generator.synthesis(ws).shape == (3, channels, resolution, resolution)
    features = generator.features(ws)
    assert len(features) == generator.num_ws - 1
    assert [f.tensor.shape[-1] for f in features] == [f.size for f in features]
    assert features[-1].size == resolution
    discriminator = Discriminator(resolution, channels, channel_base=256, channel_max=6)
    assert discriminator(torch.randn(3, channels, resolution, resolution)).shape == (3, 1)
    assert [f.size for f in discriminator.features(generator.synthesis(ws))][-2:] == [4, 4]


def test_style_scale_does_not_change_a_demodulated_layer():
    layer = Generator(4, 4, 16, 1, channel_max=8).synthesis.blocks[1].conv0
    with torch.no_grad():
        layer.bias.zero_()
    x, w = torch.randn(2, 8, 4, 4), torch.randn(2, 4)
    once = layer(x, w, "none")
    with torch.no_grad():
        layer.affine.weight.mul_(3)
        layer.affine.bias.mul_(3)
    close(layer(x, w, "none"), once)


def test_noise_is_random_constant_or_absent():
    generator = Generator(4, 4, 16, 1, channel_max=8)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    ws = generator.mapping(torch.randn(1, 4))
    draw = generator.synthesis
    assert torch.equal(draw(ws, "constant"), draw(ws, "constant"))
    assert not torch.equal(draw(ws, "random"), draw(ws, "random"))
    assert not torch.equal(draw(ws, "constant"), draw(ws, "none"))


def test_group_deviation_falls_back_to_a_divisor():
    x = torch.randn(5, 3, 4, 4)
    assert append_group_deviation(x, 4).shape == (5, 4, 4, 4)
    x = torch.zeros(4, 3, 4, 4)
    x[2] += 2.0  # groups of 2 are images (0, 2) and (1, 3)
    channel = append_group_deviation(x, 2)[:, -1, 0, 0]
    assert torch.allclose(channel, torch.tensor([1.0, 1e-4, 1.0, 1e-4]), atol=1e-3)


def test_a_resolution_that_cannot_be_generated():
    with pytest.raises(ConfigError, match="power of two from 16 to 1024"):
        Generator(8, 8, 96, 1)
