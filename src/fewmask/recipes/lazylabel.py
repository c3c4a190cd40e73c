"""Masks from labels of whole images: what a translation to healthy removes is the disease.

Document: a CycleGAN (Zhu et al., ICCV 2017) between diseased and healthy slices; |X - X'| over its maximum,
between 0.3 and 0.8, is the mask. Beside it stand the same with rates that hold and a threshold that healthy
slices set, a mask head, VA-GAN (Baumgartner et al., CVPR 2018) and Fixed-Point GAN (Siddiquee et al., ICCV
2019); and what must be beaten: class activation maps, an autoencoder, brightness, all of the body, no mask.

    fewmask run lazylabel --preset mr-sequences-64 --cohort MY_SLICES --out runs/lazy

Masks, where the cohort has some, are there to score, and to tell which slices are diseased where no tag does.
Times and scores on real scans: docs/results/.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.data.overlay import save_png
from fewmask.data.split import write_split
from fewmask.metrics.score import Row, read_rows, write_rows
from fewmask.recipes.arms import place
from fewmask.recipes.ground import Ground
from fewmask.recipes.healers import BODY, RULE, Lesson, Method, methods
from fewmask.recipes.lazyground import LazyGround, labelled_tests, open_lazy, shortcut_checks
from fewmask.recipes.lazylabel_settings import LazylabelSettings
from fewmask.recipes.lazymaps import Seen, by_document, look, map_scores, rows_of, sheet, whole_body
from fewmask.recipes.lazypage import TERMS, deviations, domain_table, galleries, ledger, map_table, remarks
from fewmask.recipes.lazyplan import healer_works
from fewmask.recipes.page import Finished, Job, begin_report, open_told
from fewmask.recipes.plan import Work
from fewmask.report.content import Arm, write_report
from fewmask.report.page import write_page
from fewmask.report.tables import plain_table
from fewmask.report.verdict import verdict
from fewmask.synthesis.difference import DifferenceSettings
from fewmask.training.loop import precision_of

TITLE = "Masks from labels of whole images"

QUESTION = "Do labels of whole images teach where the disease is, and better than an empty mask?"


def carry_out(job: Job, settings: LazylabelSettings) -> Finished:
    """Train and score every method, and write the page."""
    ground = open_told(settings, job)
    lazy = open_lazy(ground, settings)
    write_split(job.run.split_json, ground.split)
    rows: list[Row] = []
    told: dict[str, dict[str, str]] = {}
    for method in methods(settings):
        for draw in range(settings.trainings if method.group else 1):
            for arm, found, scores in answers(ground, lazy, settings, method, draw):
                rows += found
                told.setdefault(arm.name, scores)
    write_rows(job.run.results_csv, rows)
    return finish(job, ground, lazy, settings, rows, told)


def answers(
    ground: Ground, lazy: LazyGround, settings: LazylabelSettings, method: Method, draw: int
) -> list[tuple[Arm, list[Row], dict[str, str]]]:
    """Train a method, and score every reading of its maps; what is kept from before is read.

    Returns, for each of its arms, the rows and the scores of its maps.
    """
    steps = {arm: ground.run.step(f"{place(arm.key, 0, draw)}/scores") for arm in method.arms}
    inputs = inputs_of(ground, lazy, settings, method, draw)
    if any(step.result({**inputs, "arm": arm.key}) is None for arm, step in steps.items()):
        seed = settings.seed if draw == 0 else integer(settings.seed, "training", draw)
        name = place(method.arms[0].key, 0, draw)
        lesson = Lesson(lazy.domains, settings, ground.run.step(name), seed, ground.fabric, name)
        difference = DifferenceSettings(**settings.difference.model_dump(exclude={"body"}))
        seen = look(method.train(lesson), lazy.scene, difference)
        for arm, step in steps.items():
            read = by_document(seen, lazy.scene) if arm.key.endswith(RULE) else seen
            read = whole_body(read) if arm.key == BODY else read
            keep(ground, lazy, step, arm, read, draw)
    return [
        (arm, read_rows(step.rows_csv), step.result({**inputs, "arm": arm.key})["maps"])  # type: ignore[index]
        for arm, step in steps.items()
    ]


def inputs_of(
    ground: Ground, lazy: LazyGround, settings: LazylabelSettings, method: Method, draw: int
) -> dict[str, Any]:
    """What the scores of a method depend on, as JSON values."""
    group = getattr(settings, method.group).model_dump(mode="json") if method.group else {}
    return {
        "ground": ground.key,
        **precision_of(ground.fabric),
        "domains": lazy.chosen.to_json(),
        "difference": settings.difference.model_dump(mode="json"),
        "boxes": settings.boxes,
        "lesions": list(settings.cohort.lesions),
        "method": group,
        "draw": draw,
    }


def keep(ground: Ground, lazy: LazyGround, step: Step, arm: Arm, seen: Seen, draw: int) -> None:
    """Score one reading of a method's maps and leave rows, scores, masks and a sheet of pictures."""
    rows = []
    if labelled_tests(ground):
        rows = rows_of(ground, lazy.scene, seen.masks, arm=arm.key, draw=draw, place=place(arm.key, 0, draw))
    write_rows(step.rows_csv, rows)
    picture = sheet(lazy.scene, seen)
    if picture is not None:
        save_png(step.sample_png(0), picture)
    calibration = None if seen.calibration is None else seen.calibration.to_json()
    step.finish({"maps": map_scores(lazy.scene, seen), "calibration": calibration})


def finish(
    job: Job,
    ground: Ground,
    lazy: LazyGround,
    settings: LazylabelSettings,
    rows: list[Row],
    told: dict[str, dict[str, str]],
) -> Finished:
    """The page: rows, scores of maps, pictures, checks."""
    every = arms(settings)
    begun = begin_report(ground, job, every)
    report = replace(
        begun,
        shots_unit="slice",
        minutes_rule="5 seconds per image label",
        ledger=ledger(lazy, every),
        checks=(*begun.checks, *shortcut_checks(lazy, settings)),
        deviations=deviations(settings),
        tables=(map_table(told), domain_table(lazy)),
        galleries=galleries(ground.run, every),
        remarks=remarks(rows),
        samples=(),
        terms=TERMS,
    )
    write_report(job.run.report_json, report)
    write_page(report, rows, job.run.report_html)
    lines = [plain_table(rows, report)] if rows else []
    lines += [sentence.text for sentence in (verdict(rows, report) if rows else report.remarks)]
    return Finished(ground, report, (*lines, f"report: {job.run.report_html}"))


def arms(settings: LazylabelSettings) -> tuple[Arm, ...]:
    """What the settings ask for: ours first, then what they must beat."""
    every = [arm for method in methods(settings) for arm in method.arms]
    order = ("ours", "baseline", "reference", "control", "trivial")
    return tuple(sorted(every, key=lambda arm: order.index(arm.kind)))


def plan(settings: LazylabelSettings) -> Sequence[Work]:
    """What `carry_out` will do, to be timed."""
    return healer_works(settings)
