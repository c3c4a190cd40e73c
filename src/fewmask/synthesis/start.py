"""Where a training of a generator starts: from chance, or from networks that were trained before."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from fewmask.core.errors import ConfigError
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.semanticgan import SemanticGenerator
from fewmask.networks.stylegan2 import Discriminator, Generator

SHOWN = 12
"""So many differences are listed."""

NUMBERS = {
    "resolution": "pixels a side",
    "channels": "channels",
    "classes": "classes",
    "z_dim": "numbers in z",
    "w_dim": "numbers in w",
    "num_ws": "layers",
}
"""What is compared before the weights are, in words."""

FRESH = "mask_branch."
"""How the weights are named that a plain generator has none of: a mask branch on it starts from chance."""


@dataclass(frozen=True, eq=False)
class Start:
    """Trained networks to start from; without a discriminator that one starts from chance."""

    generator: ImageGenerator
    discriminator: Discriminator | None = None


def copy_start(start: Start, generator: ImageGenerator, discriminator: Discriminator | None) -> str:
    """Copy the weights of `start` into networks of the same architecture; returns a short hash of them.

    A plain StyleGAN2 fits one with a mask branch, which is left as it is.

    Raises:
        ConfigError: another architecture, with all that differs.
    """
    refuse_other(start, generator, discriminator)
    digest = hashlib.sha256()
    for name, theirs, ours in _pairs(start, generator, discriminator):
        state = theirs.state_dict()
        ours.load_state_dict(state, strict=not _adds_masks(theirs, ours))
        for key, value in state.items():
            digest.update(f"{name}.{key}".encode() + _bytes(value))
    return digest.hexdigest()[:16]


def refuse_other(start: Start, generator: ImageGenerator, discriminator: Discriminator | None = None) -> None:
    """A `ConfigError` with all that differs when `start` is of another architecture than the networks."""
    pairs = _pairs(start, generator, discriminator)
    differing = [line for name, theirs, ours in pairs for line in _differences(name, theirs, ours)]
    if differing:
        more = [f"and {len(differing) - SHOWN} more"] if len(differing) > SHOWN else []
        raise ConfigError(
            "the networks to start from are of another architecture",
            where="start (gan.start)",
            found="; ".join([*differing[:SHOWN], *more]),
            expected=f"networks for slices of {_described(generator)}",
            mend=_mend(start.generator, generator),
        )


def _pairs(
    start: Start, generator: ImageGenerator, discriminator: Discriminator | None
) -> list[tuple[str, nn.Module, nn.Module]]:
    """Trained networks beside ours; without the discriminator where one side has none."""
    pairs: list[tuple[str, nn.Module, nn.Module]] = [("generator", start.generator, generator)]
    if start.discriminator is not None and discriminator is not None:
        pairs.append(("discriminator", start.discriminator, discriminator))
    return pairs


def _described(network: ImageGenerator) -> str:
    """What a generator draws, in words."""
    channels = f"{network.channels} channel" + ("" if network.channels == 1 else "s")
    classes = f"{network.classes} classes" if network.classes else "no classes"
    return f"{network.resolution} x {network.resolution} pixels, {channels}, {classes}"


def _mend(theirs: ImageGenerator, ours: ImageGenerator) -> str:
    """What a user can set so that slices and checkpoint meet."""
    ways = []
    if theirs.resolution != ours.resolution:
        ways.append(f"set prepare.size=[{theirs.resolution}, {theirs.resolution}]")
    if theirs.channels != ours.channels:
        ways.append(f"take the checkpoint over by `fewmask import --channels {ours.channels}`")
    if theirs.classes != ours.classes:
        plain = "condition=null and gan.conditional=false"
        tag = f"condition to a tag of {theirs.classes} values" if theirs.classes else plain
        ways.append(f"set {tag}, the classes of the checkpoint")
    text = "; ".join([*ways, "or choose another checkpoint" if ways else "choose another checkpoint"])
    return text[0].upper() + text[1:] + "."


def _differences(name: str, theirs: nn.Module, ours: nn.Module) -> list[str]:
    fresh = _adds_masks(theirs, ours)
    if type(theirs) is not type(ours) and not fresh:
        return [f"{name}: {type(theirs).__module__} instead of {type(ours).__module__}"]
    found = [
        f"{name}: {getattr(theirs, number)} {words} instead of {getattr(ours, number)}"
        for number, words in NUMBERS.items()
        if getattr(theirs, number, None) != getattr(ours, number, None)
    ]
    wanted = {key: value for key, value in ours.state_dict().items() if not (fresh and key.startswith(FRESH))}
    return found or _differing_shapes(name, theirs.state_dict(), wanted)


def _adds_masks(theirs: nn.Module, ours: nn.Module) -> bool:
    """Whether ours is theirs with a mask branch."""
    return isinstance(ours, SemanticGenerator) and isinstance(theirs, Generator)


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
