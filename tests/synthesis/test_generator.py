"""A generator trained from scratch: resumes to the same weights, and refuses sets it cannot learn from."""

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.core.run import Run
from fewmask.core.seed import stream
from fewmask.synthesis.generator import GeneratorDesign, train_generator
from fewmask.training.launch import launch

DESIGN = GeneratorDesign(channel_base=64, channel_max=4, latent=8, mapping_layers=1, batch=4, r1_every=2)


def slices(count: int = 20, size: int = 16) -> np.ndarray:
    return stream(0, "slices").uniform(-1, 1, (count, 1, size, size)).astype(np.float16)


def test_the_same_call_gives_and_keeps_the_same_generator(tmp_path):
    def train(folder: str):
        step = Run.open(tmp_path / folder).step("gan")
        return train_generator(slices(), DESIGN, step, total=16, seed=1, fabric=launch(threads=1))

    first, again, other = train("a"), train("a"), train("b")
    for one, two, three in zip(
        first.generator.parameters(), again.generator.parameters(), other.generator.parameters(), strict=True
    ):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    assert first.fitted.images_seen == again.fitted.images_seen == 16
    assert not any(p.requires_grad for p in first.discriminator.parameters())


def test_too_few_slices_are_refused(tmp_path):
    step = Run.open(tmp_path).step("gan")
    with pytest.raises(ConfigError, match="too few slices"):
        train_generator(slices(5), DESIGN, step, total=16, seed=1, fabric=launch(threads=1))


def test_slices_must_be_square(tmp_path):
    step = Run.open(tmp_path).step("gan")
    with pytest.raises(ConfigError, match="square"):
        train_generator(slices()[:, :, :8], DESIGN, step, total=16, seed=1, fabric=launch(threads=1))
