"""A generator trained on unlabelled slices, judged against real slices of unseen patients, and kept.

StyleGAN2 (Karras et al. 2020) or StyleGAN3 (Karras et al. 2021) with adaptive augmentation. No mask and no
downloaded weight is needed: an encoder that learns from the cohort's own slices judges the generator while
it trains, the snapshot with the best score is kept, and the same numbers for real against real slices tell
what can be reached. The folder `generator` of the run serves `run invert`, and `run fewshot` as gan.ready.

    fewmask run gan --preset chest-xray-64 --cohort MY_FILMS --out runs/gan

Times and scores on real scans: docs/results/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import ConfigError
from fewmask.core.run import Run
from fewmask.data.case import Case
from fewmask.data.overlay import contact_sheet, png_bytes
from fewmask.data.slices import SliceSet, prepare_slices
from fewmask.metrics.fidelity import nearest
from fewmask.networks.generator import ImageGenerator
from fewmask.recipes.ganchecks import alarm_checks, gan_checks
from fewmask.recipes.generator import kept_of, knowledge, learn_generator, read_kept, refuse_unfit, seen_by
from fewmask.recipes.ground import Ground
from fewmask.recipes.page import Finished, Job, begin_report, open_told
from fewmask.recipes.plan import Work, generator_works
from fewmask.recipes.presence import (
    held_out_slices,
    learned_slices,
    presence_words,
    told_of_presence,
    training_set,
)
from fewmask.recipes.record import patient_key
from fewmask.recipes.settings import GANRunSettings
from fewmask.report.content import (
    Check,
    Curve,
    Gallery,
    Picture,
    Sentence,
    Table,
    expert_minutes,
    write_report,
)
from fewmask.report.curves import read_numbers
from fewmask.report.page import write_page
from fewmask.synthesis.generator import Slices, TrainedGenerator
from fewmask.synthesis.keep import write_generator
from fewmask.synthesis.quality import Judge, Quality, draw_images, fit_embedding, small
from fewmask.synthesis.slices import refuse_slices
from fewmask.training.launch import alone, first_then_helpers

TITLE = "A generator of slices"
QUESTION = "Does the generator draw slices as varied as real ones, and no copies of them?"

SHOWN = 32
"""Slices on a contact sheet."""

FINAL = 1024
"""At most so many generated slices are judged at the end."""

TERMS = {
    "Fréchet distance": "Of Gaussians fitted to the embeddings of generated and of training slices (Heusel "
    "et al. 2017), embeddings by an encoder that learned from this cohort alone. Compare it with the line "
    "for unseen real slices only: it depends on encoder and number of slices.",
    "Kernel distance": "Unbiased squared maximum mean discrepancy, cubic kernel (Binkowski et al. 2018), "
    "± its standard error; around 0 for slices of the same kind.",
    "Precision, recall": "Share of generated slices that look like real ones, and of real ones that the "
    "generated ones cover, k = 3 (Kynkäänniemi et al. 2019).",
    "Diversity": "Mean embedding distance of two generated slices over that of two real ones.",
    "Copying": "Median distance to the nearest training slice over that of unseen real slices, by embedding; "
    "far below 1 means copies.",
    "Copies": "Share of generated slices nearer to a training slice than half of what 19 of 20 unseen real "
    "slices keep.",
}


def carry_out(job: Job, settings: GANRunSettings) -> Finished:
    """Train, judge, keep the best snapshot, and write the page."""
    ground = open_told(settings, job)
    training, held_out = ground.training_cases, held_out_cases(ground)
    names = conditions(settings, training)
    unlabelled, unseen = training_set(ground, settings.gan), slices_of(ground, settings, held_out)
    refuse_slices(unlabelled.images, None)
    learned = learned_from(ground, settings, unlabelled, names)
    labels = None if learned.labels is None else torch.tensor(learned.labels)
    refuse_unfit(settings.gan, learned, ground.fabric.world_size)
    judge = judge_of(ground, settings, unlabelled, unseen)
    trained = learn_generator(
        ground,
        settings.gan,
        learned,
        held_out=looked_at(ground, settings, unseen, names),
        judge=None if judge is None else lambda g: judged(judge, g, settings, labels),
        judgements=settings.quality.judgements,
    )
    ground = ground.alone()
    told = remembered(ground, settings, trained, names)
    write_generator(job.run.generator, kept_of(trained, trained.generator, told))
    return finish(job, ground, settings, trained, judge, unlabelled, unseen, labels)


def held_out_cases(ground: Ground) -> tuple[Case, ...]:
    """All cases of patients that the generator does not learn from."""
    return tuple(case for case in ground.cohort.cases if case.patient not in ground.split.train)


def slices_of(ground: Ground, settings: GANRunSettings, cases: Sequence[Case]) -> SliceSet:
    """Slices with content, at most so many of one patient."""
    return prepare_slices(
        cases, ground.cohort, ground.preparation, masks=False, cap=settings.gan.slices_per_patient
    )


def judge_of(ground: Ground, settings: GANRunSettings, training: SliceSet, unseen: SliceSet) -> Judge | None:
    """The encoder that learned from the training slices, and what it makes of real ones."""
    if not settings.quality.images:
        return None
    with first_then_helpers(ground.fabric):
        encoder = fit_embedding(
            training.images,
            ground.run.step("embedding"),
            images_seen=settings.quality.images,
            seed=settings.seed,
            fabric=alone(settings.device),
        )
    return Judge.of(encoder, training.images, unseen.images, seed=settings.seed)


def judged(
    judge: Judge, generator: ImageGenerator, settings: GANRunSettings, labels: Tensor | None
) -> Mapping[str, float]:
    """What a training logs of its generator now and then."""
    quality = judge.judge(generator, count=settings.quality.samples, seed=settings.seed, labels=labels)
    return {"score": quality.score, **quality.numbers()}


def conditions(settings: GANRunSettings, cases: Sequence[Case]) -> tuple[str, ...]:
    """The values of the tag `condition` in the training cases; none for an unconditional generator.

    Raises:
        ConfigError: a training case without that tag, or only one value of it.
    """
    tag = settings.condition
    if tag is None:
        return ()
    names = tuple(sorted({case.tags.get(tag, "") for case in cases}))
    if "" in names or len(names) < 2:
        raise ConfigError(
            f"the tag {tag!r} cannot be conditioned on",
            where="condition",
            found=f"values {', '.join(repr(name) for name in names)}",
            expected="a value in every training case, and at least two different ones",
            mend="Give the tag as a column of cases.csv.",
        )
    return names


def learned_from(ground: Ground, settings: GANRunSettings, slices: SliceSet, names: Sequence[str]) -> Slices:
    """The training slices, with one-hot labels where the generator has classes."""
    if settings.condition is None:
        record = settings.prepare.model_dump(mode="json")
        return learned_slices(ground, settings.gan, slices, intensities=record)
    found = labelled(settings, slices, ground.training_cases, names)
    assert found is not None, "the names are those of the training cases"
    return found


def looked_at(
    ground: Ground, settings: GANRunSettings, slices: SliceSet, names: Sequence[str]
) -> Slices | None:
    """Slices of other patients, for the discriminator to look at; None where their labels are not known."""
    if settings.condition is None:
        record = settings.prepare.model_dump(mode="json")
        return held_out_slices(ground, settings.gan, slices, intensities=record)
    return labelled(settings, slices, held_out_cases(ground), names)


def labelled(
    settings: GANRunSettings, slices: SliceSet, cases: Sequence[Case], names: Sequence[str]
) -> Slices | None:
    """Slices with one-hot labels (N, K) by the tag's values; None where a case has a value not in `names`."""
    record = settings.prepare.model_dump(mode="json")
    assert settings.condition is not None
    values = {case.name: case.tags.get(settings.condition, "") for case in cases}
    place = {name: number for number, name in enumerate(names)}
    if not set(values.values()) <= set(place):
        return None
    rows = [place[values[ref.case]] for ref in slices.refs]
    return Slices(slices.images, np.eye(len(names), dtype=np.float32)[rows], intensities=record)


def remembered(
    ground: Ground, settings: GANRunSettings, trained: TrainedGenerator, names: Sequence[str]
) -> dict[str, Any]:
    """What stays with the generator: how scans become its slices, from whom it learned, where it started."""
    start = None if settings.gan.start is None else read_kept(settings.gan.start)
    seen = {patient_key(patient) for patient in ground.split.train}
    presence = told_of_presence(ground, settings.gan)
    before = {} if start is None else {"start": {k: v for k, v in start.told.items() if k != "seen"}}
    return {
        **knowledge(ground),
        **before,
        "seen": sorted(seen | (frozenset() if start is None else seen_by(start) or frozenset())),
        "split": settings.split.model_dump(mode="json"),
        "seed": settings.seed,
        "cohort": ground.cohort.name,
        "intensity": "as prepare says",
        "condition": {"tag": settings.condition, "values": list(names)},
        **({} if presence is None else {"presence": presence}),
        "best": dict(trained.best or {}),
        "images": trained.fitted.images_seen,
        "design": trained.key["design"],
    }


def finish(
    job: Job,
    ground: Ground,
    settings: GANRunSettings,
    trained: TrainedGenerator,
    judge: Judge | None,
    training: SliceSet,
    unseen: SliceSet,
    labels: Tensor | None,
) -> Finished:
    """The page: numbers against those of real slices, pictures, checks."""

    def draw(generator: ImageGenerator) -> NDArray[np.float32]:
        count = SHOWN if judge is None else min(FINAL, 2 * judge.most)
        return draw_images(generator.to(ground.fabric.device), count, seed=settings.seed, labels=labels)

    made = draw(trained.generator)
    tables: tuple[Table, ...] = ()
    remarks: tuple[Sentence, ...] = (
        Sentence("Not judged: quality.images=0. Look at the pictures and the checks.", "caution"),
    )
    checks = alarm_checks(trained.alarms)
    if judge is not None:
        floor, best = judge.floor(len(made), seed=settings.seed), judge.judge_images(made, seed=settings.seed)
        lines = {"unseen real slices": floor, "kept generator": best}
        if trained.best is not None and trained.best["images_seen"] < trained.fitted.images_seen:
            lines["generator at the end"] = judge.judge_images(draw(trained.last), seed=settings.seed)
        tables, remarks = (quality_table(lines),), (verdict(best, floor),)
        checks = (*checks, quality_check(best, floor))
    remarks = (*remarks, *presence_remarks(ground, settings, len(training.images)))
    trained.generator.cpu()
    checks = (*checks, *gan_checks(trained.generator, training.images, unseen.images, seed=settings.seed))
    begun = begin_report(ground, job)
    curve = judged_curve(job.run)
    report = replace(
        begun,
        curves=(*begun.curves, *([curve] if curve is not None else [])),
        tables=tables,
        remarks=remarks,
        galleries=galleries(made, training.images, unseen.images),
        checks=(*begun.checks, *checks),
        terms=TERMS if tables else {},
    )
    write_report(job.run.report_json, report)
    write_page(report, [], job.run.report_html)
    lines_out = [*(sentence.text for sentence in remarks), *(str(alarm) for alarm in trained.alarms)]
    lines_out += [f"generator: {job.run.generator}", f"report: {job.run.report_html}"]
    return Finished(ground, report, tuple(lines_out))


def presence_remarks(ground: Ground, settings: GANRunSettings, slices: int) -> tuple[Sentence, ...]:
    """What experts told of the training slices, and what it does to the numbers; none without."""
    told = told_of_presence(ground, settings.gan)
    if told is None:
        return ()
    minutes = expert_minutes(image_labels=slices)
    words = f"{presence_words(told, slices)}. By rule of thumb that is {minutes:.0f} minutes of an expert."
    if settings.gan.balance and not settings.gan.conditional:
        words += (
            " The numbers compare with the training slices as they are, so the share of rare classes, which "
            "was changed on purpose, counts as a difference."
        )
    return (Sentence(words),)


def judged_curve(run: Run) -> Curve | None:
    """What the judge said while the generator trained; None without a judge."""
    lines = [line for line in read_numbers(run.step("gan").stats_jsonl) if "frechet" in line]
    if not lines:
        return None
    names = ("frechet", "kernel", "precision", "recall", "diversity", "copying", "copying_pixels", "copies")
    series = {name: tuple(line.get(name) for line in lines) for name in names}
    return Curve("gan, judged", tuple(float(line["images"]) for line in lines), series)


def quality_table(lines: Mapping[str, Quality]) -> Table:
    """One line for real slices, one for each generator."""
    columns = ("", "Slices", "Fréchet", "Kernel", "Precision", "Recall", "Diversity", "Copying", "Copies")
    rows = tuple(
        (
            name,
            str(q.count),
            f"{q.frechet:.2f}",
            f"{q.kernel:.4f} ± {q.kernel_error:.4f}",
            f"{q.precision:.2f}",
            f"{q.recall:.2f}",
            f"{q.diversity:.2f}",
            f"{q.copying:.2f}",
            f"{q.copies:.1%}",
        )
        for name, q in lines.items()
    )
    return Table(
        "Quality", columns, rows, "Against the training slices; the first line is what can be reached."
    )


def verdict(made: Quality, floor: Quality) -> Sentence:
    """Where the generator stands between real slices and nothing, in one sentence."""
    copied = made.copies > max(0.05, 2 * floor.copies)
    text = (
        f"The Fréchet distance to the training slices is {made.frechet:.2f}; unseen real slices have "
        f"{floor.frechet:.2f}. It covers {made.recall:.0%} of the real slices; "
        f"real ones cover {floor.recall:.0%}."
    )
    if copied:
        text += f" {made.copies:.0%} of its slices are nearly copies of training slices: do not share it."
    return Sentence(text, "caution" if copied or made.recall < 0.5 * floor.recall else "note")


def quality_check(made: Quality, floor: Quality) -> Check:
    """Is the generator near to what real slices of unseen patients reach?"""
    ratio, covered = made.frechet / max(floor.frechet, 1e-9), made.recall / max(floor.recall, 1e-9)
    good, poor = ratio <= 2 and covered >= 0.5, ratio > 10 or covered < 0.1
    return Check(
        "Generated slices are nearly as good as unseen real ones",
        "passed" if good else "failed" if poor else "warning",
        f"{ratio:.1f} times the Fréchet distance of unseen real slices, {covered:.0%} of their recall",
        "Passed: at most twice the distance and at least half the recall; failed: over ten times the "
        "distance or under a tenth of the recall. Train longer, or on more slices.",
    )


def galleries(
    made: NDArray[np.float32], training: NDArray[np.floating], unseen: NDArray[np.floating]
) -> tuple[Gallery, ...]:
    """Generated beside real slices, and the generated ones that are nearest to a training slice."""
    flat, others = small(made), small(training)
    suspects = np.argsort(nearest(flat, others))[:8]
    partners = [int(nearest(others, flat[[row]]).argmin()) for row in suspects]
    near = np.asarray(training[partners], np.float32)
    pairs = np.stack([made[suspects], near], axis=1).reshape(-1, *made.shape[1:])
    sheets = (
        ("generated", made[:SHOWN], 8),
        ("real, of unseen patients", np.asarray(unseen[:SHOWN], np.float32), 8),
        ("nearest pairs: generated, then its nearest training slice", pairs, 8),
    )
    return (
        Gallery(
            "Pictures",
            tuple(
                Picture.of_png(png_bytes(contact_sheet(images, columns=columns)), f"Slices, {name}", name)
                for name, images, columns in sheets
            ),
        ),
    )


def plan(settings: GANRunSettings) -> Sequence[Work]:
    """What `carry_out` will do, to be timed."""
    return generator_works(settings, final=FINAL)
