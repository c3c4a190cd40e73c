"""From a finished run to its page, its table and its record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.run import MaskFolder, Run
from fewmask.core.volume import IGNORE
from fewmask.data.case import Case
from fewmask.data.cohort import read_case_mask, read_images
from fewmask.data.io import read_mask
from fewmask.data.overlay import beside, png_bytes, with_legend
from fewmask.data.prepare import prepare
from fewmask.metrics.score import Row, write_rows
from fewmask.recipes.arms import UNET, place
from fewmask.recipes.page import Finished, Job, begin_report, open_told
from fewmask.recipes.settings import CommonSettings
from fewmask.recipes.stage import Labelled, Stage, open_stage
from fewmask.report.content import (
    Arm,
    CasePicture,
    Check,
    Deviation,
    Gallery,
    LedgerLine,
    Picture,
    Report,
    Sentence,
    Table,
    expert_minutes,
    read_report,
    write_report,
)
from fewmask.report.page import write_page
from fewmask.report.tables import best_line, choose_cases, lesion_lines, lines, plain_table
from fewmask.report.verdict import verdict
from fewmask.report.words import shots_words
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
    drawn: Mapping[str, int] | None = None
    """By arm, on how many slices a person drew, for arms that learn from other slices than the shots."""
    unvalidated: frozenset[str] = frozenset()
    """Arms that choose nothing by the masks of validation patients."""
    tables: tuple[Table, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    terms: Mapping[str, str] = field(default_factory=dict)
    """Words of the tables with their definitions."""
    image_labels: Mapping[str, int] | None = None
    """By arm, how many labels of whole training slices its generator was given."""


def segmented(
    learn: Callable[[Stage, Any], Outcome],
    arms_of: Callable[[Any], Sequence[Arm]],
    job: Job,
    settings: CommonSettings,
) -> Finished:
    """Let a recipe that segments train and score its arms; write rows, page and the model to use."""
    stage = open_stage(settings, open_told(settings, job))
    outcome = learn(stage, settings)
    write_rows(job.run.results_csv, outcome.rows)
    report = draw_report(stage, outcome, arms_of(settings), job)
    keep_model(stage)
    lines = [plain_table(outcome.rows, report), *lesion_lines(outcome.rows, report)]
    lines += [sentence.text for sentence in verdict(outcome.rows, report)]
    lines += [f"model:  {job.run.model}", f"report: {job.run.report_html}"]
    return Finished(stage.ground, report, tuple(lines))


def draw_report(stage: Stage, outcome: Outcome, arms: Sequence[Arm], job: Job) -> Report:
    """Write report.json and report.html of a run."""
    run, settings = stage.run, stage.settings
    begun = begin_report(stage.ground, job, arms)
    report = replace(
        begun,
        shots_unit=stage.shots.unit,
        minutes_rule=minutes_rule(settings.shots.minutes_per_mask, outcome.image_labels),
        ledger=_ledger(stage, outcome),
        checks=(*begun.checks, *outcome.checks),
        deviations=outcome.deviations,
        tables=outcome.tables,
        galleries=outcome.galleries,
        terms=outcome.terms,
        remarks=(*begun.remarks, *best_model(stage, outcome.rows, begun)),
        cases=_cases(stage, outcome.rows, arms),
    )
    write_report(run.report_json, report)
    write_page(report, outcome.rows, run.report_html)
    return report


def minutes_rule(per_mask: float, image_labels: Mapping[str, int] | None) -> str:
    """How an expert's minutes are counted, in words."""
    words = f"{per_mask:g} per slice on which something was drawn"
    if any((image_labels or {}).values()):
        words += f", {60 * expert_minutes(image_labels=1):g} seconds per label of a whole image"
    return words


def best_model(stage: Stage, rows: Sequence[Row], report: Report) -> tuple[Sentence, ...]:
    """Where the model of the best method from the most shots is, when it is a U-Net; a head has none."""
    most = max(stage.shots.counts)
    table = lines(rows, report, measures=("dice",), resamples=1)
    comparable = [line for line in table if not report.own_masks(line.arm)]
    best = best_line(comparable, most, ("ours", "baseline"))
    if best is None:
        return ()
    step = stage.run.step(place(best.arm, most, 0))
    if not step.model.is_dir():
        return ()
    folder = step.model.relative_to(stage.run.folder).as_posix()
    return (
        Sentence(
            f"The best from {shots_words(most, stage.shots.unit)} on these test patients is the {best.name}; "
            f"its model, for `fewmask segment`, is in {folder}."
        ),
    )


def keep_model(stage: Stage) -> None:
    """Leave the model to use at the top of the run: the U-Net on all masks, else on the most shots."""
    most = None if stage.settings.shots.full else max(stage.shots.counts)
    step = stage.run.step(place(UNET, most, 0))
    Segmenter.load(step.model).save(stage.run.model)


def redraw_report(run: Run, rows: Sequence[Row]) -> None:
    """Write report.html again from report.json and the rows."""
    write_page(read_report(run.report_json), rows, run.report_html)


def _ledger(stage: Stage, outcome: Outcome) -> tuple[LedgerLine, ...]:
    """What each arm was given. A patient's masks count slice by slice, since they are drawn so."""
    unlabelled, minutes = outcome.unlabelled or {}, stage.settings.shots.minutes_per_mask
    lines = []
    for arm, shots in dict.fromkeys((row.arm, row.shots) for row in outcome.rows):
        slices = (outcome.drawn or {}).get(arm)
        if slices is None:
            slices = _drawn(stage.labelled if shots is None else stage.items(stage.shots.take(0, shots)))
        masks = shots if shots is not None else _count(stage)
        note = ""
        if stage.validation is not None and shots != 0 and arm not in outcome.unvalidated:
            held = _drawn(stage.validation)
            slices += held
            note = f"with {held} slices of validation patients"
        images = (outcome.image_labels or {}).get(arm, 0)
        spent = slices * minutes + expert_minutes(image_labels=images)
        lines.append(LedgerLine(arm, shots, masks, images, unlabelled.get(arm, 0), spent, note))
    return tuple(lines)


def _drawn(items: Labelled) -> int:
    """Slices on which something was drawn."""
    return sum(int(marked(mask).any(axis=(-2, -1)).sum()) for mask in items.masks)


def marked(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a label map shows a class, of any shape; unjudged voxels show none."""
    return np.asarray((mask > 0) & (mask != IGNORE), dtype=np.bool_)


def _count(stage: Stage) -> int:
    if stage.shots.unit == "slice":
        return len(stage.labelled.refs)
    return len({case.patient for case in stage.cohort.labelled if case.patient in stage.split.train})


def _cases(stage: Stage, rows: Sequence[Row], arms: Sequence[Arm]) -> tuple[CasePicture, ...]:
    """Best, median and worst test cases of every arm at its largest k, draw 0."""
    pictures = []
    for arm in arms:
        if arm.kind in ("trivial", "control"):
            continue
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
    z = int(np.count_nonzero(marked(truth), axis=(1, 2)).argmax())
    spacing = trace.turn.grid(trace.native).spacing_mm
    size = size_of(scan.shape[1:], spacing[1:], long_side=LONG_SIDE)
    sheet = beside(scan[z], truth[z], answer[z], size=size)
    drawn = with_legend(sheet, stage.cohort.classes)
    return Picture.of_png(png_bytes(drawn), f"Scan, reference and prediction of {case.name}")
