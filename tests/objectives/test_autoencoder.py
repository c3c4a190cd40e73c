"""What an autoencoder is shown and what it is asked for."""

import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks.autoencoder import Autoencoder
from fewmask.objectives.autoencoder import AutoencoderObjective, CoarseNoise, body
from fewmask.objectives.minimise import Alone


def test_noise_is_coarse_and_as_strong_as_said():
    torch.manual_seed(0)
    noise = CoarseNoise(deviation=0.4, cell=8).draw(200, 1, 32, 40)
    assert noise.shape == (200, 1, 32, 40)
    assert abs(float(noise.mean())) < 0.02
    # between grid points a bilinear mean is calmer: (2/3)^(1/2) of the deviation along each axis at most
    assert 0.4 * 2 / 3 * 0.85 < float(noise.std()) < 0.4
    ours, right = noise[..., :-1].flatten(), noise[..., 1:].flatten()
    assert torch.corrcoef(torch.stack([ours, right]))[0, 1] > 0.9


def test_no_noise_on_air():
    image = torch.tensor([[-1.0, -0.99], [-0.97, 1.0]])[None, None]
    assert body(torch.cat([image, -torch.ones_like(image)], dim=1)).flatten().tolist() == [0, 0, 1, 1]


class Recorder(Autoencoder):
    """Keeps what it was shown."""

    def forward(self, image):
        self.shown = image.detach().clone()
        return super().forward(image)


def test_a_denoiser_is_asked_for_the_clean_image():
    torch.manual_seed(0)
    network = Recorder(1, widths=(4, 8), code=0)
    image = torch.full((2, 1, 16, 16), -1.0)
    image[..., 8:] = 0.2
    learner = AutoencoderObjective(network, images=100, noise=CoarseNoise(cell=4))
    loss = learner.update(Batch(image, None, torch.arange(2)), 0, Alone())["loss"]
    assert torch.equal(network.shown[..., :8], image[..., :8])
    assert (network.shown[..., 8:] - image[..., 8:]).std() > 0.1
    assert float(loss) > 0


@pytest.mark.parametrize("error", ["l1", "l2"])
def test_the_error_by_hand(error):
    torch.manual_seed(0)
    network, image = Autoencoder(1, widths=(4, 8), code=2), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        apart = network(image) - image
    expected = apart.abs().mean() if error == "l1" else apart.square().mean()
    learner = AutoencoderObjective(network, images=100, error=error)
    assert torch.allclose(learner.update(Batch(image, None, torch.arange(4)), 0, Alone())["loss"], expected)


def test_a_network_that_could_copy_is_refused():
    with pytest.raises(ConfigError, match="copy"):
        AutoencoderObjective(Autoencoder(1, widths=(4, 8), code=0), images=100)


def test_noise_out_of_range():
    with pytest.raises(ConfigError, match="noise is out of range"):
        CoarseNoise(deviation=0.0)
