"""Where a training of a generator starts: from chance, or from networks that were trained before."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from fewmask.core.errors import ConfigError
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.stylegan2 import Discriminator

SHOWN = 12
"""So many differences are listed."""


@dataclass(frozen=True, eq=False)
class Start:
    """Trained networks to start from; without a discriminator that one starts from chance."""

    generator: ImageGenerator
    discriminator: Discriminator | None = None


def copy_start(start: Start, generator: ImageGenerator, discriminator: Discriminator) -> str:
    """Copy the weights of `start` into networks of the same architecture; returns a short hash of them.

    Raises:
        ConfigError: another architecture, with all that differs.
    """
    pairs: list[tuple[str, nn.Module, nn.Module]] = [("generator", start.generator, generator)]
    if start.discriminator is not None:
        pairs.append(("discriminator", start.discriminator, discriminator))
    differing = [line for name, theirs, ours in pairs for line in _differences(name, theirs, ours)]
    if differing:
        more = [f"and {len(differing) - SHOWN} more"] if len(differing) > SHOWN else []
        raise ConfigError(
            "the networks to start from are of another architecture",
            where="start",
            found="; ".join([*differing[:SHOWN], *more]),
            expected="the same kind, resolution, channels, classes, latents and widths as the design",
            mend="Set the design to the checkpoint's sizes, or choose another checkpoint.",
        )
    digest = hashlib.sha256()
    for name, theirs, ours in pairs:
        state = theirs.state_dict()
        ours.load_state_dict(state)
        for key, value in state.items():
            digest.update(f"{name}.{key}".encode() + _bytes(value))
    return digest.hexdigest()[:16]


def _differences(name: str, theirs: nn.Module, ours: nn.Module) -> list[str]:
    if type(theirs) is not type(ours):
        return [f"{name}: {type(theirs).__module__} instead of {type(ours).__module__}"]
    numbers = ("resolution", "channels", "classes", "z_dim", "w_dim", "num_ws")
    found = [
        f"{name}.{number}: {getattr(theirs, number)} instead of {getattr(ours, number)}"
        for number in numbers
        if getattr(theirs, number, None) != getattr(ours, number, None)
    ]
    return found or _differing_shapes(name, theirs.state_dict(), ours.state_dict())


def _differing_shapes(name: str, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    found = []
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if key not in ours:
            found.append(f"{name}.{key}: not in the design")
        elif key not in theirs:
            found.append(f"{name}.{key}: not in the checkpoint")
        elif theirs[key].shape != ours[key].shape:
            found.append(f"{name}.{key}: {tuple(theirs[key].shape)} instead of {tuple(ours[key].shape)}")
    return found


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().numpy().tobytes()
