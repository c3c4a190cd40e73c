import pytest
import torch

from fewmask.networks.encoder import LatentEncoder, refinements
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
    assert torch.equal(encoder(image, encoder.start.expand_as(image), centre), centre)


def test_every_layer_has_its_own_style_and_every_image_is_alone():
    encoder, image = _stirred(_encoder()), _images()
    centre = encoder.centre.expand(3, 6, -1)
    ws = encoder(image, torch.zeros_like(image), centre)
    for n in range(1, 6):
        assert not torch.allclose(ws[:, n], ws[:, 0])
    alone = torch.cat([encoder(image[n : n + 1], torch.zeros(1, 1, 16, 16), centre[:1]) for n in range(3)])
    assert torch.allclose(ws, alone, atol=1e-5)
    assert not torch.allclose(ws[0], ws[1])


def test_one_style_for_all_layers_in_w():
    encoder, image = _stirred(_encoder(shared=True)), _images()
    ws = encoder(image, torch.zeros_like(image), encoder.centre.expand(3, 6, -1))
    assert torch.equal(ws, ws[:, :1].expand_as(ws))
    assert not torch.allclose(ws[0], ws[1])


def test_the_styles_of_the_frame_stay():
    encoder, image = _stirred(_encoder(frame_ws=2)), _images()
    ws = encoder(image, torch.zeros_like(image), encoder.centre.expand(3, 6, -1))
    assert torch.equal(ws[:, :2], encoder.centre.expand(3, 2, -1))
    assert not torch.allclose(ws[:, 2], ws[:, 1])


def test_a_pass_sees_image_reconstruction_and_latents():
    encoder, image = _stirred(_encoder()), _images()
    seen, ws = torch.zeros_like(image), encoder.centre.expand(3, 6, -1)
    move = encoder(image, seen, ws) - ws
    assert not torch.allclose(encoder(image + 0.1, seen + 0.1, ws) - ws, move, atol=1e-3)
    assert not torch.allclose(encoder(image, seen + 0.1, ws) - ws, move, atol=1e-3)
    assert not torch.allclose(encoder(image, seen, ws + 0.1) - ws - 0.1, move, atol=1e-3)


def test_passes_start_from_the_numbers_of_the_last_one():
    generator = Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2).eval()
    encoder, image = _stirred(_encoder()), _images()
    (first, seen), (second, _) = refinements(encoder, generator, image, 2)
    assert torch.equal(seen, generator.synthesis(first, noise="constant"))
    assert torch.equal(second, encoder(image, seen, first))
    gradient = torch.autograd.grad(second.sum(), [first, encoder.stem.weight], allow_unused=True)
    assert gradient[0] is None
    assert gradient[1] is not None
