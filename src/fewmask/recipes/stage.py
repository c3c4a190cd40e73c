"""What every recipe stands on: the cohort, its split by patient, and prepared slices or volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError, Problem
from fewmask.core.run import Run
from fewmask.data.check import check_cohort, gathered
from fewmask.data.cohort import Case, Cohort, read_case_mask, read_cohort, read_images
from fewmask.data.phantom import write_phantom
from fewmask.data.prepare import Preparation, prepare, prepare_mask
from fewmask.data.shots import Shot, Shots, draw_shots
from fewmask.data.slices import SliceRef, prepare_slices
from fewmask.data.split import Split, split_by_patient, write_split
from fewmask.recipes.record import fingerprint
from fewmask.recipes.settings import CommonSettings, PrepareSettings
from fewmask.training.launch import Fabric, launch

Float = NDArray[np.float32]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Prepared training data with masks.

    images: per item (C, H, W) or (C, Z, Y, X) float32 in [-1, 1]; masks: per item (H, W) or (Z, Y, X) uint8
    label values, 0 background, `IGNORE` unjudged; refs: which slice (or whole case) each item is.
    """

    images: Sequence[Float]
    masks: Sequence[Labels]
    refs: tuple[SliceRef, ...]

    def take(self, refs: Sequence[SliceRef]) -> "Labelled":
        """The items of `refs`, in their order."""
        place = {ref: row for row, ref in enumerate(self.refs)}
        rows = [place[ref] for ref in refs]
        return Labelled([self.images[row] for row in rows], [self.masks[row] for row in rows], tuple(refs))

    def labels_of(self, case: Case) -> Labels:
        """The prepared label map (Z, Y, X) of a case, its slices in order."""
        masks = [mask for mask, ref in zip(self.masks, self.refs, strict=True) if ref.case == case.name]
        return masks[0] if masks[0].ndim == 3 else np.stack(masks)

    @property
    def patients_text(self) -> str:
        """Cases in words, for the record."""
        return ", ".join(sorted({ref.case for ref in self.refs}))


@dataclass(frozen=True, eq=False)
class Stage:
    """A run that is ready to train: everything here follows from the settings and the cohort's files."""

    run: Run
    settings: CommonSettings
    cohort: Cohort
    remarks: tuple[Problem, ...]
    split: Split
    shots: Shots
    preparation: Preparation
    labelled: Labelled
    validation: Labelled | None
    fabric: Fabric

    @property
    def labels(self) -> tuple[int, ...]:
        """The label value of each class index, background first."""
        return (0, *self.cohort.classes.values())

    @property
    def test_cases(self) -> tuple[Case, ...]:
        """Labelled cases of the test patients: nothing that trains has seen them."""
        return tuple(case for case in self.cohort.labelled if case.patient in self.split.test)

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """All cases of the training patients, labelled or not."""
        return tuple(case for case in self.cohort.cases if case.patient in self.split.train)

    @cached_property
    def key(self) -> dict[str, Any]:
        """What every arm depends on, as JSON values: a step made under another key is not reused."""
        groups = {"seed", "cohort", "prepare", "split", "shots"}
        shared = self.settings.model_dump(mode="json", include=groups)
        return {**shared, "cohort_files": fingerprint(self.cohort), "test": list(self.split.test)}

    def items(self, shots: Sequence[Shot]) -> Labelled:
        """The labelled items that these shots are: slices, or all slices (volumes) of whole patients."""
        if self.shots.unit == "slice":
            return self.labelled.take([SliceRef(str(shot.case), int(shot.z or 0)) for shot in shots])
        wanted = {shot.patient for shot in shots}
        patient = {case.name: case.patient for case in self.cohort.cases}
        return self.labelled.take([ref for ref in self.labelled.refs if patient[ref.case] in wanted])


def open_stage(settings: CommonSettings, path: Path | None, run: Run) -> Stage:
    """Read and check the cohort, split it by patient, draw the shots, and prepare the labelled items.

    Raises:
        DataError: anything in the cohort that would make the run wrong, all of it at once.
        ConfigError: more shots than labelled patients or slices.
    """
    cohort = open_cohort(settings, path, run)
    remarks = checked(cohort, run)
    _refuse_unlabelled(cohort)
    split = split_of(settings, cohort)
    preparation = preparation_of(settings.prepare, cohort)
    train, validating = (
        [case for case in cohort.labelled if case.patient in patients]
        for patients in (split.train, split.validation)
    )
    labelled = prepare_labelled(train, cohort, preparation)
    shots = draw_shots(
        train,
        cohort,
        shots=settings.shots.counts,
        draws=settings.shots.draws,
        seed=settings.seed,
        unit=settings.shots.unit,
        labels=labelled.labels_of,
    )
    write_split(run.split_json, split, shots)
    return Stage(
        run,
        settings,
        cohort,
        remarks,
        split,
        shots,
        preparation,
        labelled,
        prepare_labelled(validating, cohort, preparation) if validating else None,
        launch(device=settings.device, threads=settings.threads),
    )


def checked(cohort: Cohort, run: Run) -> tuple[Problem, ...]:
    """The remarks of the cohort's check, made again only when a file has changed; faults are raised."""
    step, files = run.step("check"), fingerprint(cohort)
    result = step.result({})
    if result is None or result["files"] != files:
        report = check_cohort(cohort, pictures=run.pictures)
        report.raise_if_faulty()
        remarks = [asdict(one) for one in gathered(report.remarks)]
        result = step.finish({"files": files, "remarks": remarks})
    return tuple(Problem(**one) for one in result["remarks"])


def open_cohort(settings: CommonSettings, path: Path | None, run: Run) -> Cohort:
    """The user's cohort; without a path the built-in phantom, drawn into the run's folder."""
    if path is None:
        wanted = settings.phantom
        path = write_phantom(
            run.phantom, patients=wanted.patients, size=wanted.size, slices=wanted.slices, seed=settings.seed
        )
    wanted_of = settings.cohort
    return read_cohort(path, classes=wanted_of.classes, reader=wanted_of.reader, on_fault="report")


def split_of(settings: CommonSettings, cohort: Cohort) -> Split:
    """Who trains, validates and tests."""
    return split_by_patient(
        cohort.cases,
        seed=settings.seed,
        test=settings.split.test,
        validation=settings.split.validation,
        stratify=settings.split.stratify,
        reader=cohort.reader,
    )


def preparation_of(settings: PrepareSettings, cohort: Cohort) -> Preparation:
    """The preparation that the settings describe, for every modality of the cohort."""
    windows = settings.windows if settings.intensity == "windows" else (settings.intensity,)
    return Preparation(
        channels=dict.fromkeys(cohort.modalities, windows),
        axes="slices" if settings.dims == 2 else "volume",
        size=settings.size if settings.dims == 2 else None,
        spacing_mm=settings.spacing_mm if settings.dims == 3 else None,
        crop=settings.crop,
    )


def prepare_labelled(cases: Sequence[Case], cohort: Cohort, how: Preparation) -> Labelled:
    """Labelled cases as training items: every slice in 2-D (empty ones too), every whole case in 3-D."""
    if how.axes == "slices":
        slices = prepare_slices(cases, cohort, how, masks=True, rule=None)
        assert slices.masks is not None
        return Labelled(list(slices.images), list(slices.masks), slices.refs)
    images: list[Float] = []
    masks: list[Labels] = []
    for case in cases:
        ready = prepare(read_images(case), how)
        images.append(ready.image)
        masks.append(prepare_mask(read_case_mask(case, cohort), ready.trace))
    return Labelled(images, masks, tuple(SliceRef(case.name, 0) for case in cases))


@dataclass(frozen=True)
class Few:
    """One draw of k shots."""

    count: int
    draw: int
    shots: tuple[Shot, ...]


def every_draw(stage: Stage) -> Iterator[tuple[Few, Labelled]]:
    """Every draw of every k with its labelled items, small k first."""
    for count in sorted(stage.shots.counts):
        for draw in range(len(stage.shots.draws)):
            shots = stage.shots.take(draw, count)
            yield Few(count, draw, shots), stage.items(shots)


def _refuse_unlabelled(cohort: Cohort) -> None:
    if not cohort.labelled:
        raise DataError(
            "no case has a mask",
            where=str(cohort.folder),
            expected="at least a few labelled cases: some to learn from, some to test on",
            mend="Put masks under masks/ with the names of their images; see `fewmask check`.",
        )
    if len({case.patient for case in cohort.labelled}) < 2:
        raise ConfigError(
            "one labelled patient cannot be both learned from and tested on",
            where=str(cohort.folder),
            mend="Label at least one more patient.",
        )
