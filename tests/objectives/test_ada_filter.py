"""The filter bank and the blur: published numbers, and what a filter must keep."""

import numpy as np
import torch

from fewmask.objectives.ada_filter import POWER, amplify, band_gains, blur, filter_bank


def test_parity_of_the_filter_bank(parity_folder):
    with np.load(parity_folder / "ada_augment_1ch.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(filter_bank().numpy(), file["meta/Hz_fbank"], atol=1e-6)


def test_the_bands_add_up_to_the_image():
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(amplify(image, torch.zeros(2, 4)), image)


def test_amplification_keeps_the_expected_power():
    gains = band_gains(torch.tensor([[0.0, 2.0, 0.0, 0.0]]))
    assert gains[0, 1] == 4 * gains[0, 0]
    torch.testing.assert_close((gains.square() * torch.tensor(POWER)).sum(), torch.tensor(1.0))


def test_the_blur_spreads_a_point_and_keeps_its_sum():
    image = torch.zeros(1, 2, 33, 33)
    image[:, :, 16, 16] = 1
    blurred = blur(image, 2.0)
    torch.testing.assert_close(blurred.sum(), torch.tensor(2.0))
    torch.testing.assert_close(blurred[0, 0, 16, 18] / blurred[0, 0, 16, 16], torch.tensor(0.5))
    assert blur(image, 0.3) is image
