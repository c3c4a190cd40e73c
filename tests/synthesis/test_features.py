import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.run import Run
from fewmask.data.phantom import View, draw_patient, render, scan
from fewmask.inversion.encoder import encode
from fewmask.networks import stylegan2, stylegan3
from fewmask.networks.embedding import ImageEncoder
from fewmask.networks.encoder import LatentEncoder, refinements
from fewmask.networks.unet import build_unet
from fewmask.objectives.perceptual import DiscriminatorDistance
from fewmask.synthesis.features import (
    DiscriminatorFeatures,
    EncoderFeatures,
    FeatureStack,
    GeneratorFeatures,
    ImageFeatures,
    UNetFeatures,
    channel_statistics,
    looking,
    sampled_statistics,
    stack_of,
)
from fewmask.synthesis.pixelhead import Shots, fit_head, predict_head
from fewmask.training.launch import launch


@pytest.fixture(scope="module")
def encoder():
    """Never taught: its blocks know a little of place and neighbourhood all the same."""
    made = ImageEncoder(1, 16)
    made.initialise(torch.Generator().manual_seed(0))
    return made


@pytest.fixture(scope="module")
def unet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_unet(2, 1, 4, (8, 16, 32))


@pytest.fixture(scope="module")
def phantom():
    """Slices of twelve phantom patients, 16 px: images (12, 1, 16, 16) and masks of lungs and heart."""
    view, images, masks = View(16, 1), [], []
    for number in range(12):
        drawn = render(draw_patient(0, number, view=view, lesions=()), view)
        images.append(scan(drawn, view, seed=0, number=number).voxels / 500)
        masks.append(drawn.classes({"left_lung": 1, "right_lung": 2, "heart": 3})[0])
    return np.stack(images).clip(-1, 1).astype(np.float32), np.stack(masks)


def _subjects(generator, count=3):
    z = torch.randn(count, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ws = generator.mapping(z)
        return generator.synthesis(ws, noise="constant"), ws


def test_generator_features_are_all_convolutions_above_4_px(generator):
    image, ws = _subjects(generator)
    maps = GeneratorFeatures(generator).maps(image, ws)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 8, 8), (8, 8, 8), (8, 16, 16), (8, 16, 16)]


def test_a_stack_of_names_leaves_out_layers_that_are_too_coarse(generator, discriminator):
    image, ws = _subjects(generator)
    networks = {"generator": lambda: generator, "discriminator": lambda: discriminator}
    names = ("generator", "image", "discriminator")
    fine, whole = (stack_of(names, networks, smallest=least).maps(image, ws) for least in (16, 4))
    of_generator = [one for one in whole if one.shape[2] >= 16]
    assert [tuple(one.shape) for one in fine if one.shape[2] < 16] == [
        tuple(one.shape)
        for one in DiscriminatorFeatures(discriminator).maps(image, None)
        if one.shape[2] < 16
    ]
    assert len(fine) < len(whole)
    assert {one.shape[2] for one in whole} == {4, 8, 16}
    assert [tuple(one.shape) for one in fine if one.shape[2] >= 16] == [tuple(o.shape) for o in of_generator]


def test_drawn_images_have_the_features_that_are_found_by_their_latents(generator, discriminator):
    image, ws = _subjects(generator)
    other = stylegan2.Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=1)
    sources = [
        DiscriminatorFeatures(discriminator),
        GeneratorFeatures(generator),
        GeneratorFeatures(other),
        GeneratorFeatures(generator, encoder=lambda image: ws.flip(0)),
        ImageFeatures(),
    ]
    stack = FeatureStack(sources)
    drawn, maps = stack.drawn(generator, ws)
    assert torch.equal(drawn, image.clamp(-1, 1))
    expected = stack.maps(drawn, ws)
    assert len(maps) == len(expected)
    assert all(torch.equal(one, two) for one, two in zip(maps, expected, strict=True))


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


def test_generator_features_by_a_latent_encoder_are_those_of_its_latents(generator, discriminator):
    image, _ = _subjects(generator)
    encoder = LatentEncoder(1, 16, generator.num_ws, torch.zeros(8), torch.zeros(1, 16, 16), spread=1.0)
    encoder.initialise(torch.Generator().manual_seed(1))
    for head in encoder.heads:
        torch.nn.init.normal_(head.say.weight, generator=torch.Generator().manual_seed(2))
    encoder.eval()

    def latents(image):
        *_, (ws, _) = refinements(encoder, generator, image, 3)
        return ws

    stack = FeatureStack([GeneratorFeatures(generator, encoder=latents)])
    known = encode(encoder, generator, image.numpy(), perceptual=DiscriminatorDistance(discriminator))
    other = torch.from_numpy(np.array(known.ws))
    assert other.std() > 0.01
    maps = stack.maps(image)
    for a, b in zip(maps, GeneratorFeatures(generator).maps(image, other), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
        assert not a.requires_grad
    found = channel_statistics(stack, image, None, batch_size=2)
    assert len(found.mean) == sum(m.shape[1] for m in maps)


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


def test_encoder_features_are_its_blocks(encoder):
    image = torch.rand(3, 1, 16, 16) * 2 - 1
    maps = EncoderFeatures(encoder).maps(image, None)
    assert [m.shape[2] for m in maps] == [8, 4]
    with torch.no_grad():
        for a, b in zip(maps, encoder.features(image), strict=True):
            assert torch.equal(a, b.tensor)
    with pytest.raises(ShapeError, match="images of another size"):
        EncoderFeatures(encoder).maps(torch.zeros(1, 1, 32, 32), None)


def test_unet_features_are_its_levels(unet):
    image = torch.rand(3, 1, 16, 24) * 2 - 1
    maps = UNetFeatures(unet).maps(image, None)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 24), (16, 8, 12), (32, 4, 6)]
    with torch.no_grad():
        for a, b in zip(maps, unet.levels(image), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(ShapeError, match="cannot halve"):
        UNetFeatures(unet).maps(torch.zeros(1, 1, 18, 16), None)


def test_every_source_is_frozen_whatever_mode_its_network_is_in(generator, discriminator, encoder, unet):
    image, ws = _subjects(generator)
    image.requires_grad_()
    for network in (encoder, unet):
        network.train()
    sources = [
        GeneratorFeatures(generator),
        DiscriminatorFeatures(discriminator),
        EncoderFeatures(encoder),
        UNetFeatures(unet),
    ]
    for source in sources:
        assert not any(m.requires_grad for m in source.maps(image, ws))
    assert encoder.training
    assert unet.down[0].training
    assert not generator.training


def test_a_network_that_is_looked_at_gets_its_modes_back():
    network = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    network[1].eval()
    with looking(network):
        assert not any(part.training for part in network.modules())
        assert torch.equal(network(torch.ones(9)), torch.ones(9))
    assert [part.training for part in network.modules()] == [True, True, False]


def _dice(stack, phantom, folder):
    """Mean Dice of an MLP head, which sees single pixels of the features, on the six slices it never saw."""
    images, masks = phantom
    head = fit_head(
        stack,
        Shots(images[:6], masks[:6]),
        Run.open(folder).step("head"),
        classes=4,
        statistics=channel_statistics(stack, torch.from_numpy(images), None),
        images=320,
        seed=0,
        fabric=launch(threads=1),
        kind="mlp",
        width=64,
        batch_size=3,
        dice_weight=0.5,
    )
    said, truth = predict_head([head], stack, images[6:]).argmax(axis=1), masks[6:]
    both = [((said == c) & (truth == c)).sum() / ((said == c).sum() + (truth == c).sum()) for c in (1, 2, 3)]
    return 2 * float(np.mean(both))


def test_a_head_learns_the_phantom_from_each_source_and_not_from_the_pixel_alone(
    encoder, unet, phantom, tmp_path
):
    assert _dice(FeatureStack([EncoderFeatures(encoder)]), phantom, tmp_path / "encoder") > 0.6
    assert _dice(FeatureStack([UNetFeatures(unet)]), phantom, tmp_path / "unet") > 0.45
    assert _dice(FeatureStack([ImageFeatures()]), phantom, tmp_path / "image") < 0.2


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


def test_statistics_are_those_of_all_pixels(generator, discriminator, encoder, unet):
    image, ws = _subjects(generator, 5)
    sources = [GeneratorFeatures(generator), DiscriminatorFeatures(discriminator), EncoderFeatures(encoder)]
    stack = FeatureStack([*sources, UNetFeatures(unet), ImageFeatures()])
    found = channel_statistics(stack, image, ws, batch_size=2)
    flat = [m.movedim(1, 0).flatten(1) for m in stack.maps(image, ws)]
    assert torch.allclose(found.mean, torch.cat([f.mean(dim=1) for f in flat]), atol=1e-5)
    assert torch.allclose(found.deviation, torch.cat([f.std(dim=1, correction=0) for f in flat]), atol=1e-5)


def test_sampled_statistics_follow_from_the_seed(generator, encoder):
    stack = FeatureStack([GeneratorFeatures(generator), EncoderFeatures(encoder)])
    one, two, other = (sampled_statistics(stack, generator, samples=20, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.mean, two.mean)
    assert not torch.equal(one.mean, other.mean)
