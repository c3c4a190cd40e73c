"""SemanticGAN's networks: shapes, and what the papers state. Numbers are compared in tests/parity."""

import pytest
import torch

from fewmask.inversion.project import project
from fewmask.networks.semanticgan import MaskDiscriminator, SemanticGenerator, SpectralConv2d
from fewmask.networks.stylegan2 import Generator
from fewmask.objectives.perceptual import StructureDistance

SIZE = {"channel_base": 128, "channel_max": 8, "mapping_layers": 2}


def shaken(network):
    """With every parameter away from the zeros and ones it starts from."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def styles_of(generator, count=2):
    torch.manual_seed(1)
    return torch.randn(count, generator.num_ws, generator.w_dim)


@pytest.mark.parametrize(("resolution", "channels", "masks"), [(16, 1, 1), (32, 3, 5)])
def test_an_image_comes_with_its_mask(resolution, channels, masks):
    generator = shaken(SemanticGenerator(6, 8, resolution, channels, masks, **SIZE))
    ws = styles_of(generator)
    image, mask = generator.pair(ws, "constant")
    assert image.shape == (2, channels, resolution, resolution)
    assert mask.shape == (2, masks, resolution, resolution)
    assert torch.equal(image, generator.synthesis(ws, "constant"))


def test_it_is_inverted_like_any_other_generator():
    generator = shaken(SemanticGenerator(6, 8, 16, 1, 2, **SIZE)).eval().requires_grad_(False)
    images = generator.synthesis(styles_of(generator), "constant").clamp(-1, 1).numpy()
    settings = {"perceptual": StructureDistance(), "seed": 0, "candidates": 4, "learning_rate": 0.05}
    before, after = (project(generator, images, steps=steps, **settings) for steps in (0, 8))
    assert after.mse.mean() < before.mse.mean()
    image, mask = generator.pair(torch.from_numpy(after.ws), "constant")
    torch.testing.assert_close(image, torch.from_numpy(after.images), rtol=1e-4, atol=1e-4)
    assert mask.shape == (2, 2, 16, 16)


def test_a_trained_generator_fits_and_draws_the_same_images():
    plain = shaken(Generator(6, 8, 32, 1, **SIZE))
    generator = SemanticGenerator(6, 8, 32, 1, 3, **SIZE)
    told = generator.load_state_dict(plain.state_dict(), strict=False)
    assert not told.unexpected_keys
    assert {key.split(".")[0] for key in told.missing_keys} == {"mask_branch"}
    ws = styles_of(plain)
    assert torch.equal(plain.synthesis(ws, "constant"), generator.synthesis(ws, "constant"))
    theirs, ours = plain.features(ws), generator.features(ws)
    assert [f.name for f in theirs] == [f.name for f in ours]
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(theirs, ours, strict=True))


def test_the_branch_is_of_the_form_of_the_images_and_takes_the_same_styles():
    generator = shaken(SemanticGenerator(6, 8, 32, 2, 2, **SIZE))
    for block, to_mask in zip(generator.synthesis.blocks, generator.mask_branch.to_mask, strict=True):
        to_mask.load_state_dict(block.to_image.state_dict())
    image, mask = generator.pair(styles_of(generator), "constant")
    assert torch.equal(image, mask)


def test_a_spectral_convolution_has_norm_one_and_moves_only_when_told():
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 6, stride=2)
    for _ in range(200):
        layer.settle()
    before = layer.u.clone()
    x = torch.randn(2, 3, 9, 9)
    once = layer.train()(x)
    assert torch.equal(layer.u, before)
    assert once.shape == (2, 6, 5, 5)
    with torch.no_grad():
        layer.weight.mul_(7.0)
    torch.testing.assert_close(layer(x), once)
    expected = torch.linalg.svdvals(layer.weight.flatten(1))[0]
    torch.testing.assert_close(torch.dot(layer.u, layer.weight.flatten(1) @ layer.v), expected)


def test_the_discriminator_judges_patches_at_every_scale():
    torch.manual_seed(0)
    critic = MaskDiscriminator(1, 2, width=4)
    pair = torch.randn(3, 3, 64, 64)
    judged = critic(pair)
    assert [tuple(one.shape) for one in judged.logits] == [(3, 1, 11, 11), (3, 1, 7, 7), (3, 1, 5, 5)]
    assert [[f.shape[1] for f in scale] for scale in judged.features] == [[4, 8, 16, 32]] * 3
    torch.testing.assert_close(critic(pair[1:2]).score, judged.score[1:2])  # no pair sees another
    mean = sum(one.mean(dim=(1, 2, 3)) for one in judged.logits) / 3
    torch.testing.assert_close(judged.score, mean)
    assert critic(torch.randn(1, 3, 16, 16)).score.shape == (1,), "the smallest images"
