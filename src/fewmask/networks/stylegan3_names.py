"""The published names of StyleGAN3's weights and ours: one table for the whole network."""

import re
from collections.abc import Mapping

from torch import Tensor

# (published, ours), tried in order; what matches none keeps its name.
GENERATOR_NAMES = (
    (r"^synthesis\.L(\d+)_\d+_\d+\.", r"synthesis.layers.\1."),
    (r"^mapping\.fc(\d+)\.", r"mapping.layers.\1."),
    (r"^fc(\d+)\.", r"layers.\1."),
)


def generator_name(published: str) -> str | None:
    """Our name of a published generator's (or mapping network's) array; None for a filter, designed here."""
    if published.endswith(("up_filter", "down_filter")):
        return None
    for pattern, ours in GENERATOR_NAMES:
        new, hits = re.subn(pattern, ours, published)
        if hits:
            return new
    return published


def from_published_generator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published generator's (or mapping network's) state, renamed for `load_state_dict`."""
    return {ours: value for name, value in state.items() if (ours := generator_name(name))}
