"""Resampling by two: the filter's definition, and float32 where bfloat16 is slow."""

import pytest
import torch
import torch.nn.functional as F

from fewmask.networks.resample import Binomial

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
KERNEL = torch.outer(TAPS, TAPS)[None, None] / 64


def filtered(image):
    channels = image.shape[1]
    return F.conv2d(image, KERNEL.expand(channels, 1, 4, 4), groups=channels)


def test_down_filters_and_keeps_every_second_pixel():
    image = torch.randn(2, 3, 8, 8)
    expected = filtered(F.pad(image, (1, 1, 1, 1)))[:, :, ::2, ::2]
    torch.testing.assert_close(Binomial().down(image), expected)


def test_up_inserts_zeros_and_filters():
    image = torch.randn(2, 3, 4, 4)
    zeros = torch.zeros(2, 3, 8, 8)
    zeros[:, :, ::2, ::2] = image
    expected = 4 * filtered(F.pad(zeros, (2, 1, 2, 1)))
    torch.testing.assert_close(Binomial().up(image), expected)


def test_a_constant_keeps_its_value_away_from_the_border():
    image = torch.full((1, 1, 8, 8), 5.0)
    for result in (Binomial().down(image), Binomial().up(image), Binomial().smooth(image, padding=2)):
        assert torch.allclose(result[..., 2:-2, 2:-2], torch.tensor(5.0))


@pytest.mark.parametrize("way", ["down", "up"])
def test_strides_stay_in_float32_under_autocast(way):
    image = torch.randn(1, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        result = getattr(Binomial(), way)(image)
    assert torch.equal(result, getattr(Binomial(), way)(image))
