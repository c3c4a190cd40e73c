import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.networks.embedding import ImageEncoder


def _encoder(channels=1, resolution=32, **sizes):
    encoder = ImageEncoder(channels, resolution, dim=8, **sizes).eval()
    encoder.initialise(torch.Generator().manual_seed(3))
    return encoder


@pytest.mark.parametrize(("channels", "resolution"), [(1, 8), (3, 32), (1, 50), (2, 64)])
def test_shapes(channels, resolution):
    encoder = _encoder(channels, resolution, channel_base=128, channel_max=16)
    image = torch.rand(2, channels, resolution, resolution) * 2 - 1
    features = encoder.features(image)
    assert encoder(image).shape == (2, 8)
    assert [feature.size for feature in features] == sorted((f.size for f in features), reverse=True)
    assert all(feature.tensor.shape[2] == feature.size for feature in features)


def test_no_image_sees_another_and_weights_come_from_the_seed():
    image = torch.rand(3, 1, 32, 32) * 2 - 1
    together = _encoder()(image)
    alone = torch.cat([_encoder()(one[None]) for one in image])
    assert torch.allclose(together, alone, atol=1e-5)


def test_place_is_seen():
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoder = _encoder()
    assert (encoder(image.roll(8, dims=3)) - encoder(image)).norm() > 0.1 * encoder(image).norm()


def test_sizes_that_cannot_be():
    with pytest.raises(ConfigError, match="cannot be built"):
        ImageEncoder(1, 4)
