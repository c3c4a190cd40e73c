"""Latents of unseen slices, by several ways side by side, and how far each slice may be trusted.

W and W+ (Karras et al. 2020, appendix D), pivotal tuning (Roich et al. 2022), a feed-forward encoder
(Richardson et al. 2021). Slices of training patients are inverted by the same recipe: a case whose residual
lies beyond their stated percentile is flagged, because what the generator cannot draw, its features cannot
describe. Latents are kept as safetensors, with pictures original | reconstruction | difference.

    fewmask run invert --cohort MY_FILMS --out runs/invert generator=runs/gan/generator

Times and residuals on real scans: docs/results/.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import write_text
from fewmask.core.run import Step
from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.data.case import Case
from fewmask.data.slices import SliceSet, prepare_slices
from fewmask.inversion.encoder import encode, fit_encoder
from fewmask.inversion.lpips import checksums, read_lpips
from fewmask.inversion.project import Inversion, project
from fewmask.inversion.pti import tune_each, tune_together
from fewmask.inversion.residual import FEWEST, residual_gate, residuals
from fewmask.inversion.resume import kept, network_key
from fewmask.networks.encoder import LatentEncoder
from fewmask.objectives.perceptual import DiscriminatorDistance, Distance, StructureDistance
from fewmask.recipes.generator import read_kept, seen_by
from fewmask.recipes.ground import Ground
from fewmask.recipes.invert_page import Way, best_words, flag_check, gallery, residual_table, way_table
from fewmask.recipes.page import Finished, Job, begin_report, open_told
from fewmask.recipes.plan import Work
from fewmask.recipes.record import patient_key
from fewmask.recipes.settings import InvertRunSettings, PrepareSettings, SplitSettings
from fewmask.report.content import Check, Sentence, write_report
from fewmask.report.page import write_page
from fewmask.synthesis.keep import KeptGenerator

TITLE = "Inversion: slices as latents of a generator"
QUESTION = "How well does the generator draw slices that it has never seen, and which ones can it not draw?"

TERMS = {
    "MSE": "Mean squared error of the reconstruction; slices lie in [-1, 1].",
    "MS-SSIM": "Multi-scale structural similarity (Wang et al. 2003); 1 for equal slices.",
    "Perceptual": "Distance of normalised activations of the generator's own discriminator (or LPIPS, where "
    "its weights were given).",
    "Flagged": "Slices whose worst residual lies beyond the stated percentile of training slices, inverted "
    "in the same way.",
}

Slices = NDArray[np.float32]


def carry_out(job: Job, settings: InvertRunSettings) -> Finished:
    """Invert unseen and training slices in every way, write latents, residuals, pictures and the page."""
    if settings.generator is None:
        raise ConfigError(
            "which generator?",
            where="generator",
            mend="Add e.g. generator=runs/gan/generator, made by `fewmask run gan` or `fewmask import`.",
        )
    kept = read_kept(settings.generator)
    settings = as_trained(settings, kept, job.say)
    ground = open_told(settings, job)
    known, others = parted(ground, kept)
    if not known.seen:
        job.say(f"note: {known.words}")
    unseen, training = (slices_of(ground, settings, cases) for cases in (others, known.cases))
    refuse_channels(kept, unseen.images)
    order = stream(settings.seed, "invert", "reference").permutation(len(training.images))
    usual, rest = np.sort(order[: settings.reference]), np.sort(order[settings.reference :])
    refuse_few(usual, known.words)
    # The encoder must not have learned the slices that say what is usual, if there are enough others.
    inverter = Inverter(ground, settings, kept, training.images[rest if len(rest) >= FEWEST else usual])
    names = [f"{ref.case} z{ref.z}" for ref in unseen.refs]
    ways = []
    for name in settings.ways:
        found, seconds = inverter.invert(name, "unseen", unseen.images)
        like = inverter.invert(name, "training", training.images[usual])[0]
        gate = residual_gate(like, percentile=settings.percentile)
        ways.append(Way(name, found, residuals(gate, names, unseen.images, found), seconds))
    return finish(job, ground, settings, ways, unseen, known)


@dataclass(frozen=True)
class Known:
    """The cases whose residuals say what is usual: those that the generator learned from, if any."""

    cases: tuple[Case, ...]
    seen: bool
    words: str


def parted(ground: Ground, kept: KeptGenerator) -> tuple[Known, tuple[Case, ...]]:
    """The cohort's cases by whether the generator learned from their patients: known ones, and the others.

    Where it knows none of them (another cohort, published weights) the run's training patients stand in.
    """
    seen, cases = seen_by(kept), ground.cohort.cases
    learned = {case.patient for case in cases if seen is not None and patient_key(case.patient) in seen}
    words = "the generator learned from these training patients, and from none of the unseen ones"
    if not learned:
        words = (
            "the generator knows no patient of this cohort: percentiles compare with slices of other "
            "patients of the cohort, not with what it learned from"
            if seen is not None
            else "from whom the generator learned is not recorded: percentiles compare with the training "
            "patients of this run's split, and unseen patients may have been seen"
        )
    reference = learned or set(ground.split.train)
    known = tuple(case for case in cases if case.patient in reference)
    others = tuple(case for case in cases if case.patient not in reference)
    if not others:
        raise ConfigError(
            "the generator has learned from every patient of this cohort",
            where=str(ground.cohort.folder),
            mend="Invert scans of other patients: residuals of known ones say nothing.",
        )
    return Known(known, bool(learned), words), others


def refuse_few(usual: NDArray[np.int64], words: str) -> None:
    """A `DataError` when too few slices say what is usual."""
    if len(usual) < FEWEST:
        raise DataError(
            "too few slices to say which residual is unusual",
            found=f"{len(usual)} ({words})",
            expected=f"at least {FEWEST}",
            mend="Raise slices_per_patient or reference, or add scans.",
        )


def as_trained(
    settings: InvertRunSettings, kept: KeptGenerator, say: Callable[[str], None]
) -> InvertRunSettings:
    """Preparation, split and seed as the generator's training had them, where the user did not set them."""
    told, size = kept.told, kept.generator.resolution
    update: dict[str, Any] = {}
    for name, kind in (("prepare", PrepareSettings), ("split", SplitSettings)):
        ours = getattr(settings, name)
        given = (
            {key: getattr(ours, key) for key in ours.model_fields_set}
            if name in settings.model_fields_set
            else {}
        )
        if name == "prepare":
            given |= {"size": (size, size), "dims": 2}
        update[name] = kind.model_validate({**told.get(name, {}), **given})
        changed = [key for key in given if name in told and kind.model_validate(told[name]) != update[name]]
        if changed:
            say(f"note: {name} differs from the generator's training in {', '.join(sorted(changed))}")
    if "seed" in told and "seed" not in settings.model_fields_set:
        update["seed"] = told["seed"]
    return settings.model_copy(update=update)


def slices_of(ground: Ground, settings: InvertRunSettings, cases: Sequence[Case]) -> SliceSet:
    """Slices with content, at most so many of one patient."""
    return prepare_slices(
        cases,
        ground.cohort,
        ground.preparation,
        masks=False,
        cap=settings.slices_per_patient,
        dtype=np.float32,
    )


def refuse_channels(kept: KeptGenerator, images: Slices) -> None:
    """A `ConfigError` when the cohort's slices have other channels than the generator's."""
    names = kept.told.get("modalities", ())
    if images.shape[1] != kept.generator.channels:
        raise ConfigError(
            "the cohort's slices have other channels than the generator's",
            found=f"{images.shape[1]} channels (modalities x windows)",
            expected=f"{kept.generator.channels}" + (f": {', '.join(names)}" if names else ""),
            mend="Use the modalities and windows of its training, or import a checkpoint with --channels.",
        )


class Inverter:
    """All ways to invert with one generator; what is done is kept in the run's folder."""

    def __init__(
        self, ground: Ground, settings: InvertRunSettings, kept: KeptGenerator, training: Slices
    ) -> None:
        self.ground, self.settings, self.training = ground, settings, training
        device = ground.fabric.device
        self.generator = kept.generator.to(device)
        self.distance: Distance = StructureDistance()
        if settings.lpips is not None:
            self.distance = read_lpips(settings.lpips)
        elif kept.discriminator is not None:
            self.distance = DiscriminatorDistance(kept.discriminator.to(device))
        self.inputs = {
            "ground": ground.key,
            "networks": {
                "generator": network_key(kept.generator),
                "discriminator": None if kept.discriminator is None else network_key(kept.discriminator),
                "lpips": None if settings.lpips is None else checksums(settings.lpips),
            },
            "settings": settings.model_dump(mode="json", exclude={"ways", "reference", "percentile"}),
        }

    def invert(self, way: str, part: str, images: Slices) -> tuple[Inversion, float]:
        """The inversion of `images` and the seconds that each took; kept under the step of way and part."""
        step = self.ground.run.step(f"inversion/{way}/{part}")
        inputs = {**self.inputs, "way": way, "slices": len(images)}
        if way.startswith("encoder") and step.result(inputs) is None:
            self._encoder()  # its training is no time per slice
        recipe = {"way": way, **self.inputs["settings"]}
        return kept(step, inputs, recipe, lambda: self._compute(way, step, images))

    def _compute(self, way: str, step: Step, images: Slices) -> Inversion:
        settings = self.settings
        common: dict[str, Any] = {"perceptual": self.distance, "seed": settings.seed}
        start = None
        if way.startswith("encoder"):
            encoded = encode(self._encoder(), self.generator, images, perceptual=self.distance)
            if way == "encoder":
                return encoded
            start = encoded.ws
        if way != "pti":
            return project(
                self.generator,
                images,
                space="w" if way == "w" else "w+",
                noise="optimised" if way == "w+noise" else "constant",
                frame=settings.frame,
                steps=settings.steps,
                batch_size=settings.batch,
                step=step,
                start=start,
                **common,
            )
        pivot = project(
            self.generator,
            images,
            space="w",
            frame=settings.frame,
            steps=settings.steps,
            batch_size=settings.batch,
            step=Step(step.folder / "pivot"),
            **common,
        )
        tune = tune_each if settings.pti == "per_image" else tune_together
        tuned = tune(self.generator, images, pivot, steps=settings.pti_steps, step=step, **common)
        return tuned.inversion

    @cache  # noqa: B019 - lives as long as the run
    def _encoder(self) -> LatentEncoder:
        settings = self.settings
        return fit_encoder(
            self.generator,
            Stream(ArraySource(self.training), 8, seed=settings.seed, name="encoder"),
            self.ground.run.step("encoder"),
            perceptual=self.distance,
            images=settings.encoder_images,
            seed=settings.seed,
            fabric=self.ground.fabric,
        )


def finish(
    job: Job,
    ground: Ground,
    settings: InvertRunSettings,
    ways: Sequence[Way],
    unseen: SliceSet,
    known: Known,
) -> Finished:
    """Residuals as a table of files and of the page, pictures, checks."""
    write_text(job.run.residuals_csv, residual_table(ways, unseen))
    table = way_table(ways, unseen, settings.percentile)
    best = max(ways, key=lambda way: float(way.inversion.ms_ssim.mean()))
    remark = Sentence(best_words(best), "note" if known.seen else "caution")
    origin = Check(
        "Percentiles compare with what the generator learned from",
        "passed" if known.seen else "warning",
        known.words,
        "Otherwise a flag says only that a slice is met worse than its neighbours in this cohort.",
    )
    begun = begin_report(ground, job)
    report = replace(
        begun,
        tables=(table,),
        remarks=(remark,),
        galleries=tuple(gallery(way, unseen.images, job) for way in ways),
        checks=(*begun.checks, origin, *(flag_check(way, settings.percentile) for way in ways)),
        terms=TERMS,
    )
    write_report(job.run.report_json, report)
    write_page(report, [], job.run.report_html)
    lines = ["  ".join(row) for row in (table.columns, *table.rows)] + [remark.text]
    lines += [f"residuals: {job.run.residuals_csv}", f"report: {job.run.report_html}"]
    return Finished(ground, report, tuple(lines))


def plan(settings: InvertRunSettings) -> Sequence[Work]:
    """What `carry_out` will do depends on a generator that is not read for a dry run."""
    return []
