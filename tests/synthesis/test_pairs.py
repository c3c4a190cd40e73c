"""Pair n is the same whenever it is drawn; its mask is the members' vote."""

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.core.seed import integer
from fewmask.networks.pixelhead import PixelHead
from fewmask.networks.stylegan2 import Generator
from fewmask.synthesis.features import FeatureStack, GeneratorFeatures
from fewmask.synthesis.pairs import (
    PairMaker,
    class_centres,
    image_score,
    numbered_label,
    numbered_styles,
    vote,
)
from fewmask.synthesis.pixelhead import disagreement, member_probabilities, uncertainty


def same(a, b):
    arrays = ("image", "mask", "soft", "uncertain")
    return a.score == b.score and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays)


def test_a_pair_is_fixed_by_seed_and_number(maker, generator):
    first, second = maker(0), maker(7)
    assert same(maker(7), second)
    assert not np.array_equal(first.image, second.image)
    other = PairMaker(generator, maker.heads, maker.stack, seed=4)
    assert not np.array_equal(other(7).image, second.image)
    assert first.image.shape == (1, 16, 16)
    assert first.image.dtype == np.float32
    assert np.abs(first.image).max() <= 1
    assert first.mask.dtype == np.uint8
    assert np.allclose(first.soft.sum(axis=0), 1, atol=1e-2)


def test_a_pair_holds_what_the_ensemble_says_of_the_truncated_image(maker, generator):
    pair = maker(3)
    latent = torch.randn(1, 8, generator=torch.Generator().manual_seed(integer(3, "pairs", 3)))
    ws = generator.mapping(latent, truncation=0.7)
    image = generator.synthesis(ws, noise="constant").clamp(-1, 1)
    each = member_probabilities(maker.heads, maker.stack, image, ws)
    assert len(each) == 5
    assert np.array_equal(pair.image, image[0])
    assert np.array_equal(pair.mask, vote(each)[0])
    assert np.allclose(pair.soft, each.mean(dim=0)[0], atol=1e-3)
    unsure = disagreement(each)
    assert np.allclose(pair.uncertain, unsure[0], atol=1e-6)
    worst = np.sort(unsure.numpy().ravel())[-25:]
    assert pair.score == pytest.approx(worst.mean(), rel=1e-5)
    assert pair.score > unsure.mean()


def test_one_pass_of_the_generator_gives_image_and_features(maker, generator, monkeypatch):
    before, passes, trace = maker(3), [], generator.synthesis.trace

    def counted(ws, noise):
        passes.append(noise)
        return trace(ws, noise)

    monkeypatch.setattr(generator.synthesis, "trace", counted)
    assert same(maker(3), before)
    assert passes == ["constant"]


def test_class_weights_are_undone_before_the_vote(maker, generator):
    pair = PairMaker(generator, maker.heads, maker.stack, seed=3, class_weights=(1, 1, 50.0))(3)
    assert (pair.mask == 2).sum() < (maker(3).mask == 2).sum()


def test_ties_go_to_the_more_probable_class():
    def one(*rows):
        return torch.tensor(rows).view(len(rows), 1, -1, 1, 1)

    assert vote(one([0.6, 0.4, 0.0], [0.1, 0.9, 0.0])).item() == 1
    assert vote(one([0.9, 0.1, 0.0], [0.4, 0.6, 0.0])).item() == 0
    # two votes stand against the mean probability, which favours class 2
    assert vote(one([0.51, 0.0, 0.49], [0.51, 0.0, 0.49], [0.0, 0.0, 1.0])).item() == 0
    # class 1 has no vote; its mean would win
    assert vote(one([0.52, 0.48, 0.0], [0.0, 0.49, 0.51])).item() == 0


def test_a_single_member_is_as_unsure_as_its_entropy():
    each = torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]).view(1, 1, 2, 1, 2)
    assert uncertainty(each).flatten().tolist() == pytest.approx([1, 0])


def test_the_score_looks_at_the_worst_tenth():
    unsure = torch.zeros(2, 5, 10)
    unsure[1, 0, :5] = torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0])
    assert image_score(unsure).tolist() == pytest.approx([0, 0.6])
    assert image_score(torch.full((1, 2, 2), 0.3)).item() == pytest.approx(0.3)


def test_a_generator_with_classes_gets_a_row_of_the_labels():
    network = Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=1, classes=2).eval()
    stack = FeatureStack([GeneratorFeatures(network)])
    image, ws = torch.zeros(1, 1, 16, 16), torch.zeros(1, network.num_ws, 8)
    head = PixelHead(stack.channels(image, ws), 3, kind="mlp", width=8).eval()
    with pytest.raises(ConfigError, match="labels"):
        PairMaker(network, [head], stack, seed=0)
    rows = torch.eye(2)
    either = [PairMaker(network, [head], stack, seed=0, labels=rows[n : n + 1])(1).image for n in (0, 1)]
    found = PairMaker(network, [head], stack, seed=0, labels=rows)(1).image
    assert sum(np.array_equal(found, one) for one in either) == 1


def test_each_number_is_drawn_with_its_own_label_and_pulled_to_its_own_class():
    torch.manual_seed(0)
    network = Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=1, classes=2).eval()
    rows, centres = torch.eye(2), class_centres(network)
    assert centres.shape == (2, 8)
    assert (centres[0] - centres[1]).abs().max() > 1e-3
    how = {"truncated_layers": None, "centres": centres}
    with torch.no_grad():
        found = [numbered_styles(network, 3, n, truncation=0.5, labels=rows, **how) for n in range(8)]
        whole = [numbered_styles(network, 3, n, truncation=1.0, labels=rows, **how) for n in range(8)]
        points = [numbered_styles(network, 3, n, truncation=0.0, labels=rows, **how) for n in range(8)]
    chosen = [int(numbered_label(rows, 3, n).argmax()) for n in range(8)]
    assert set(chosen) == {0, 1}
    for n, row in enumerate(chosen):
        torch.testing.assert_close(points[n][0, 0], centres[row])
        torch.testing.assert_close(found[n], (whole[n] + points[n]) / 2)
    plain = Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=1).eval()
    assert class_centres(plain) is None


def test_senseless_settings_are_refused(maker, generator):
    with pytest.raises(ConfigError, match="truncation"):
        PairMaker(generator, maker.heads, maker.stack, seed=0, truncation=1.5)
    with pytest.raises(ConfigError, match="head"):
        PairMaker(generator, [], maker.stack, seed=0)
    with pytest.raises(ConfigError, match="labels"):
        PairMaker(generator, maker.heads, maker.stack, seed=0, labels=torch.eye(2))
