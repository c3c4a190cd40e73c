"""From a finished run to its page, its table and its record."""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

from fewmask.core.run import MaskFolder, Run, Step
from fewmask.data.case import Case
from fewmask.data.case_voxels import read_image_grid
from fewmask.data.cohort import read_case_mask, read_images
from fewmask.data.io import read_mask
from fewmask.data.overlay import beside, with_legend
from fewmask.data.prepare import prepare
from fewmask.metrics.score import Row
from fewmask.recipes.arms import UNET, place
from fewmask.recipes.record import versions
from fewmask.recipes.stage import Labelled, Stage
from fewmask.report.content import (
    Arm,
    CasePicture,
    Check,
    Curve,
    Deviation,
    LedgerLine,
    Picture,
    Report,
    Trained,
    read_report,
    write_report,
)
from fewmask.report.curves import read_curve, read_numbers
from fewmask.report.datacard import data_card
from fewmask.report.page import write_page
from fewmask.report.tables import choose_cases
from fewmask.segmenter.evaluate import mask_suffix
from fewmask.segmenter.model import Segmenter
from fewmask.segmenter.picture import size_of

LONG_SIDE = 256
"""Pixels of the longer side of a case's picture."""


@dataclass(frozen=True)
class Outcome:
    """What a recipe hands over when it is done."""

    rows: list[Row]
    checks: tuple[Check, ...] = ()
    unlabelled: Mapping[str, int] | None = None
    """By arm, how many unlabelled slices it learned from."""
    deviations: tuple[Deviation, ...] = ()


def draw_report(
    stage: Stage, outcome: Outcome, *, title: str, question: str, arms: Sequence[Arm], command: str
) -> Report:
    """Write report.json and report.html of a run."""
    run, settings = stage.run, stage.settings
    cohort = stage.cohort
    grids = {case.name: read_image_grid(next(iter(case.images.values()))) for case in cohort.cases}
    report = Report(
        title=title,
        question=question,
        arms=tuple(arms),
        data=replace(
            data_card(
                cohort,
                grids,
                parts=stage.split.parts(),
            ),
            notes=tuple(str(remark) for remark in stage.remarks),
        ),
        shots_unit=stage.shots.unit,
        minutes_rule=f"{settings.shots.minutes_per_mask:g} per slice on which something was drawn",
        command=command,
        made=time.strftime("%Y-%m-%d %H:%M"),
        ledger=_ledger(stage, outcome),
        trained=_trained(stage, arms),
        curves=_curves(run),
        checks=(*_checks(stage), *outcome.checks),
        deviations=outcome.deviations,
        cases=_cases(stage, outcome.rows, arms),
        samples=_samples(run),
        settings=settings.model_dump(mode="json"),
        versions=versions(),
    )
    write_report(run.report_json, report)
    write_page(report, outcome.rows, run.report_html)
    return report


def keep_model(stage: Stage) -> None:
    """Leave the model to use at the top of the run: the U-Net on all masks, else on the most shots."""
    most = None if stage.settings.shots.full else max(stage.shots.counts)
    step = stage.run.step(place(UNET, most, 0))
    Segmenter.load(step.model).save(stage.run.model)


def redraw_report(run: Run, rows: Sequence[Row]) -> None:
    """Write report.html again from report.json and the rows."""
    write_page(read_report(run.report_json), rows, run.report_html)


def trainings(run: Run) -> list[tuple[str, Step]]:
    """Every training of a run with its step's name, in order of the names."""
    steps = run.folder / "steps"
    found = sorted(path.parent for path in steps.rglob(Step(steps).stats_jsonl.name))
    return [(folder.relative_to(steps).as_posix(), Step(folder)) for folder in found]


def _ledger(stage: Stage, outcome: Outcome) -> tuple[LedgerLine, ...]:
    """What each arm was given. A patient's masks count slice by slice, since they are drawn so."""
    unlabelled, minutes = outcome.unlabelled or {}, stage.settings.shots.minutes_per_mask
    lines = []
    for arm, shots in dict.fromkeys((row.arm, row.shots) for row in outcome.rows):
        items = stage.labelled if shots is None else stage.items(stage.shots.take(0, shots))
        slices = _drawn(items)
        masks = shots if shots is not None else _count(stage)
        note = ""
        if stage.validation is not None:
            held = _drawn(stage.validation)
            slices += held
            note = f"with {held} slices of validation patients"
        lines.append(LedgerLine(arm, shots, masks, 0, unlabelled.get(arm, 0), slices * minutes, note))
    return tuple(lines)


def _drawn(items: Labelled) -> int:
    """Slices on which something was drawn."""
    return sum(int((mask > 0).any(axis=(-2, -1)).sum()) for mask in items.masks)


def _count(stage: Stage) -> int:
    if stage.shots.unit == "slice":
        return len(stage.labelled.refs)
    return len({case.patient for case in stage.cohort.labelled if case.patient in stage.split.train})


def _trained(stage: Stage, arms: Sequence[Arm]) -> tuple[Trained, ...]:
    named = {arm.key.replace(" ", "-"): arm.name for arm in arms}
    lines = []
    for name, step in trainings(stage.run):
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
                device=stage.settings.device,
                parameters=_parameters(step),
                memory_mb=last.get("peak_memory_mb"),
            )
        )
    return tuple(lines)


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


def _parameters(step: Step) -> int:
    """Number of weights of a training's networks, read from its newest checkpoint without loading it."""
    newest = sorted(path for path in step.checkpoints.iterdir() if path.is_dir() and path.name.isdigit())
    if not newest:
        return 0
    with safe_open(step.checkpoint(int(newest[-1].name)).tensors, framework="numpy") as file:
        names = [name for name in file.keys() if name.startswith("module/")]  # noqa: SIM118
        kept = [name for name in names if not name.startswith("module/average/")]
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in kept)


def _checks(stage: Stage) -> tuple[Check, ...]:
    """What was true before anything was trained."""
    part = stage.split
    return (
        Check(
            "No patient in two parts",
            "passed",
            f"{len(part.train)} train, {len(part.validation)} validation, {len(part.test)} test patients",
            "A patient seen in training would make the test measure memory. The run stops if it happens.",
        ),
        Check(
            "Files and geometry of the cohort",
            "warning" if stage.remarks else "passed",
            f"no fault, {len(stage.remarks)} remarks" + (" (in the data card)" if stage.remarks else ""),
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


def _cases(stage: Stage, rows: Sequence[Row], arms: Sequence[Arm]) -> tuple[CasePicture, ...]:
    """Best, median and worst test cases of every arm at its largest k, draw 0."""
    pictures = []
    for arm in arms:
        own = {row.shots for row in rows if row.arm == arm.key}
        if not own:
            continue
        few = [k for k in own if k is not None]
        shots = max(few) if few else None
        for rank, row, dice in choose_cases(rows, arm.key, shots, worst=3):
            case = stage.cohort.case(row.case)
            picture = _beside(stage, case, place(arm.key, shots, 0))
            pictures.append(
                CasePicture(rank, arm.key, shots, 0, row.case, row.patient, dice, picture)  # type: ignore[arg-type]
            )
    return tuple(pictures)


def _beside(stage: Stage, case: Case, arm: str) -> Picture:
    """Scan, reference and prediction on the slice with most reference voxels."""
    images = read_images(case)
    first = next(iter(images.values()))
    suffix = mask_suffix(case, first.shape)
    predicted = read_mask(MaskFolder(stage.run.cases(arm)).mask(case.name, suffix))
    reference = read_case_mask(case, stage.cohort)
    trace = prepare(images, stage.preparation).trace
    scan, truth, answer = (trace.turn.do(one.voxels) for one in (first, reference, predicted))
    z = int(np.count_nonzero(truth, axis=(1, 2)).argmax())
    spacing = trace.turn.grid(trace.native).spacing_mm
    size = size_of(scan.shape[1:], spacing[1:], long_side=LONG_SIDE)
    sheet = beside(scan[z], truth[z], answer[z], size=size)
    drawn = with_legend(sheet, stage.cohort.classes)
    return Picture.of_png(_png(drawn), f"Scan, reference and prediction of {case.name}")


def _png(picture: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()
