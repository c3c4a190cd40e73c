"""A run's folder. Every file name that fewmask writes inside it is spelled here, and nowhere else.

```
run.json        every setting, version and seed; what was trained and how long
split.json      which patient is in which part, and the k-shot draws
results.csv     one row per case, class and arm
report.html     the page to read
cases/          masks of the test cases on their native grid, by arm
steps/NAME/     one folder per step: done.json when finished, stats.jsonl, checkpoints/, samples/, model/
```
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewmask.core.errors import RunError
from fewmask.core.files import make_folder, read_json, write_json

SHOWN = 8
"""At most so many settings that differ are named in an error."""


@dataclass(frozen=True)
class Checkpoint:
    """One full state of a training, as a folder named after the images seen."""

    folder: Path

    @property
    def tensors(self) -> Path:
        """Weights, buffers and optimizer states of the whole objective."""
        return self.folder / "state.safetensors"

    @property
    def numbers(self) -> Path:
        """Everything that is not a tensor, and the checksums by which a torn checkpoint is known."""
        return self.folder / "state.json"


@dataclass(frozen=True)
class Step:
    """One resumable part of a run. Done when its `done.json` exists; never redone from other inputs."""

    folder: Path

    @property
    def done_json(self) -> Path:
        """Written last: what the step gave."""
        return self.folder / "done.json"

    @property
    def inputs_json(self) -> Path:
        """Written first: what the step is made from."""
        return self.folder / "inputs.json"

    @property
    def stats_jsonl(self) -> Path:
        """One line of numbers per report of the training loop."""
        return self.folder / "stats.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Full states of a training, the last two of them."""
        return self.folder / "checkpoints"

    def checkpoint(self, images_seen: int) -> Checkpoint:
        """The full state after `images_seen` images; names sort by age."""
        return Checkpoint(self.checkpoints / f"{images_seen:012d}")

    @property
    def best_tensors(self) -> Path:
        """Weights and buffers at the best smoothed validation score."""
        return self.checkpoints / "best.safetensors"

    @property
    def best_json(self) -> Path:
        """When the best weights were reached and with which score."""
        return self.checkpoints / "best.json"

    @property
    def samples(self) -> Path:
        """Pictures that a training shows of itself."""
        return self.folder / "samples"

    def sample_png(self, images_seen: int) -> Path:
        """A grid of pictures after `images_seen` images."""
        return self.samples / f"{images_seen:012d}.png"

    @property
    def model(self) -> Path:
        """The folder of the finished model, to be used by `fewmask segment`."""
        return self.folder / "model"

    @property
    def pairs(self) -> Path:
        """Generated images with labels, as a cohort."""
        return self.folder / "pairs"

    @property
    def inversion(self) -> Path:
        """Latents of real slices, and how well they are met."""
        return self.folder / "inversion.safetensors"

    @property
    def rows_csv(self) -> Path:
        """The scores of one arm."""
        return self.folder / "rows.csv"

    def claim(self, inputs: dict[str, Any]) -> None:
        """Begin the step from `inputs` (JSON values); a `RunError` if work from others lies in its folder."""
        inputs = json.loads(json.dumps(inputs))  # tuples become lists, as in the file
        begun = self.done_json.exists() or any(self.checkpoints.glob("[0-9]*"))
        if not begun or not self.inputs_json.exists():
            write_json(self.inputs_json, inputs)
            return
        found = read_json(self.inputs_json)
        if found != inputs:
            names, before, now = _differences(found, inputs)
            raise RunError(
                f"was made with other settings ({names})",
                where=str(self.folder),
                found=before,
                expected=now,
                mend="Choose another --out, or delete this folder to do the step again.",
            )

    def result(self, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """What the step gave when it was done from the same `inputs` (JSON values); None if still to do."""
        self.claim(inputs)
        if not self.done_json.exists():
            return None
        result: dict[str, Any] = read_json(self.done_json)
        return result

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Mark the step as done, keeping its `result` (JSON values); returns the result."""
        write_json(self.done_json, result)
        return result


@dataclass(frozen=True)
class ModelFolder:
    """A finished segmenter on the disk."""

    folder: Path

    @property
    def model_json(self) -> Path:
        """What the network is, how scans are prepared for it, and the checksum of its weights."""
        return self.folder / "model.json"

    @property
    def weights(self) -> Path:
        """The weights."""
        return self.folder / "model.safetensors"


@dataclass(frozen=True)
class GeneratorFolder:
    """A generator on the disk, trained here or taken from a published checkpoint."""

    folder: Path

    @property
    def generator_json(self) -> Path:
        """What the networks are, where they come from, and the checksums of their weights."""
        return self.folder / "generator.json"

    @property
    def generator_weights(self) -> Path:
        """The weights of the averaged generator."""
        return self.folder / "generator.safetensors"

    @property
    def discriminator_weights(self) -> Path:
        """The weights of the discriminator, where there is one."""
        return self.folder / "discriminator.safetensors"


@dataclass(frozen=True)
class TranslatorFolder:
    """A pair of translators between two domains on the disk."""

    folder: Path

    @property
    def translator_json(self) -> Path:
        """What the networks are, what they were trained from, and the checksum of their weights."""
        return self.folder / "translator.json"

    @property
    def weights(self) -> Path:
        """The weights of both."""
        return self.folder / "translator.safetensors"


@dataclass(frozen=True)
class MaskFolder:
    """Masks of many scans on their native grids, as `fewmask segment` and a run's arms leave them.

    A scan is known by its name, which may hold slashes when scans lie in folders.
    """

    folder: Path

    def mask(self, name: str, suffix: str) -> Path:
        """The mask of a scan; the suffix (".nii.gz") chooses the format."""
        return self.folder / f"{name}{suffix}"

    def picture(self, name: str) -> Path:
        """The mask's outline on the scan."""
        return self.folder / "pictures" / f"{name}.png"

    @property
    def journal_jsonl(self) -> Path:
        """One line per scan: done or quarantined, with the reason."""
        return self.folder / "journal.jsonl"

    @property
    def confidences_csv(self) -> Path:
        """The scans that were segmented, the least certain first: the list to review."""
        return self.folder / "confidences.csv"


@dataclass(frozen=True)
class ConsensusFolder:
    """What `fewmask consensus` leaves: a cohort (cases.csv, classes.json, masks/) and what it did."""

    folder: Path

    def mask(self, name: str, suffix: str) -> Path:
        """The consensus on one case."""
        return self.folder / "masks" / f"{name}{suffix}"

    def picture(self, name: str) -> Path:
        """The readers' outlines and the consensus on the scan."""
        return self.folder / "pictures" / f"{name}.png"

    @property
    def agreement_csv(self) -> Path:
        """How far the readers agree: one row per case and class."""
        return self.folder / "agreement.csv"

    @property
    def structures_csv(self) -> Path:
        """What became of each structure: who marked it, its size, why it was dropped."""
        return self.folder / "structures.csv"

    @property
    def readers(self) -> Path:
        """The readers' own masks as a cohort, where they came as outlines (LIDC)."""
        return self.folder / "readers"


@dataclass(frozen=True)
class Run:
    """The folder of one run. Made by `Run.open`; the same command on the same folder resumes."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Create the folder if needed; a `RunError` when it cannot be written."""
        return cls(make_folder(folder))

    @property
    def lock(self) -> Path:
        """Held by the process that works in this folder."""
        return self.folder / ".lock"

    @property
    def run_json(self) -> Path:
        """Machine-readable record of the run."""
        return self.folder / "run.json"

    @property
    def split_json(self) -> Path:
        """The patient-level split and the k-shot draws."""
        return self.folder / "split.json"

    @property
    def results_csv(self) -> Path:
        """One row per case, class and arm."""
        return self.folder / "results.csv"

    @property
    def residuals_csv(self) -> Path:
        """One row per way of inverting and slice."""
        return self.folder / "residuals.csv"

    @property
    def report_html(self) -> Path:
        """The page to read."""
        return self.folder / "report.html"

    @property
    def report_json(self) -> Path:
        """What the page is drawn from, so that `fewmask report` can draw it again."""
        return self.folder / "report.json"

    @property
    def journal_jsonl(self) -> Path:
        """One line per scan of `fewmask segment`: done or quarantined, with the reason."""
        return self.folder / "journal.jsonl"

    @property
    def pairing_csv(self) -> Path:
        """Which mask belongs to which scan, as `fewmask check` found it."""
        return self.folder / "pairing.csv"

    def cases(self, arm: str) -> Path:
        """Folder of an arm's masks and pictures of the test cases ("unet/k=1/draw=0")."""
        return self.folder / "cases" / arm

    @property
    def model(self) -> Path:
        """The model to use, for `fewmask segment`."""
        return self.folder / "model"

    @property
    def generator(self) -> Path:
        """The generator to use, for `fewmask run invert` and `fewshot`."""
        return self.folder / "generator"

    @property
    def phantom(self) -> Path:
        """The built-in phantom as a cohort, when no other was given."""
        return self.folder / "phantom"

    @property
    def pictures(self) -> Path:
        """Overlay pictures."""
        return self.folder / "pictures"

    def step(self, name: str) -> Step:
        """The step's folder; `name` may hold slashes for nesting ("unet/k=1/draw=0")."""
        return Step(make_folder(self.folder / "steps" / name))


def _differences(found: dict[str, Any], inputs: dict[str, Any]) -> tuple[str, str, str]:
    """The dotted names of the settings that differ, what they were, and what they are now."""
    before, now = dict(_leaves(found)), dict(_leaves(inputs))
    both = [*before, *(name for name in now if name not in before)]
    changed = [name for name in both if name not in before or name not in now or before[name] != now[name]]
    more = [f"{len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
    was, becomes = ("; ".join(_said(name, leaves) for name in changed[:SHOWN]) for leaves in (before, now))
    return ", ".join(changed[:SHOWN] + more), was, becomes


def _leaves(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a nested dictionary with their dotted names."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _said(name: str, leaves: dict[str, Any]) -> str:
    if name not in leaves:
        return f"no {name}"
    value = repr(leaves[name])
    return f"{name}={value}" if len(value) <= 80 else f"{name}={value[:77]}..."
