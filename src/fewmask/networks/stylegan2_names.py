"""The published names of StyleGAN2's weights (the ADA code base's state dictionaries) and ours."""

import re
from collections.abc import Mapping

from torch import Tensor

# (published, ours), tried in order; what matches none keeps its name. Filters are constants here.
GENERATOR_NAMES = (
    (r"^synthesis\.b4\.const$", "synthesis.const"),
    (r"^synthesis\.b(\d+)\.torgb\.", r"synthesis.blocks.{index}.to_image."),
    (r"^synthesis\.b(\d+)\.", r"synthesis.blocks.{index}."),
    (r"^mapping\.fc(\d+)\.", r"mapping.layers.\1."),
    (r"^fc(\d+)\.", r"layers.\1."),
)
DISCRIMINATOR_NAMES = (
    (r"^b\d+\.fromrgb\.", "from_image."),
    (r"^b4\.conv\.", "conv."),
    (r"^b4\.fc\.", "hidden."),
    (r"^b4\.out\.", "out."),
    (r"^b(\d+)\.", "blocks.{index}."),
    (r"^mapping\.fc(\d+)\.", r"mapping.layers.\1."),
)


def generator_name(published: str) -> str | None:
    """Our name of a published generator's (or mapping network's) array; None for a filter."""
    size = re.match(r"^synthesis\.b(\d+)\.", published)
    return _rename(published, GENERATOR_NAMES, int(size[1]).bit_length() - 3 if size else 0)


def discriminator_name(published: str, resolution: int) -> str | None:
    """Our name of an array of a published discriminator for images of `resolution` px; None for a filter."""
    size = re.match(r"^b(\d+)\.", published)
    return _rename(
        published, DISCRIMINATOR_NAMES, (resolution // int(size[1])).bit_length() - 1 if size else 0
    )


def from_published_generator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published generator's (or mapping network's) state, renamed for `load_state_dict`."""
    return {ours: value for name, value in state.items() if (ours := generator_name(name))}


def from_published_discriminator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published discriminator's state, renamed for `Discriminator.load_state_dict`."""
    resolution = max(int(found[1]) for name in state if (found := re.match(r"^b(\d+)\.", name)))
    return {ours: value for name, value in state.items() if (ours := discriminator_name(name, resolution))}


def _rename(name: str, rules: tuple[tuple[str, str], ...], index: int) -> str | None:
    if name.endswith("resample_filter"):
        return None
    for pattern, ours in rules:
        new, hits = re.subn(pattern, ours.replace("{index}", str(index)), name)
        if hits:
            return new
    return name
