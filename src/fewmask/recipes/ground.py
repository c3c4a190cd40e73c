"""What every recipe stands on, labels or none: the cohort, its split by patient, how scans are prepared."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fewmask.core.errors import Problem
from fewmask.core.run import Run
from fewmask.data.check import check_cohort, gathered
from fewmask.data.cohort import Case, Cohort, read_cohort
from fewmask.data.phantom import write_phantom
from fewmask.data.prepare import Preparation
from fewmask.data.split import Split, split_by_patient
from fewmask.recipes.record import fingerprint
from fewmask.recipes.settings import GroundSettings, PrepareSettings
from fewmask.training.launch import Fabric, first_then_helpers, launch, shared_no_longer


@dataclass(frozen=True, eq=False)
class Ground:
    """A run whose cohort is read, checked and split."""

    run: Run
    settings: GroundSettings
    cohort: Cohort
    remarks: tuple[Problem, ...]
    split: Split
    preparation: Preparation
    fabric: Fabric

    @property
    def training_cases(self) -> tuple[Case, ...]:
        """All cases of the training patients, labelled or not."""
        return tuple(case for case in self.cohort.cases if case.patient in self.split.train)

    def alone(self) -> "Ground":
        """The same for process 0 after the last training that is shared; helpers end here."""
        return replace(self, fabric=shared_no_longer(self.fabric))

    @cached_property
    def key(self) -> dict[str, Any]:
        """What every step depends on, as JSON values: a step made under another key is not reused."""
        shared = self.settings.model_dump(mode="json", include={"seed", "cohort", "prepare", "split"})
        return {**shared, "cohort_files": fingerprint(self.cohort), "test": list(self.split.test)}


def open_ground(settings: GroundSettings, path: Path | None, run: Run) -> Ground:
    """Read and check the cohort and split it by patient.

    Raises:
        DataError: anything in the cohort that would make the run wrong, all of it at once.
        ConfigError: a device that is not there, or a split that leaves a part empty.
    """
    fabric = start(settings)
    with first_then_helpers(fabric):
        cohort = open_cohort(settings, path, run)
        remarks = checked(cohort, run)
    return Ground(
        run,
        settings,
        cohort,
        remarks,
        split_of(settings, cohort),
        preparation_of(settings.prepare, cohort),
        fabric,
    )


def start(settings: GroundSettings) -> Fabric:
    """Take the devices that the settings name."""
    return launch(
        device=settings.device,
        devices=settings.devices,
        machines=settings.machines,
        threads=settings.threads,
        precision=settings.precision,
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


def open_cohort(settings: GroundSettings, path: Path | None, run: Run) -> Cohort:
    """The user's cohort; without a path the built-in phantom, drawn into the run's folder."""
    if path is None:
        wanted = settings.phantom
        path = write_phantom(
            run.phantom,
            patients=wanted.patients,
            size=wanted.size,
            slices=wanted.slices,
            seed=settings.seed,
            classes={name: number for number, name in enumerate(wanted.classes, 1)},
            lesions=(wanted.lesion,),
        )
    wanted_of = settings.cohort
    return read_cohort(path, classes=wanted_of.classes, reader=wanted_of.reader, on_fault="report")


def split_of(settings: GroundSettings, cohort: Cohort) -> Split:
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
