import json

import numpy as np
import pytest
import torch
from torch import nn

from fewmask.segmenter.windows import gaussian, slide, starts


def test_gaussian_equals_nnunets(parity_folder):
    path = parity_folder / "nnunet_gaussian.npz"
    if not path.is_file():
        pytest.skip("no nnunet_gaussian.npz")
    found = 0
    with np.load(path) as arrays:
        for name in arrays.files:
            if name.startswith("out/"):
                patch = tuple(int(n) for n in name.removeprefix("out/").split("x"))
                np.testing.assert_allclose(gaussian(patch), arrays[name], rtol=1e-5, atol=1e-9)
                found += 1
    assert found


def test_starts_equal_nnunets(parity_folder):
    path = parity_folder / "nnunet_rules.json"
    if not path.is_file():
        pytest.skip("no nnunet_rules.json")
    for rule in json.loads(path.read_text())["steps"]:
        ends = zip(rule["image"], rule["tile"], strict=True)
        assert [starts(size, tile, rule["step"]) for size, tile in ends] == rule["steps"]


def test_gaussian_is_one_in_the_middle_and_never_zero():
    weights = gaussian((16, 8, 8))
    assert weights[8, 4, 4] == 1
    assert weights.min() > 0
    assert weights.dtype == np.float32


@pytest.mark.parametrize(("size", "patch"), [((40, 23), (16, 16)), ((19, 16, 9), (8, 8, 8))])
def test_windows_of_a_pointwise_network_equal_the_whole_image(size, patch):
    convolution = nn.Conv2d if len(size) == 2 else nn.Conv3d
    torch.manual_seed(0)
    network = convolution(2, 3, 1)
    image = torch.randn(3, 2, *size)
    whole = torch.softmax(network(image), dim=1)
    answer = slide(network, image, patch, classes=3, batch=4)
    torch.testing.assert_close(answer, whole, rtol=1e-5, atol=1e-6)


def test_windows_agree_with_a_translation_equivariant_network_away_from_borders():
    torch.manual_seed(0)
    network = nn.Conv2d(1, 2, 3, padding=1, padding_mode="replicate")
    image = torch.randn(1, 1, 30, 30)
    whole = torch.softmax(network(image), dim=1)
    answer = slide(network, image, (16, 16), classes=2)
    assert (answer - whole).abs().mean() < 0.01


def test_the_network_sees_only_patches_black_padded():
    seen = []

    class Spy(nn.Module):
        def forward(self, image):
            seen.append(image)
            return torch.cat([image, -image], dim=1)

    answer = slide(Spy(), torch.zeros(5, 1, 6, 20), (8, 8), classes=2, batch=2)
    assert answer.shape == (5, 2, 6, 20)
    assert {tuple(image.shape[1:]) for image in seen} == {(1, 8, 8)}
    assert max(len(image) for image in seen) == 2
    assert (seen[0][:, :, [0, -1]] == -1).all()
    assert (seen[0][:, :, 1:-1] == 0).all()


def test_an_image_of_one_window_is_given_as_it_is():
    torch.manual_seed(0)
    network = nn.Conv2d(1, 2, 3, padding=1)
    image = torch.randn(3, 1, 8, 8)
    answer = slide(network, image, (8, 8), classes=2, batch=2)
    torch.testing.assert_close(answer, torch.softmax(network(image), dim=1))
