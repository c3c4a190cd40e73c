"""A segmenter: a network and everything that is needed to use it on a scan. It travels as one folder."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fewmask
from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import make_folder, read_json, write_json
from fewmask.core.run import ModelFolder
from fewmask.core.volume import IGNORE
from fewmask.data.augment_spatial import Axis
from fewmask.data.prepare import Preparation
from fewmask.networks.unet import UNet, build_unet
from fewmask.training.checkpoint import read_tensors, write_tensors

FORMAT = "fewmask segmenter 1"
"""First entry of a model's JSON file; a later, different layout will say so here."""


@dataclass(frozen=True)
class Design:
    """What a segmenter is, apart from its weights. Every field is kept in its JSON file."""

    classes: Mapping[str, int]
    """Class name -> label value in masks, without the background (0). The network's class k is the k-th."""
    preparation: Preparation
    """How scans are made ready, and masks brought back."""
    patch: tuple[int, ...]
    """(H, W) or (D, H, W): what the network sees at once, in prepared voxels; it also says 2-D or 3-D."""
    widths: tuple[int, ...]
    """Channels per level of the U-Net."""
    flips: tuple[Axis, ...] = ()
    """Axes that may be mirrored without making a wrong anatomy."""
    may_be_absent: tuple[str, ...] = ()
    """Classes that many scans do not have (lesions); finding none of them is then no sign of failure."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on, for the reader (JSON values)."""
    picture_channels: Mapping[str, int] = field(default_factory=dict)
    """Modality -> its channel number, where the modalities were channels of pictures; else empty."""

    def __post_init__(self) -> None:
        """Turn lists into tuples and check that the parts fit."""
        for name in ("patch", "widths", "flips", "may_be_absent"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "classes", dict(self.classes))
        object.__setattr__(self, "picture_channels", dict(self.picture_channels))
        _check(self)

    @property
    def dims(self) -> int:
        """2 for a network of slices, 3 for one of volumes."""
        return len(self.patch)

    @property
    def labels(self) -> tuple[int, ...]:
        """Label value of each of the network's classes, the background first."""
        return (0, *self.classes.values())

    @property
    def modalities(self) -> tuple[str, ...]:
        """The images that a case must have."""
        return tuple(self.preparation.channels)

    @property
    def multiple(self) -> int:
        """Sizes of the network's input are multiples of this."""
        return int(2 ** (len(self.widths) - 1))

    def build(self) -> UNet:
        """The network with random weights from torch's global generator."""
        return build_unet(self.dims, self.preparation.channel_count, len(self.labels), self.widths)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        plain: dict[str, Any] = {
            name: list(getattr(self, name)) for name in ("patch", "widths", "flips", "may_be_absent")
        }
        classes, how = dict(self.classes), self.preparation.to_json()
        if self.picture_channels:
            plain["picture_channels"] = dict(self.picture_channels)
        return {"classes": classes, "preparation": how, **plain, "about": dict(self.about)}


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained network (in evaluation mode, on any device) with its design."""

    network: nn.Module
    design: Design

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        first = next(self.network.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def to(self, device: torch.device | str) -> "Segmenter":
        """The same segmenter with its network moved to `device`."""
        return Segmenter(self.network.to(device), self.design)

    def save(self, folder: Path) -> Path:
        """Write the model into `folder`; the same weights and design always give the same bytes."""
        files = ModelFolder(make_folder(folder))
        write_tensors(files.weights, self.network.state_dict())
        told = {
            "format": FORMAT,
            **self.design.to_json(),
            "versions": {
                "fewmask": fewmask.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "sha256": file_sha256(files.weights),
        }
        write_json(files.model_json, told)
        return folder

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu") -> "Segmenter":
        """Read a model that `save` wrote. No code in it is ever run.

        Raises:
            DataError: a file is missing, is not a fewmask model, or its weights were changed or cut short.
        """
        files = ModelFolder(Path(folder))
        _refuse_missing(files)
        told = read_json(files.model_json)
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise DataError(
                "is not a model that this version of fewmask can read",
                where=str(files.model_json),
                found=repr(told.get("format")) if isinstance(told, dict) else type(told).__name__,
                expected=repr(FORMAT),
                mend="Choose the `model` folder of a run, or install the version that wrote it.",
            )
        if (found := file_sha256(files.weights)) != told.get("sha256"):
            raise DataError(
                "the weights are not the ones this model was saved with",
                where=str(files.weights),
                found=f"sha256 {found}",
                expected=f"{told.get('sha256')}",
                mend="Copy the model's folder again, both files together.",
            )
        design = _read_design(told, files.model_json)
        with torch.random.fork_rng(devices=[]):
            network = design.build()
        try:
            network.load_state_dict(read_tensors(files.weights))
        except RuntimeError as error:
            raise DataError(
                "the weights belong to another network than model.json describes",
                where=str(files.weights),
                found=str(error).splitlines()[-1].strip(),
            ) from error
        return cls(network.eval().requires_grad_(False).to(device), design)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse_missing(files: ModelFolder) -> None:
    for path in (files.model_json, files.weights):
        if not path.is_file():
            raise DataError(
                "a model's folder lacks a file" if files.folder.is_dir() else "there is no such model",
                where=str(files.folder),
                found="no " + (path.name if files.folder.is_dir() else "folder"),
                expected=f"{files.model_json.name} and {files.weights.name}",
                mend="Choose the `model` folder of a run.",
            )


def _read_design(told: Mapping[str, Any], path: Path) -> Design:
    """The design in a model's JSON; every fault is a `DataError` that names the file."""
    names = ("classes", "patch", "widths", "flips", "may_be_absent", "about")
    try:
        return Design(
            preparation=Preparation.from_json(told["preparation"]),
            picture_channels=told.get("picture_channels", {}),
            **{name: told[name] for name in names},
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise DataError(
            "the description of the model is damaged",
            where=str(path),
            found=f"{type(error).__name__}: {error}",
            mend="Copy the model's folder again, or train it again.",
        ) from error


def _check(design: Design) -> None:
    """Raise `ConfigError` on the first part that does not fit the others."""
    values = list(design.classes.values())
    if not values or len(set(values)) < len(values) or not all(0 < value < IGNORE for value in values):
        raise ConfigError(
            "a segmenter needs classes with different label values",
            found=f"{dict(design.classes)}",
            expected=f"1 to {IGNORE - 1} each",
        )
    wanted = 3 if design.preparation.axes == "volume" else 2
    if len(design.patch) != wanted:
        raise ConfigError(
            f"a preparation of {design.preparation.axes} needs a {wanted}-D patch", found=f"{design.patch}"
        )
    if any(n < 1 or n % design.multiple for n in design.patch):
        raise ConfigError(
            "a patch's sizes must be multiples of what the network halves",
            found=f"{design.patch}",
            expected=f"multiples of {design.multiple}",
        )
    _refuse_unknown("flips", design.flips, ("z", "y", "x")[-wanted:])
    _refuse_unknown("picture_channels", tuple(design.picture_channels), design.modalities)
    _refuse_unknown("may_be_absent", design.may_be_absent, tuple(design.classes))


def _refuse_unknown(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    strange = [value for value in given if value not in known]
    if strange:
        raise ConfigError(f"unknown {name}", found=", ".join(strange), expected=", ".join(known))
