"""Trained networks are taken over whole, or refused with all that differs."""

import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.networks import stylegan3
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.synthesis.start import Start, copy_start

SIZE = {"channel_base": 64, "channel_max": 4}


def generator(**changed):
    return Generator(**{"z_dim": 8, "w_dim": 8, "resolution": 16, "channels": 1, **SIZE, **changed})


def test_weights_are_copied_and_hashed():
    ours, theirs = (generator(mapping_layers=1) for _ in range(2))
    judge, other = Discriminator(16, 1, **SIZE), Discriminator(16, 1, **SIZE)
    told = copy_start(Start(theirs, other), ours, judge)
    assert torch.equal(ours.synthesis.const, theirs.synthesis.const)
    assert torch.equal(judge.from_image.weight, other.from_image.weight)
    assert told == copy_start(Start(theirs, other), generator(mapping_layers=1), judge)
    assert told != copy_start(Start(theirs), ours, judge)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"resolution": 32}, "generator: 32 pixels a side instead of 16"),
        ({"channels": 3}, "generator: 3 channels instead of 1"),
        ({"channel_max": 8}, "generator.synthesis.const: (8, 4, 4) instead of (4, 4, 4)"),
        ({"mapping_layers": 2}, "not in the checkpoint"),
    ],
)
def test_another_architecture_is_refused_with_what_differs(changed, told):
    with pytest.raises(ConfigError, match="another architecture") as error:
        copy_start(Start(generator(**changed)), generator(), Discriminator(16, 1, **SIZE))
    assert told in str(error.value)


def test_another_kind_and_another_discriminator_are_refused():
    third = stylegan3.Generator(8, 8, 16, 1, num_layers=4, **SIZE)
    with pytest.raises(ConfigError, match="stylegan3 instead of"):
        copy_start(Start(third), generator(), Discriminator(16, 1, **SIZE))
    with pytest.raises(ConfigError, match=r"discriminator: 3 channels instead of 1"):
        copy_start(
            Start(generator(), Discriminator(16, 3, **SIZE)), generator(), Discriminator(16, 1, **SIZE)
        )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"resolution": 32}, "Set prepare.size=[32, 32]; or choose another checkpoint."),
        ({"channels": 3}, "Take the checkpoint over by `fewmask import --channels 1`; or choose"),
        ({"classes": 2}, "Set condition to a tag of 2 values, the classes of the checkpoint; or choose"),
        ({"channel_max": 8}, "Choose another checkpoint."),
    ],
)
def test_the_mend_is_a_word_of_the_user(changed, told):
    with pytest.raises(ConfigError) as error:
        copy_start(Start(generator(**changed)), generator(), Discriminator(16, 1, **SIZE))
    text = str(error.value)
    assert told in text
    assert "gan.start" in text
    assert "expected: networks for slices of 16 x 16 pixels, 1 channel, no classes" in text
