"""A CycleGAN between two domains of slices, trained, used and kept.

Inside the domains are A and B: diseased and healthy, or two modalities. Made healthy, an image has lost what
the translator to B took away; `delta` is how much each pixel changed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.core.files import make_folder, write_json
from fewmask.core.run import Step, TranslatorFolder
from fewmask.core.seed import integer
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.cyclegan import Translator
from fewmask.objectives.alarms import Alarm
from fewmask.objectives.cyclealarms import CycleRules, cycle_alarms, hiding
from fewmask.objectives.cyclegan import COLUMNS, CycleGANObjective, Players
from fewmask.synthesis.generator import read_stats
from fewmask.synthesis.healer import refuse_domains
from fewmask.synthesis.healthy import Domains, Floats, Healthy
from fewmask.synthesis.slices import fingerprint
from fewmask.synthesis.translatordesign import TranslatorDesign as TranslatorDesign
from fewmask.training.checkpoint import load_modules, module_tensors, read_tensors, write_tensors
from fewmask.training.launch import Fabric
from fewmask.training.loop import Fitted, fit

FORMAT = 1

WATCHED = 8
"""Images of each domain in which hidden traces are looked for."""

Domain = Literal["a", "b"]


@dataclass(frozen=True, eq=False)
class KeptTranslator:
    """Both translators, frozen, in evaluation mode, on the CPU; called, it is a `ToHealthy`.

    ab: from domain A (diseased) to B (healthy); ba: back; design: what they are; key: what they were trained
    from (JSON values).
    """

    ab: Translator
    ba: Translator
    design: TranslatorDesign
    key: Mapping[str, Any]

    def translate(self, images: Floats, *, to: Domain = "b") -> Floats:
        """Images (N, C, H, W) in [-1, 1] of the other domain as those of `to`; N may be 0.

        Every image by itself, since the last digits of a convolution depend on the batch. Height and width
        need not be those of the training.

        Raises:
            ShapeError: images of another number of channels or axes, or too small.
        """
        network = self.ab if to == "b" else self.ba
        if images.ndim != 4 or images.shape[1] != network.channels_in:
            raise ShapeError(
                "images do not fit this translator",
                found=f"{images.shape}",
                expected=f"(N, {network.channels_in}, H, W)",
                mend="Prepare them as the images it was trained on.",
            )
        made = np.empty((len(images), network.channels_out, *images.shape[2:]), np.float32)
        with torch.no_grad():
            for number, image in enumerate(images):
                one = torch.from_numpy(np.array(image[None], dtype=np.float32))
                made[number] = network(one)[0].numpy()
        return made

    def __call__(self, images: Floats) -> Healthy:
        """Images (N, C, H, W) as those of B, and |x - x_h|, averaged over channels, in grey levels."""
        made = self.translate(images)
        return Healthy(made, np.abs(images - made).mean(axis=1, dtype=np.float32))


@dataclass(frozen=True, eq=False)
class TrainedTranslator(KeptTranslator):
    """Both translators at the end of their training; see `KeptTranslator`."""

    players: Players
    """All four networks."""
    fitted: Fitted
    history: tuple[Mapping[str, float], ...]
    """The reports of the training, oldest first."""
    alarms: tuple[Alarm, ...]
    """What went wrong during the training, by the rules that they say."""


def train_translator(
    domains: Domains,
    design: TranslatorDesign,
    step: Step,
    *,
    images: int,
    seed: int,
    fabric: Fabric,
    label: str = "translator",
    parts: int = 1,
    keep_every: int | None = None,
) -> TrainedTranslator:
    """Train until `images` images of each domain were shown; the same call resumes or loads.

    Args:
        domains: unpaired slices; the diseased are domain A, the healthy B.
        design: networks, weights, rates, augmentation.
        step: folder of the training.
        images: images of A to see, and as many of B.
        seed: fixes weights, order, augmentation and history.
        fabric: where to compute.
        label: names the progress bar and the streams of chance.
        parts: micro-batches computed one after the other, to save memory.
        keep_every: images from one checkpoint to the next; None for a twentieth.

    Raises:
        ShapeError: an empty domain, or domains of two shapes.
        DataError: values that are not finite or outside [-1, 1].
        ConfigError: images too small for the discriminators; batch norm with a divided batch.
        RunError: `step` holds another training.
        TrainingError, StoppedError: see `training.loop.fit`.
    """
    refuse_domains(domains)
    shape = domains.diseased.shape[1:]
    players = design.build(shape[0], seed=seed, label=label)
    _refuse_small(players, shape[1:])
    inputs = {
        "a": fingerprint(domains.diseased),
        "b": fingerprint(domains.healthy),
        "shape": list(shape),
        "design": asdict(design),
        "images": images,
        "seed": seed,
        "label": label,
    }
    step.claim(inputs)
    other = _stream(domains.healthy, design, seed, f"{label} b")
    objective = _objective(players, domains, design, images, other)
    rules = CycleRules(images)
    fitted = fit(
        objective,
        _stream(domains.diseased, design, seed, f"{label} a"),
        step,
        images=images,
        seed=seed,
        fabric=fabric,
        checkpoint_every=keep_every or max(images // 20, 1),
        report_every=max(images // 50, 1),
        sample_every=max(images // 10, 1),
        observe=_Watch(players, domains, seed, label),
        observe_every=max(images // 20, 1),  # it costs as much as an update
        watch=lambda: _ringing(step, rules),
        parts=parts,
        label=label,
    )
    for network in players.named().values():
        network.cpu().requires_grad_(False).eval()
    lines = read_stats(step.stats_jsonl)
    rung = tuple(cycle_alarms(lines, rules))
    return TrainedTranslator(players.ab, players.ba, design, inputs, players, fitted, tuple(lines), rung)


def _objective(
    players: Players, domains: Domains, design: TranslatorDesign, images: int, other: Stream
) -> CycleGANObjective:
    """What a design says is to be minimised."""
    rate, judge_rate = design.rates(images)
    height, width = domains.diseased.shape[2:]
    return CycleGANObjective(
        players,
        other,
        size=(height, width),
        rate=rate,
        judge_rate=judge_rate,
        weights=design.weights,
        history=design.history,
        shown=(_some(domains.diseased, COLUMNS), _some(domains.healthy, COLUMNS)),
    )


class _Watch:
    """Looks for hidden traces in the same few images of both domains, with the same noise."""

    def __init__(self, players: Players, domains: Domains, seed: int, label: str) -> None:
        self.players = players
        self.images = _some(domains.diseased, WATCHED), _some(domains.healthy, WATCHED)
        chance = torch.Generator().manual_seed(integer(seed, label, "hiding"))
        self.noise = [torch.randn(one.shape, generator=chance) for one in self.images]

    def __call__(self) -> dict[str, float]:
        """The numbers of `hiding`, of both ways, with "_ab" and "_ba" behind their names."""
        device = next(self.players.ab.parameters()).device
        found: dict[str, float] = {}
        ways = (("ab", self.players.ab, self.players.ba), ("ba", self.players.ba, self.players.ab))
        for (name, there, back), images, noise in zip(ways, self.images, self.noise, strict=True):
            told = hiding(there, back, images.to(device), noise.to(device))
            found |= {f"{key}_{name}": value for key, value in told.items()}
        return found


def _ringing(step: Step, rules: CycleRules) -> list[str]:
    """The alarms that the newest report rang."""
    lines = read_stats(step.stats_jsonl)
    return [str(alarm) for alarm in cycle_alarms(lines, rules) if alarm.images == lines[-1]["images"]]


def _stream(images: Floats, design: TranslatorDesign, seed: int, name: str) -> Stream:
    source = ArraySource(np.asarray(images, np.float32))
    return Stream(source, design.batch, seed=seed, name=name, augment=design.augment())


def _some(images: Floats, most: int) -> Tensor:
    """At most so many images, evenly picked."""
    picked = np.unique(np.linspace(0, len(images) - 1, most).round().astype(int))
    return torch.from_numpy(np.array(images[picked], dtype=np.float32))


def _refuse_small(players: Players, size: tuple[int, ...]) -> None:
    least = max(int(network.smallest) for network in players.named().values())  # type: ignore[arg-type]
    if min(size) < least:
        raise ConfigError(
            "the slices are too small for these networks",
            where="prepare.size",
            found=f"{size[0]} x {size[1]} pixels",
            expected=f"at least {least} a side",
            mend="Prepare larger slices, or give the discriminators fewer layers.",
        )


def write_translator(folder: Path, kept: KeptTranslator) -> TranslatorFolder:
    """Write both translators into `folder`; the JSON comes last. Raises `RunError`."""
    files = TranslatorFolder(make_folder(folder))
    files.translator_json.unlink(missing_ok=True)
    write_tensors(files.weights, module_tensors({"ab": kept.ab, "ba": kept.ba}))
    record = {
        "format": FORMAT,
        "channels": kept.ab.channels_in,
        "design": asdict(kept.design),
        "key": dict(kept.key),
        "sha256": _checksum(files.weights),
    }
    write_json(files.translator_json, record)
    return files


def read_translator(folder: Path) -> KeptTranslator:
    """What `write_translator` wrote.

    Raises:
        DataError: the folder holds no translator, or a file is damaged or was changed.
        RunError: the weights are of another architecture than the JSON says.
    """
    files = TranslatorFolder(folder)
    if not files.translator_json.is_file():
        raise DataError(
            "holds no translator",
            where=str(folder),
            expected=f"a file {files.translator_json.name}",
            mend="Name the folder that a training made.",
        )
    try:
        record = json.loads(files.translator_json.read_text(encoding="utf-8"))
        design, channels, key = TranslatorDesign(**record["design"]), record["channels"], record["key"]
        players = design.build(channels)
        whole = record["format"] == FORMAT and record["sha256"] == _checksum(files.weights)
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError("does not describe a translator", where=str(folder), found=str(error)) from error
    if not whole:
        raise DataError(
            "was changed after it was written: its checksum or format differs",
            where=str(folder),
            mend="Copy the folder again, or train again with the same command.",
        )
    networks = {"ab": players.ab, "ba": players.ba}
    load_modules(networks, read_tensors(files.weights), files.weights)
    for network in networks.values():
        network.requires_grad_(False).eval()
    return KeptTranslator(players.ab, players.ba, design, key)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
