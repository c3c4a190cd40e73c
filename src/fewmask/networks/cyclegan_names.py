"""The published names of the weights of CycleGAN and pix2pix, and ours.

Published layers are numbered by their place in a list. Biases of convolutions before instance norm are left
out: they change nothing.
"""

import re
from collections.abc import Mapping

from torch import Tensor


def from_published_generator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published residual generator's state, renamed for `ResNetGenerator.load_state_dict`."""
    blocks = len({name.split(".")[1] for name in state if ".conv_block." in name})
    places = {1: "stem", 4: "down.0", 7: "down.1", 10 + blocks: "up.0", 13 + blocks: "up.1"}
    places[17 + blocks] = "last"
    renamed = {}
    for name, value in state.items():
        block = re.fullmatch(r"model\.(\d+)\.conv_block\.(\d+)\.weight", name)
        plain = re.fullmatch(r"model\.(\d+)\.(weight|bias)", name)
        if block:  # the second convolution is 5, or 6 behind a dropout
            renamed[f"blocks.{int(block[1]) - 10}.{'first' if block[2] == '1' else 'second'}.weight"] = value
        elif plain and (plain[2] == "weight" or places[int(plain[1])] == "last"):
            renamed[f"{places[int(plain[1])]}.{plain[2]}"] = value
    return renamed


def from_published_discriminator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published PatchGAN's state, with either norm, renamed for `PatchDiscriminator.load_state_dict`."""
    last = max(int(name.split(".")[1]) for name in state)
    renamed = {}
    for name, value in state.items():
        _, number, field = name.split(".")
        place = int(number)
        if place in (0, last):
            renamed[f"{'last' if place else 'first'}.{field}"] = value
        elif place % 3 == 0:
            renamed[f"norms.{place // 3 - 1}.{field}"] = value
        elif field == "weight":
            renamed[f"inner.{(place - 2) // 3}.{field}"] = value
    return renamed


def from_published_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published U-Net's state, nested level in level, renamed for `UNetGenerator.load_state_dict`."""
    found = [([int(word) for word in name.split(".") if word.isdigit()], name) for name in state]
    deepest = max(len(numbers) for numbers, _ in found) - 1
    renamed = {}
    for numbers, name in found:
        level, place = len(numbers) - 1, numbers[-1]
        slots = {1: "down", 2: "down_norms", 5: "up", 6: "up_norms"}
        if level == 0:
            slots = {0: "down", 3: "up"}
        elif level == deepest:
            slots = {1: "down", 3: "up", 4: "up_norms"}
        slot = slots[place]
        first = {"down_norms": 1, "up_norms": 1}.get(slot, 0)  # the outermost level has no norms
        renamed[f"{slot}.{level - first}.{name.rsplit('.', 1)[1]}"] = state[name]
    return renamed
