import pytest
import torch

from fewmask.networks.encoder import LatentEncoder, refinements, slope_of
from fewmask.networks.equalised import EqualLinear
from fewmask.networks.stylegan2 import Generator


def _encoder(resolution=16, channels=1, num_ws=6, w_dim=8, **how):
    centre = torch.linspace(-1, 1, w_dim)
    start = torch.full((channels, resolution, resolution), 0.5)
    how = {"spread": 2.0, "channel_max": 16, "width": 8, "hidden": 8, **how}
    encoder = LatentEncoder(channels, resolution, num_ws, centre, start, **how)
    encoder.initialise(torch.Generator().manual_seed(0))
    return encoder


def _stirred(encoder):
    """As if it had learned something."""
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in encoder.modules():
            if isinstance(layer, EqualLinear):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=chance))
    return encoder


def _images(count=3, channels=1, resolution=16):
    return torch.rand(count, channels, resolution, resolution, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("resolution", "channels", "num_ws"), [(16, 1, 6), (32, 3, 8), (128, 2, 12)])
def test_an_untrained_encoder_says_the_mean_latent(resolution, channels, num_ws):
    encoder = _encoder(resolution, channels, num_ws)
    image = _images(2, channels, resolution)
    centre = encoder.centre.expand(2, num_ws, -1)
    slope = torch.ones_like(centre)
    assert torch.equal(encoder(image, encoder.start.expand_as(image), centre, slope), centre)


def _passed(encoder, image, seen=0.0, ws=0.0, slope=0.0):
    """One pass from a reconstruction, latents off the mean, and slopes that are the same everywhere."""
    centre = encoder.centre.expand(len(image), encoder.num_ws, -1)
    return encoder(image, torch.full_like(image, seen), centre + ws, torch.full_like(centre, slope))


def test_every_layer_has_its_own_style_and_every_image_is_alone():
    encoder, image = _stirred(_encoder()), _images()
    ws = _passed(encoder, image)
    for n in range(1, 6):
        assert not torch.allclose(ws[:, n], ws[:, 0])
    assert torch.allclose(ws, torch.cat([_passed(encoder, one[None]) for one in image]), atol=1e-5)
    assert not torch.allclose(ws[0], ws[1])


def test_one_style_for_all_layers_in_w():
    encoder, image = _stirred(_encoder(shared=True)), _images()
    ws = _passed(encoder, image)
    assert torch.equal(ws, ws[:, :1].expand_as(ws))
    assert not torch.allclose(ws[0], ws[1])


def test_the_styles_of_the_frame_stay():
    encoder, image = _stirred(_encoder(frame_ws=2)), _images()
    ws = _passed(encoder, image)
    assert torch.equal(ws[:, :2], encoder.centre.expand(3, 2, -1))
    assert not torch.allclose(ws[:, 2], ws[:, 1])


def test_a_pass_sees_image_reconstruction_latents_and_slope():
    encoder, image = _stirred(_encoder()), _images()
    plain = _passed(encoder, image)
    for changed in ({"seen": 0.1}, {"slope": 0.1}):
        assert not torch.allclose(_passed(encoder, image, **changed), plain, atol=1e-3)
    assert not torch.allclose(_passed(encoder, image + 0.1, seen=0.1), plain, atol=1e-3)
    assert not torch.allclose(_passed(encoder, image, ws=0.1) - 0.1, plain, atol=1e-3)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2).eval()


@pytest.mark.parametrize("grad", [True, False])
def test_passes_start_from_the_numbers_of_the_last_one(generator, grad):
    encoder, image = _stirred(_encoder()), _images()
    with torch.set_grad_enabled(grad):
        (first, seen), (second, _) = refinements(encoder, generator, image, 2)
    assert torch.equal(seen, generator.synthesis(first, noise="constant"))
    slope = slope_of(first, seen, image)
    assert torch.equal(second, encoder(image, seen, first, slope))
    assert second.requires_grad == grad
    if grad:
        found = torch.autograd.grad(second.sum(), [first, encoder.stem.weight], allow_unused=True)
        assert found[0] is None
        assert found[1] is not None


def test_the_slope_leads_downhill_and_is_as_long_as_the_error(generator):
    image = _images()
    ws = torch.zeros(3, 6, 8, requires_grad=True)
    seen = generator.synthesis(ws, noise="constant")
    slope = slope_of(ws, seen, image)
    with torch.no_grad():
        moved = generator.synthesis(ws + 1e-3 * slope, noise="constant")
    before, after = ((x - image).square().mean(dim=(1, 2, 3)) for x in (seen, moved))
    assert (after < before).all()
    assert not slope.requires_grad
    length = slope.square().mean(dim=2).sqrt() / before.detach().sqrt()[:, None]
    assert torch.allclose(length, torch.full_like(length, 4.0), rtol=1e-3)
    met = generator.synthesis(ws, noise="constant")
    assert not slope_of(ws, met, met.detach()).any()
