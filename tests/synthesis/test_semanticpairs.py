"""Pairs of a mask branch: fixed by their number, with a plain generator's images, and on the disk."""

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.core.seed import integer
from fewmask.networks.semanticgan import SemanticGenerator
from fewmask.synthesis.factory import make_pairs
from fewmask.synthesis.pairs import PairMaker, image_score
from fewmask.synthesis.semanticpairs import SemanticPairMaker
from fewmask.synthesis.start import Start, copy_start

SIZES = {"channel_base": 128, "channel_max": 8, "mapping_layers": 2}


def semantic(generator, channels):
    """With the fixture's images, and a mask branch of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(channels)
        ours = SemanticGenerator(8, 8, 16, 1, channels, **SIZES).eval().requires_grad_(False)
    copy_start(Start(generator), ours, None)
    return ours


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pair_is_the_branch_beside_the_image_of_its_number(channels, generator, maker):
    network = semantic(generator, channels)
    draw = SemanticPairMaker(network, seed=3, truncation=0.7)
    draw(1)
    pair, plain = draw(7), PairMaker(generator, maker.heads, maker.stack, seed=3)(7)
    assert np.array_equal(pair.image, plain.image)
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(integer(3, "pairs", 7)))
    logits = network.pair(network.mapping(z, None, 0.7), "constant")[1][0].numpy()
    wanted = logits.argmax(axis=0) if channels > 1 else logits[0] > 0
    assert wanted.mean() > 0
    assert np.array_equal(pair.mask, wanted)
    assert pair.mask.dtype == np.uint8
    two = np.concatenate([np.zeros_like(logits), logits]) / 0.3 if channels == 1 else logits / 0.1
    soft = np.exp(two - two.max(axis=0))
    soft /= soft.sum(axis=0)
    assert np.allclose(pair.soft, soft, atol=1e-3)
    entropy = -(soft * np.log(soft.clip(1e-30))).sum(axis=0) / np.log(len(soft))
    assert np.allclose(pair.uncertain, entropy, atol=1e-3)
    assert pair.score == pytest.approx(float(image_score(torch.tensor(entropy)[None])), abs=1e-3)
    assert not np.array_equal(SemanticPairMaker(network, seed=4, truncation=0.7)(7).image, pair.image)


def test_a_higher_temperature_is_less_sure_and_marks_the_same(generator):
    network = semantic(generator, 3)
    cold, warm = (SemanticPairMaker(network, 3, temperature=t)(2) for t in (None, 1.0))
    assert np.array_equal(cold.mask, warm.mask)
    assert warm.score > cold.score
    assert np.allclose(warm.soft.sum(axis=0), 1, atol=1e-2)


def test_the_factory_writes_them_and_goes_on(generator, tmp_path):
    draw = SemanticPairMaker(semantic(generator, 3), 3)
    told = {"made_from": {"seed": 3}, "classes": {"one": 1, "two": 2}}
    make_pairs(tmp_path, draw, 2, **told)
    folder = make_pairs(tmp_path, draw, 3, **told)
    assert list(folder.records()) == [0, 1, 2]
    pair = draw(2)
    assert np.array_equal(folder.mask(2), pair.mask)
    assert np.array_equal(folder.soft(2)[0], pair.soft)
    assert np.abs(folder.image(2) - pair.image).max() <= 1 / 255 + 1e-6


def test_senseless_settings_are_refused(generator):
    network = semantic(generator, 1)
    with pytest.raises(ConfigError, match="truncation"):
        SemanticPairMaker(network, 0, truncation=1.5)
    with pytest.raises(ConfigError, match="temperature"):
        SemanticPairMaker(network, 0, temperature=0.0)
    with pytest.raises(ConfigError, match="labels"):
        SemanticPairMaker(network, 0, labels=torch.eye(2))
