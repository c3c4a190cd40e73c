"""Published generators and discriminators as ours: settings, weights, and another number of channels.

A checkpoint is read by `data.pickled`, which runs nothing of it; what is kept is safetensors and JSON.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import DataError
from fewmask.data.pickled import PickledObject, read_pickled
from fewmask.networks import stylegan2_names, stylegan3, stylegan3_names
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.synthesis.design import build_discriminator, build_generator
from fewmask.synthesis.keep import PUBLISHED_INTENSITY, KeptGenerator, filled, write_generator
from fewmask.synthesis.published_settings import Kind, discriminator_settings, generator_settings

Arrays = Mapping[str, NDArray[Any]]
"""A published state dictionary, by the published names."""

LR_MULTIPLIER = 0.01
"""Of our mapping networks."""


def import_published(path: Path, folder: Path, *, channels: int | None = None) -> KeptGenerator:
    """Read a published checkpoint (.pkl), adapt its channels, and keep it in `folder`; see `read_published`.

    Raises:
        DataError: see `read_published`.
        RunError: the folder cannot be written to.
    """
    kept = read_published(path, channels=channels)
    write_generator(folder, kept)
    return kept


def read_published(path: Path, *, channels: int | None = None) -> KeptGenerator:
    """The averaged generator (G_ema) and the discriminator of a published checkpoint.

    Args:
        path: the .pkl of StyleGAN2-ADA or StyleGAN3 (PyTorch).
        channels: of the images; None keeps them. See `adapt_generator` for the rule.

    Raises:
        DataError: a file that asks for more than values, one of another kind, or a network that ours cannot
            follow.
    """
    snapshot = read_pickled(path)
    if not isinstance(snapshot, dict) or not isinstance(snapshot.get("G_ema"), PickledObject):
        found = (
            ", ".join(map(str, list(snapshot)[:8])) if isinstance(snapshot, dict) else type(snapshot).__name__
        )
        raise DataError(
            "this is no published snapshot of StyleGAN2-ADA or StyleGAN3",
            where=str(path),
            found=found,
            expected="a dictionary with G_ema, and mostly G and D",
            mend="Choose a .pkl of those code bases (PyTorch); one of the TensorFlow version has to be "
            "converted by its own program first.",
        )
    network, where = snapshot["G_ema"], f"{path}, G_ema"
    state, arguments = arrays_of(network, "Generator", where), arguments_of(network, where)
    settings = generator_settings(arguments, kind_of(state, where), where, clamp=clamp_of(network))
    generator = generator_from(arguments, state, where, clamp=clamp_of(network))
    critic, critic_settings = None, None
    if isinstance(snapshot.get("D"), PickledObject):
        network, where = snapshot["D"], f"{path}, D"
        state, arguments = arrays_of(network, "Discriminator", where), arguments_of(network, where)
        critic_settings = discriminator_settings(arguments, where, clamp=clamp_of(network))
        critic = discriminator_from(arguments, state, where, clamp=clamp_of(network))
    told: dict[str, Any] = {
        "from": "published checkpoint",
        "file": path.name,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "network": "G_ema",
        "intensity": PUBLISHED_INTENSITY,
    }
    kept = KeptGenerator(settings, generator, critic_settings, critic, told)
    return kept if channels in (None, generator.channels) else with_channels(kept, int(channels or 0))


# --- networks from published arguments and arrays -----------------------------------------------------------


def kind_of(state: Arrays, where: str) -> Kind:
    """Which generator a published state belongs to, by the layers it has."""
    if "synthesis.input.freqs" in state:
        return "stylegan3"
    if "synthesis.b4.const" in state:
        return "stylegan2"
    raise _other_network(state, where, "synthesis.b4.const (StyleGAN2) or synthesis.input.freqs (StyleGAN3)")


def generator_from(
    arguments: Mapping[str, Any], state: Arrays, where: str, *, clamp: float | None = 256.0
) -> ImageGenerator:
    """Our generator from a published one's constructor arguments and state.

    clamp: the limit of the activations where the arguments tell none.

    Raises:
        DataError: a setting that ours cannot follow, or a state that does not fit the arguments.
    """
    kind = kind_of(state, where)
    settings = generator_settings(arguments, kind, where, clamp=clamp)
    published = _tensors(state, where)
    _scale_mapping(published, arguments)
    if kind == "stylegan2":
        _refuse_other_filters(published, where)
        ours = stylegan2_names.from_published_generator(published)
        if {**arguments, **(arguments.get("synthesis_kwargs") or {})}.get("use_noise") is False:
            ours.update(_no_noise(settings))
    else:
        ours = stylegan3_names.from_published_generator(published)
    generator = filled(build_generator, settings, ours, where)
    if isinstance(generator, stylegan3.Generator):
        _refuse_other_design(generator, published, where)
    return generator


def discriminator_from(
    arguments: Mapping[str, Any], state: Arrays, where: str, *, clamp: float | None = 256.0
) -> Discriminator:
    """Our discriminator from a published one's constructor arguments and state; see `generator_from`."""
    settings = discriminator_settings(arguments, where, clamp=clamp)
    published = _tensors(state, where)
    sizes = {found[1] for name in state if (found := re.match(r"b(\d+)\.", name))}
    if not sizes or not sizes <= {str(2**n) for n in range(2, 11)}:
        raise _other_network(state, where, "blocks b4 to b1024")
    _scale_mapping(published, arguments)
    _refuse_other_filters(published, where)
    ours = stylegan2_names.from_published_discriminator(published)
    return filled(build_discriminator, settings, ours, where)


def _tensors(state: Arrays, where: str) -> dict[str, Tensor]:
    if any(not re.fullmatch(r"[\w.]{1,100}", name) for name in state):
        raise _other_network(state, where, "names of layers")
    return {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in state.items()}


def _other_network(state: Arrays, where: str, expected: str) -> DataError:
    return DataError(
        "this is the state of another network",
        where=where,
        found=", ".join(name[:60] for name in list(state)[:3]),
        expected=expected,
    )


def _scale_mapping(state: dict[str, Tensor], arguments: Mapping[str, Any]) -> None:
    """Weights for our learning-rate multiplier: what counts is weight times multiplier."""
    factor = (arguments.get("mapping_kwargs") or {}).get("lr_multiplier", LR_MULTIPLIER) / LR_MULTIPLIER
    for name in state:
        if factor != 1 and re.match(r"(mapping\.)?fc\d+\.", name):
            state[name] = state[name] * factor


def _no_noise(settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Noise of strength 0, for a network that has none."""
    with torch.random.fork_rng(devices=[]):
        state = build_generator(settings).state_dict()
    return {name: torch.zeros_like(value) for name, value in state.items() if ".noise_" in name}


def _refuse_other_filters(state: Mapping[str, Tensor], where: str) -> None:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for name, value in state.items():
        if name.endswith("resample_filter") and (
            value.shape != (4, 4) or not torch.allclose(value, torch.outer(taps, taps), atol=1e-6)
        ):
            raise DataError("resamples with another filter", where=where, found=name, expected="[1, 3, 3, 1]")


def _refuse_other_design(generator: stylegan3.Generator, state: Mapping[str, Tensor], where: str) -> None:
    """The filters are designed from the settings; those of the file must be the same."""
    for name, value in state.items():
        found = re.match(r"synthesis\.L(\d+)_\d+_\d+\.(up_filter|down_filter)$", name)
        if not found:
            continue
        layer = dict(generator.synthesis.named_modules()).get(f"layers.{found[1]}.activation")
        ours = getattr(layer, found[2], None)
        if ours is None or ours.shape != value.shape or not torch.allclose(ours, value, atol=1e-5):
            raise DataError(
                "a filter differs from the one that the settings describe", where=where, found=name
            )


# --- published objects --------------------------------------------------------------------------------------


def arguments_of(network: PickledObject, where: str) -> dict[str, Any]:
    """The arguments that a published network was made with."""
    names = ["z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"]
    if network.class_name == "Discriminator":
        names = ["c_dim", "img_resolution", "img_channels"]
    given, named = network.state.get("_init_args", ()), network.state.get("_init_kwargs")
    if not isinstance(given, tuple | list) or len(given) > len(names) or not isinstance(named, dict):
        raise DataError("does not tell how it was made", where=where, expected="_init_args and _init_kwargs")
    return {**dict(zip(names, given, strict=False)), **named}


def arrays_of(network: PickledObject, class_name: str, where: str) -> dict[str, NDArray[Any]]:
    """The parameters and buffers of a published network and all its parts, by their dotted names."""
    if network.class_name != class_name:
        raise DataError(
            "is another network", where=where, found=f"class {network.class_name!r}", expected=class_name
        )
    found: dict[str, NDArray[Any]] = {}

    def visit(part: PickledObject, prefix: str) -> None:
        passing = part.state.get("_non_persistent_buffers_set") or ()
        for field in ("_parameters", "_buffers", "_modules"):
            values = part.state.get(field, {})
            for name, value in values.items() if isinstance(values, dict) else ():
                if isinstance(value, PickledObject):
                    visit(value, f"{prefix}{name}.")
                elif isinstance(value, np.ndarray) and name not in passing:
                    found[f"{prefix}{name}"] = value

    visit(network, "")
    return found


def clamp_of(network: PickledObject) -> float | None:
    """The limit of the activations that the layers of a published network carry; 256 if none tells.

    The code base of StyleGAN2-ADA has no limit by default, that of StyleGAN3 has 256.
    """
    todo = [network]
    while todo:
        part = todo.pop(0)
        if "conv_clamp" in part.state:
            limit = part.state["conv_clamp"]
            return float(limit) if isinstance(limit, int | float) else None
        modules = part.state.get("_modules", {})
        todo += [value for value in modules.values() if isinstance(value, PickledObject)]
    return 256.0


# --- another number of channels -----------------------------------------------------------------------------


def with_channels(kept: KeptGenerator, channels: int) -> KeptGenerator:
    """A generator and its discriminator for images of another number of channels.

    The rule: the one grey channel is the mean of the channels, and grey becomes n channels by repetition;
    from n to m channels goes over grey. So the new generator draws the mean of what the old one drew (where
    no limit of the activations is reached), and the new discriminator judges a grey picture as the old one
    judged it repeated.

    Raises:
        DataError: `channels` is below 1.
    """
    if channels < 1:
        raise DataError(
            "there is no image without channels",
            where="channels",
            found=str(channels),
            expected="1 or more",
            mend="Give the channels of your slices, e.g. --channels 1; without it they stay as they are.",
        )
    before = kept.generator.channels
    state = adapt_generator(kept.generator.state_dict(), channels)
    settings = {**kept.settings, "channels": channels}
    generator = filled(build_generator, settings, state, "channels")
    told = {
        **kept.told,
        "channels": {"before": before, "now": channels, "rule": "grey is the mean of channels"},
    }
    if kept.discriminator is None or kept.discriminator_settings is None:
        return KeptGenerator(settings, generator, told=told)
    critic_settings = {**kept.discriminator_settings, "channels": channels}
    state = adapt_discriminator(kept.discriminator.state_dict(), channels)
    critic = filled(build_discriminator, critic_settings, state, "channels")
    return KeptGenerator(settings, generator, critic_settings, critic, told)


def adapt_generator(state: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """A generator's state for another number of channels: what leads to the image, averaged, repeated."""
    last = max(
        (int(found[1]) for name in state if (found := re.match(r"synthesis\.layers\.(\d+)\.", name))),
        default=-1,
    )
    to_image = re.compile(rf"synthesis\.(blocks\.\d+\.to_image|layers\.{last})\.(weight|bias)")
    return {
        name: value.mean(dim=0, keepdim=True).repeat_interleave(channels, dim=0)
        if to_image.fullmatch(name)
        else value
        for name, value in state.items()
    }


def adapt_discriminator(state: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """A discriminator's state for another number of channels: the weights from the image, summed, divided.

    Our layers divide by the root of their channels (equalised learning rate), which is undone and done again.
    """
    weight = state["from_image.weight"]
    grey = weight.sum(dim=1, keepdim=True) / math.sqrt(weight.shape[1])
    adapted = grey.repeat(1, channels, 1, 1) / channels * math.sqrt(channels)
    return {**state, "from_image.weight": adapted}
