"""Latents of unseen slices, by several ways side by side, and how far each slice may be trusted.

W and W+ (Karras et al. 2020, appendix D), pivotal tuning (Roich et al. 2022), a feed-forward encoder
(Richardson et al. 2021). Slices of training patients are inverted by the same recipe: a case whose residual
lies beyond their stated percentile is flagged, because what the generator cannot draw, its features cannot
describe. Latents are kept as safetensors, with pictures original | reconstruction | difference.

    fewmask run invert --cohort MY_FILMS --out runs/invert generator=runs/gan/generator

Times and residuals on real scans: docs/results/.
"""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError
from fewmask.core.files import write_text
from fewmask.core.run import Step
from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.data.case import Case
from fewmask.data.overlay import contact_sheet, png_bytes, save_png
from fewmask.data.slices import SliceSet, prepare_slices
from fewmask.inversion.encoder import encode, fit_encoder
from fewmask.inversion.keep import read_inversion, read_recipe, write_inversion
from fewmask.inversion.lpips import checksums, read_lpips
from fewmask.inversion.pictures import DIFFERENCE_SCALE, comparison
from fewmask.inversion.project import Inversion, project
from fewmask.inversion.pti import tune_each, tune_together
from fewmask.inversion.residual import Residual, residual_gate, residuals
from fewmask.inversion.resume import clear_parts, network_key
from fewmask.metrics.bootstrap import Bootstrap
from fewmask.metrics.bootstrap import Table as Values
from fewmask.objectives.perceptual import DiscriminatorDistance, Distance, StructureDistance
from fewmask.recipes.generator import facts
from fewmask.recipes.ground import Ground
from fewmask.recipes.page import Finished, Job, begin_report, open_told
from fewmask.recipes.plan import Work
from fewmask.recipes.settings import InvertRunSettings, PrepareSettings, SplitSettings
from fewmask.report.content import Check, Gallery, Picture, Table, write_report
from fewmask.report.page import write_page
from fewmask.synthesis.keep import KeptGenerator, read_generator

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

SHEET = 6
"""Slices on each picture of originals and reconstructions."""

Slices = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Way:
    """What one way of inverting gave: the unseen slices, their residuals, and seconds per slice."""

    name: str
    inversion: Inversion
    rows: list[Residual]
    seconds: float


def carry_out(job: Job, settings: InvertRunSettings) -> Finished:
    """Invert unseen and training slices in every way, write latents, residuals, pictures and the page."""
    if settings.generator is None:
        raise ConfigError(
            "which generator?",
            where="generator",
            mend="Add e.g. generator=runs/gan/generator, made by `fewmask run gan` or `fewmask import`.",
        )
    kept = read_generator(settings.generator)
    settings = as_trained(settings, kept)
    ground = open_told(settings, job)
    unseen = slices_of(
        ground, settings, [c for c in ground.cohort.cases if c.patient not in ground.split.train]
    )
    training = slices_of(ground, settings, ground.training_cases)
    chosen = stream(settings.seed, "invert", "reference").permutation(len(training.images))
    usual = training.images[np.sort(chosen[: settings.reference])]
    refuse_channels(kept, unseen.images)
    inverter = Inverter(ground, settings, kept, training.images)
    names = [f"{ref.case} z{ref.z}" for ref in unseen.refs]
    ways = []
    for name in settings.ways:
        found, seconds = inverter.invert(name, "unseen", unseen.images)
        gate = residual_gate(inverter.invert(name, "training", usual)[0], percentile=settings.percentile)
        ways.append(Way(name, found, residuals(gate, names, unseen.images, found), seconds))
    return finish(job, ground, settings, ways, unseen, origin_check(kept, ground))


def as_trained(settings: InvertRunSettings, kept: KeptGenerator) -> InvertRunSettings:
    """Preparation, split and seed as the generator's training had them, where the user did not set them."""
    told, given = kept.told, settings.model_fields_set
    remembered: dict[str, Any] = {}
    if "prepare" in told and "prepare" not in given:
        remembered["prepare"] = PrepareSettings.model_validate(told["prepare"])
    if "split" in told and "split" not in given:
        remembered["split"] = SplitSettings.model_validate(told["split"])
    if "seed" in told and "seed" not in given:
        remembered["seed"] = told["seed"]
    size = kept.generator.resolution
    settings = settings.model_copy(update=remembered)
    if settings.prepare.dims != 2 or settings.prepare.size != (size, size):
        fitting = settings.prepare.model_copy(update={"size": (size, size), "dims": 2})
        settings = settings.model_copy(update={"prepare": fitting})
    return settings


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
    if images.shape[1] != kept.generator.channels:
        raise ConfigError(
            "the cohort's slices have other channels than the generator's",
            found=f"{images.shape[1]} channels (modalities x windows)",
            expected=f"{kept.generator.channels}, {', '.join(kept.told.get('modalities', ('unnamed',)))}",
            mend="Use the cohort's settings of the training, or import the checkpoint with --channels.",
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
        done = step.result({**self.inputs, "way": way, "slices": len(images)})
        if done is None:
            started = time.monotonic()
            found = self._compute(way, step, images)
            done = {"seconds": (time.monotonic() - started) / len(images), "mse": float(found.mse.mean())}
            write_inversion(step.inversion, found, {"way": way, **self.inputs["settings"]})
            step.finish(done)
            clear_parts(step)
        assert read_recipe(step.inversion)["way"] == way
        return read_inversion(step.inversion), float(done["seconds"])

    def _compute(self, way: str, step: Step, images: Slices) -> Inversion:
        settings = self.settings
        common: dict[str, Any] = {"perceptual": self.distance, "seed": settings.seed}
        if way == "encoder":
            return self._encoded(images)
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

    def _encoded(self, images: Slices) -> Inversion:
        settings = self.settings
        encoder = fit_encoder(
            self.generator,
            Stream(ArraySource(self.training), 8, seed=settings.seed, name="encoder"),
            self.ground.run.step("encoder"),
            perceptual=self.distance,
            images=settings.encoder_images,
            seed=settings.seed,
            fabric=self.ground.fabric,
        )
        return encode(encoder, self.generator, images, perceptual=self.distance)


def finish(
    job: Job,
    ground: Ground,
    settings: InvertRunSettings,
    ways: Sequence[Way],
    unseen: SliceSet,
    origin: Check,
) -> Finished:
    """Residuals as a table of files and of the page, pictures, checks."""
    write_text(job.run.residuals_csv, residual_table(ways, unseen))
    table = way_table(ways, unseen, settings.percentile)
    begun = begin_report(ground, job)
    report = replace(
        begun,
        tables=(table,),
        galleries=tuple(gallery(way, unseen.images, job) for way in ways),
        checks=(*begun.checks, origin, *(flag_check(way, settings.percentile) for way in ways)),
        terms=TERMS,
    )
    write_report(job.run.report_json, report)
    write_page(report, [], job.run.report_html)
    lines = ["  ".join(row) for row in (table.columns, *table.rows)]
    lines += [f"residuals: {job.run.residuals_csv}", f"report: {job.run.report_html}"]
    return Finished(ground, report, tuple(lines))


def origin_check(kept: KeptGenerator, ground: Ground) -> Check:
    """Did the generator learn from this run's training patients, and from no others?"""
    same = all(kept.told.get(name) == value for name, value in facts(ground).items())
    return Check(
        "The generator learned from this run's training patients",
        "passed" if same else "warning",
        "same cohort, split, preparation and seed"
        if same
        else "it was made from other scans or another split",
        "Percentiles compare with slices that the generator knows. Otherwise they compare with this cohort, "
        "and patients called unseen may have been seen.",
    )


def residual_table(ways: Sequence[Way], unseen: SliceSet) -> str:
    """residuals.csv: one line per way and slice."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    fields = list(asdict(ways[0].rows[0]))
    table.writerow(["way", "patient", *fields])
    for way in ways:
        for patient, row in zip(unseen.patients, way.rows, strict=True):
            table.writerow([way.name, patient, *asdict(row).values()])
    return text.getvalue()


def way_table(ways: Sequence[Way], unseen: SliceSet, percentile: float) -> Table:
    """Means over patients with 95 % intervals, one line per way."""
    lines = []
    for way in ways:
        numbers = {
            "mse": [row.mse for row in way.rows],
            "ms_ssim": [row.ms_ssim for row in way.rows],
            "perceptual": [row.perceptual for row in way.rows],
        }
        lines.append(
            (
                way.name,
                *(with_interval(values, unseen.patients) for values in numbers.values()),
                f"{sum(row.flagged for row in way.rows)} of {len(way.rows)}",
                f"{way.seconds:.2f}",
            )
        )
    columns = ("Way", "MSE", "MS-SSIM", "Perceptual", "Flagged", "Seconds per slice")
    note = (
        f"Slices of {len(set(unseen.patients))} unseen patients; means over patients [95 % bootstrap "
        f"interval]. Flagged: beyond the {percentile:g}th percentile of training slices."
    )
    return Table("Residuals", columns, tuple(lines), note)


def with_interval(values: Sequence[float], patients: Sequence[str]) -> str:
    """Mean over patients of their means, with its bootstrap interval."""
    of: dict[str, list[float]] = {}
    for value, patient in zip(values, patients, strict=True):
        of.setdefault(patient, []).append(value)
    means = np.array([[np.mean(each)] for each in of.values()])
    low, high = Bootstrap(10_000, 0.95, 0).interval(Values(tuple(of), (0,), means))
    ends = "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"
    return f"{means.mean():.4f}{ends}"


def gallery(way: Way, images: Slices, job: Job) -> Gallery:
    """The worst and the median slices of a way, each original | reconstruction | difference."""
    order = np.argsort([-row.percentile - row.mse / 1e3 for row in way.rows])
    middle = len(order) // 2
    groups = {"worst": order[:SHEET], "median": order[middle : middle + SHEET]}
    pictures = []
    for name, rows in groups.items():
        triples = np.concatenate([comparison(images[[row]], _only(way.inversion, row))[0] for row in rows])
        sheet = contact_sheet(triples[:, None], columns=3, zoom=max(1, 128 // images.shape[-1]))
        save_png(job.run.pictures / f"{way.name}-{name}.png", sheet)
        shown = "; ".join(
            f"{way.rows[row].case}: MSE {way.rows[row].mse:.4f}"
            + (f" (flagged: {way.rows[row].why})" if way.rows[row].flagged else "")
            for row in rows
        )
        alt = f"{name} slices by {way.name}: original, reconstruction, difference"
        pictures.append(Picture.of_png(png_bytes(sheet), alt, f"{name}, from above: {shown}"))
    note = (
        "Original, reconstruction, and reconstruction minus original around middle grey "
        f"(white: brighter by {DIFFERENCE_SCALE:g} or more of the range [-1, 1])."
    )
    return Gallery(f"By {way.name}", tuple(pictures), note)


def _only(inversion: Inversion, row: int) -> Inversion:
    one = slice(row, row + 1)
    return Inversion(
        inversion.ws[one],
        inversion.images[one],
        inversion.mse[one],
        inversion.perceptual[one],
        inversion.ms_ssim[one],
        tuple(each[one] for each in inversion.noise),
    )


def flag_check(way: Way, percentile: float) -> Check:
    """Are unseen slices met as training slices are?"""
    flagged = [row.case for row in way.rows if row.flagged]
    share, usual = len(flagged) / len(way.rows), 1 - percentile / 100
    named = ", ".join(flagged[:6]) + (", ..." if len(flagged) > 6 else "")
    return Check(
        f"Unseen slices are inverted as well as training slices ({way.name})",
        "passed" if share <= max(0.25, 2 * usual) else "warning",
        f"{share:.0%} flagged, {usual:.0%} of training slices would be" + (f": {named}" if flagged else ""),
        "Do not trust features or masks of a flagged slice: the generator draws another one in its place.",
    )


def plan(settings: InvertRunSettings) -> Sequence[Work]:
    """What `carry_out` will do depends on a generator that is not read for a dry run."""
    return []
