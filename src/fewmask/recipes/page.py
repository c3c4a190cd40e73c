"""What every run's page says, labels or none: the data, what was trained, curves, samples, settings."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import safe_open

from fewmask.core.run import Run, Step
from fewmask.data.case_voxels import read_image_grid
from fewmask.recipes.ground import Ground, open_ground
from fewmask.recipes.record import versions
from fewmask.recipes.settings import GroundSettings
from fewmask.report.content import Arm, Check, Curve, Picture, Report, Trained, Watched
from fewmask.report.curves import read_curve, read_numbers, read_watched
from fewmask.report.datacard import data_card

_FIRST_DRAW = re.compile(r"(?P<arm>[^/]+)/(all|k=(?P<shots>\d+)/draw=0)(/.*)?")
"""A training of an arm's first draw, or a part of one; see `recipes.arms.place`."""


@dataclass(frozen=True)
class Job:
    """What the command line asks of a recipe, besides its settings."""

    run: Run
    cohort: Path | None
    """Where the scans are; None: the built-in phantom."""
    title: str
    question: str
    command: str
    """As it was typed, for the record."""
    say: Callable[[str], None]
    """Tells the terminal one line."""


@dataclass(frozen=True, eq=False)
class Finished:
    """A run that is done; its page is written."""

    ground: Ground
    report: Report
    lines: tuple[str, ...]
    """What the terminal shows at the end."""


def open_told(settings: GroundSettings, job: Job) -> Ground:
    """The ground, its remarks told at once."""
    ground = open_ground(settings, job.cohort, job.run)
    for remark in ground.remarks:
        job.say(f"note: {remark}")
    return ground


def begin_report(ground: Ground, job: Job, arms: Sequence[Arm] = ()) -> Report:
    """All that follows from the ground and the trainings in the run's folder."""
    cohort = ground.cohort
    grids = {case.name: read_image_grid(next(iter(case.images.values()))) for case in cohort.cases}
    card = data_card(cohort, grids, parts=ground.split.parts())
    return Report(
        title=job.title,
        question=job.question,
        arms=tuple(arms),
        data=replace(card, notes=tuple(str(remark) for remark in ground.remarks)),
        command=job.command,
        made=time.strftime("%Y-%m-%d %H:%M"),
        trained=_trained(ground, arms),
        curves=_curves(ground.run),
        watched=_watched(ground.run, arms),
        checks=_checks(ground),
        samples=_samples(ground.run),
        settings=ground.settings.model_dump(mode="json"),
        versions=versions(),
    )


def trainings(run: Run) -> list[tuple[str, Step]]:
    """Every training of a run with its step's name, in order of the names."""
    steps = run.folder / "steps"
    found = sorted(path.parent for path in steps.rglob(Step(steps).stats_jsonl.name))
    return [(folder.relative_to(steps).as_posix(), Step(folder)) for folder in found]


def _trained(ground: Ground, arms: Sequence[Arm]) -> tuple[Trained, ...]:
    named = {arm.key.replace(" ", "-"): arm.name for arm in arms}
    lines = []
    for name, step in trainings(ground.run):
        numbers = read_numbers(step.stats_jsonl)
        if not numbers:
            continue
        last = numbers[-1]
        head, _, rest = name.partition("/")
        lines.append(
            Trained(
                what=f"{named.get(head, head.upper() if head == 'gan' else head)} {rest}".strip(),
                images_seen=int(last.get("images", 0)),
                seconds=last.get("seconds", 0.0),
                device="cpu" if _on_cpu(ground, head) else ground.settings.device,
                parameters=_parameters(step),
                memory_mb=last.get("peak_memory_mb"),
            )
        )
    return tuple(lines)


_ON_CPU = ("encoder", "inversion", "head-", "interpreter", "semantic-encoder")
"""How the steps begin that run on the CPU, whatever the device: heads, and what inverts for them."""


def _on_cpu(ground: Ground, step: str) -> bool:
    """Whether a step of this name ran on the CPU, whatever the device."""
    return "head" in type(ground.settings).model_fields and step.startswith(_ON_CPU)


def _curves(run: Run) -> tuple[Curve, ...]:
    """The curves of the first trainings: the GAN's, and one per arm."""
    seen: set[str] = set()
    curves = []
    for name, step in trainings(run):
        arm = name.partition("/")[0]
        curve = None if arm in seen else read_curve(name, step.stats_jsonl)
        if curve is not None:
            curves.append(curve)
            seen.add(arm)
    return tuple(curves)


def _watched(run: Run, arms: Sequence[Arm]) -> tuple[Watched, ...]:
    """How well each arm's first draw segmented while it was trained; of several trainings the first.

    The folder of an arm's training has its name with "-" for blanks, see `recipes.arms.place`.
    """
    keys = {arm.key.replace(" ", "-"): arm.key for arm in arms}
    found: dict[tuple[str, int | None], Watched] = {}
    for name, step in trainings(run):
        match = _FIRST_DRAW.fullmatch(name)
        if match is None or match["arm"] not in keys:
            continue
        arm, shots = keys[match["arm"]], None if match["shots"] is None else int(match["shots"])
        watched = None if (arm, shots) in found else read_watched(name, arm, shots, step.stats_jsonl)
        if watched is not None:
            found[arm, shots] = watched
    return tuple(found.values())


def _parameters(step: Step) -> int:
    """Number of weights of a training's networks, read from its newest checkpoint without loading it."""
    newest = sorted(path for path in step.checkpoints.iterdir() if path.is_dir() and path.name.isdigit())
    if not newest:
        return 0
    with safe_open(step.checkpoint(int(newest[-1].name)).tensors, framework="numpy") as file:
        names = [name for name in file.keys() if name.startswith("module/")]  # noqa: SIM118
        kept = [name for name in names if not name.startswith("module/average/")]
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in kept)


def _checks(ground: Ground) -> tuple[Check, ...]:
    """What was true before anything was trained."""
    part = ground.split
    return (
        Check(
            "No patient in two parts",
            "passed",
            f"{len(part.train)} train, {len(part.validation)} validation, {len(part.test)} test patients",
            "A patient seen in training would make the test measure memory. The run stops if it happens.",
        ),
        Check(
            "Files and geometry of the cohort",
            "warning" if ground.remarks else "passed",
            f"no fault, {len(ground.remarks)} remarks" + (" (in the data card)" if ground.remarks else ""),
            "Shapes, spacings, label values, duplicates and empty masks, as `fewmask check` tells them.",
        ),
    )


def _samples(run: Run) -> tuple[Picture, ...]:
    """The newest grid of generated slices of each training that has one."""
    found = []
    for name, step in trainings(run):
        grids = sorted(step.samples.glob("*.png")) if step.samples.is_dir() else []
        if grids:
            seen = int(grids[-1].stem)
            caption = f"{name} after {seen} images"
            found.append(Picture.of_file(grids[-1], run.folder, f"Generated slices, {caption}", caption))
    return tuple(found)
