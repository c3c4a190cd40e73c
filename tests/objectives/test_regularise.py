"""R1, path length, the average's half-life and the fading blur, by their equations."""

import pytest
import torch

from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.ada import AdaptiveAugmentation, apply
from fewmask.objectives.regularise import Average, FadingBlur, path_lengths, r1_penalty


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
    weight = torch.randn(1, 1, 3, 3)
    penalty = r1_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), torch.randn(5, 1, 3, 3))
    torch.testing.assert_close(penalty, weight.square().sum())


def test_r1_is_float32_where_the_rest_is_bfloat16():
    torch.manual_seed(0)
    discriminator, image = Discriminator(16, 1, channel_base=128, channel_max=16), torch.rand(4, 1, 16, 16)
    exact = r1_penalty(discriminator, image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(r1_penalty(discriminator, image), exact)


def test_path_length_of_an_orthogonal_map_is_one_on_average():
    torch.manual_seed(0)
    ws = torch.randn(512, 1, 16, requires_grad=True)
    image = ws.reshape(512, 1, 4, 4) * 1.0
    lengths = path_lengths(image, ws, torch.randn(512, 1, 4, 4))
    torch.testing.assert_close(lengths.square().mean(), torch.tensor(1.0), atol=0.1, rtol=0)


def test_the_average_forgets_early_weights():
    average = Average(half_life=1000.0, ramp=0.05)
    assert average.decay(0, 16) == 0.0
    assert average.decay(1000, 50) == pytest.approx(0.5)
    assert average.decay(10**6, 1000) == pytest.approx(0.5)


def test_without_a_ramp_the_average_is_slow_from_the_first_image():
    assert Average(half_life=1000.0, ramp=None).decay(16, 16) == pytest.approx(0.5 ** (16 / 1000))


def test_the_blur_fades_linearly():
    blur = FadingBlur(10.0, 200)
    assert [blur.at(seen) for seen in (0, 100, 200, 300)] == [10.0, 5.0, 0.0, 0.0]


def test_r1_goes_through_the_augmentation_twice_differentiably():
    weight = torch.nn.Parameter(torch.randn(1, 1, 16, 16))
    record = AdaptiveAugmentation(p=0.8).draw(3, torch.zeros(()))

    def judge(image):
        return (apply(image, record) * weight).square().sum(dim=(1, 2, 3))

    (gradient,) = torch.autograd.grad(r1_penalty(judge, torch.randn(3, 1, 16, 16)), weight)
    assert gradient.abs().sum() > 0
