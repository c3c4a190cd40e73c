import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.networks import stylegan3
from fewmask.synthesis.features import (
    DiscriminatorFeatures,
    FeatureStack,
    GeneratorFeatures,
    ImageFeatures,
    channel_statistics,
    sampled_statistics,
)


def _subjects(generator, count=3):
    z = torch.randn(count, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ws = generator.mapping(z)
        return generator.synthesis(ws, noise="constant"), ws


def test_generator_features_are_all_convolutions_above_4_px(generator):
    image, ws = _subjects(generator)
    maps = GeneratorFeatures(generator).maps(image, ws)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 8, 8), (8, 8, 8), (8, 16, 16), (8, 16, 16)]


def test_margins_are_cut_off_so_that_every_map_covers_the_image():
    generator = stylegan3.Generator(8, 8, 32, 1, channel_base=128, channel_max=4)
    ws = generator.mapping(torch.randn(1, 8))
    maps = GeneratorFeatures(generator).maps(torch.zeros(1, 1, 32, 32), ws)
    assert [m.shape[2] for m in maps] == [16] * 5 + [32] * 9
    whole = generator.features(ws)
    assert torch.equal(maps[0], whole[0].tensor[:, :, 10:26, 10:26])
    assert torch.equal(maps[-1], whole[-1].tensor)


def test_generator_features_by_encoder_need_no_latents(generator):
    image, ws = _subjects(generator)
    by_encoder = GeneratorFeatures(generator, encoder=lambda image: ws[: len(image)])
    for a, b in zip(by_encoder.maps(image, None), GeneratorFeatures(generator).maps(image, ws), strict=True):
        assert torch.equal(a, b)


def test_generator_features_without_latents_are_refused(generator):
    with pytest.raises(ConfigError, match="need latents"):
        GeneratorFeatures(generator).maps(torch.zeros(1, 1, 16, 16), None)


def test_discriminator_features_do_not_feel_the_batch(discriminator, generator):
    image, _ = _subjects(generator, 4)
    source = DiscriminatorFeatures(discriminator)
    together = source.maps(image, None)
    assert [m.shape[2] for m in together] == [8, 4]
    for n in range(4):
        for a, b in zip(source.maps(image[n : n + 1], None), together, strict=True):
            assert torch.allclose(a[0], b[n], atol=1e-5)
    assert len(DiscriminatorFeatures(discriminator, layers=1).maps(image, None)) == 1


def test_a_stack_is_its_sources_side_by_side_without_gradient(generator, discriminator):
    image, ws = _subjects(generator)
    stack = FeatureStack(
        [GeneratorFeatures(generator), DiscriminatorFeatures(discriminator), ImageFeatures()]
    )
    maps = stack.maps(image, ws)
    assert len(maps) == 4 + 2 + 1
    assert torch.equal(maps[-1], image)
    assert not any(m.requires_grad for m in maps)
    assert stack.channels(image, ws) == tuple(m.shape[1] for m in maps)


def test_statistics_are_those_of_all_pixels(generator, discriminator):
    image, ws = _subjects(generator, 5)
    stack = FeatureStack([GeneratorFeatures(generator), DiscriminatorFeatures(discriminator)])
    found = channel_statistics(stack, image, ws, batch_size=2)
    flat = [m.movedim(1, 0).flatten(1) for m in stack.maps(image, ws)]
    assert torch.allclose(found.mean, torch.cat([f.mean(dim=1) for f in flat]), atol=1e-5)
    assert torch.allclose(found.deviation, torch.cat([f.std(dim=1, correction=0) for f in flat]), atol=1e-5)


def test_sampled_statistics_follow_from_the_seed(generator):
    stack = FeatureStack([GeneratorFeatures(generator)])
    one, two, other = (sampled_statistics(stack, generator, samples=20, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.mean, two.mean)
    assert not torch.equal(one.mean, other.mean)
