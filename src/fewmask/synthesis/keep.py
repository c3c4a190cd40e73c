"""Generators on the disk: safetensors and a JSON that says what they are, with checksums."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import make_folder, write_json
from fewmask.core.run import GeneratorFolder
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.synthesis.design import build_discriminator, build_generator
from fewmask.training.checkpoint import write_tensors

FORMAT = 1
_WIDTHS = ("z_dim", "w_dim", "classes", "channels", "mask_channels")
PUBLISHED_INTENSITY = "8-bit pictures 0-255 as x / 127.5 - 1"

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class KeptGenerator:
    """A generator that was kept, frozen, in evaluation mode, on the CPU.

    settings: for `design.build_generator`; discriminator_settings: for `design.build_discriminator`, None
    without a discriminator; told: where it comes from, how intensities map to [-1, 1] ("intensity"), and
    whatever its maker wants to be remembered. All of them are JSON values.
    """

    settings: Mapping[str, Any]
    generator: ImageGenerator
    discriminator_settings: Mapping[str, Any] | None = None
    discriminator: Discriminator | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


def write_generator(folder: Path, kept: KeptGenerator) -> GeneratorFolder:
    """Write a generator, and its discriminator if there is one, into `folder`; the JSON comes last.

    Raises:
        RunError: the folder cannot be written to.
    """
    files = GeneratorFolder(make_folder(folder))
    files.generator_json.unlink(missing_ok=True)
    sums = {"generator": _write(files.generator_weights, kept.generator)}
    if kept.discriminator is None:
        files.discriminator_weights.unlink(missing_ok=True)
    else:
        sums["discriminator"] = _write(files.discriminator_weights, kept.discriminator)
    record = {
        "format": FORMAT,
        "generator": dict(kept.settings),
        "discriminator": kept.discriminator_settings and dict(kept.discriminator_settings),
        "sha256": sums,
        "told": dict(kept.told),
    }
    write_json(files.generator_json, record)
    return files


def read_generator(folder: Path) -> KeptGenerator:
    """What `write_generator` wrote.

    Raises:
        DataError: the folder holds no generator, a file is damaged or was changed, or the JSON does not
            describe the weights.
    """
    files = GeneratorFolder(folder)
    record = _record(files)
    state = _weights(files.generator_weights, record["sha256"].get("generator"))
    where = str(files.generator_json)
    generator = filled(build_generator, record["generator"], state, where)
    settings, discriminator = record["discriminator"], None
    if settings is not None:
        state = _weights(files.discriminator_weights, record["sha256"].get("discriminator"))
        discriminator = filled(build_discriminator, settings, state, where)
    return KeptGenerator(record["generator"], generator, settings, discriminator, record["told"])


def filled(
    build: Callable[[Mapping[str, Any]], Network],
    settings: Mapping[str, Any],
    state: Mapping[str, Tensor],
    where: str,
) -> Network:
    """The network that `build` makes from `settings`, with the weights of `state`, frozen, for evaluation.

    No chance is used up, and no memory is taken for a network that is wider than the weights.

    Raises:
        DataError: the network cannot be built, or the weights are of another architecture or not finite.
    """
    try:
        _refuse_wider(settings, state, where)
        with torch.random.fork_rng(devices=[]):
            network = build(settings)
    except (TypeError, ValueError, RuntimeError, ConfigError, ArithmeticError, KeyError) as error:
        raise DataError(
            "the settings describe no network", where=where, found=str(error).splitlines()[0][:200]
        ) from error
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    _refuse_other_architecture(wanted, {name: tuple(value.shape) for name, value in state.items()}, where)
    bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise DataError("weights are not finite numbers", where=where, found=", ".join(bad[:3]))
    network.load_state_dict(dict(state))
    return network.requires_grad_(False).eval()


def _refuse_wider(settings: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> None:
    """Every width that the settings ask for must occur in the weights."""
    longest = max((side for value in state.values() for side in value.shape), default=0)
    widths = {name: settings[name] for name in _WIDTHS if name in settings}
    widths["channel_max"] = min(
        settings["channel_base"] / 2 / settings.get("first_cutoff", 2.0), settings["channel_max"]
    )
    wider = [f"{name} {width}" for name, width in widths.items() if width > longest + 1]
    if wider:
        raise DataError(
            "the weights are of another architecture than the settings say",
            where=where,
            found=", ".join(wider),
            expected=f"at most {longest}, the longest side of the weights",
        )


def _refuse_other_architecture(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str
) -> None:
    if wanted == found:
        return
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    other = [f"{n} {found[n]}, not {wanted[n]}" for n in wanted if n in found and found[n] != wanted[n]]
    parts = [("missing", missing), ("not known", extra), ("of another shape", other)]
    raise DataError(
        "the weights are of another architecture than the settings say",
        where=where,
        found="; ".join(f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in parts if names),
        expected=f"{len(wanted)} arrays of the network that the settings describe",
        mend="Use the weights and the settings of one and the same network.",
    )


def _write(path: Path, network: nn.Module) -> str:
    """Write a network's weights; their checksum."""
    write_tensors(path, network.state_dict())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _weights(path: Path, checksum: Any) -> dict[str, Tensor]:
    try:
        state = load_file(path)
        if hashlib.sha256(path.read_bytes()).hexdigest() == checksum:
            return state
    except (OSError, SafetensorError) as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    raise _damaged(path, "was changed after it was written: its checksum differs")


def _record(files: GeneratorFolder) -> dict[str, Any]:
    path = files.generator_json
    if not path.is_file():
        raise DataError(
            "holds no generator",
            where=str(files.folder),
            expected=f"a file {path.name}",
            mend="Name the folder that a training or an import of a published checkpoint made.",
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, f"is not readable JSON ({error})") from error
    kinds = {"generator": dict, "discriminator": dict | None, "sha256": dict, "told": dict}
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError("is of another format", where=str(path), expected=f"format {FORMAT}")
    wrong = [n for n, kind in kinds.items() if n not in record or not isinstance(record[n], kind)]
    if wrong:
        raise DataError(
            "does not describe a generator",
            where=str(path),
            found=", ".join(f"{name}: {str(record.get(name))[:40]}" for name in wrong),
            expected="settings of a generator and checksums",
        )
    return record


def _damaged(path: Path, what: str) -> DataError:
    return DataError(what, where=str(path), mend="Copy the folder again, or make it again from its source.")
