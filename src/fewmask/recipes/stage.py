"""What a recipe that segments stands on: the ground, the k-shot draws, and prepared slices or volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.run import Run
from fewmask.data.cohort import Case, Cohort, read_case_mask, read_images
from fewmask.data.prepare import Preparation, prepare, prepare_mask
from fewmask.data.shots import Embed, Shot, Shots, draw_shots
from fewmask.data.slices import SliceRef, prepare_slices
from fewmask.data.split import Split, write_split
from fewmask.recipes.embedding import PER_PATIENT, embedded, learn_encoder, unlabelled_slices
from fewmask.recipes.ground import Ground
from fewmask.recipes.settings import CommonSettings
from fewmask.training.launch import Fabric

Float = NDArray[np.floating]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Prepared training data with masks.

    images: per item (C, H, W) float16 or (C, Z, Y, X) float32 in [-1, 1]; masks: per item (H, W) or
    (Z, Y, X) uint8 label values, 0 background, `IGNORE` unjudged; refs: which slice or case each item is.
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
    """A run that is ready to train segmenters: all here follows from the settings and the cohort's files.

    drawn: the items of all draws, or all labelled training items where the settings ask for full supervision;
    validation: the items of the validation patients.
    """

    ground: Ground
    settings: CommonSettings
    shots: Shots
    drawn: Labelled
    validation: Labelled | None

    @property
    def run(self) -> Run:
        """The run's folder."""
        return self.ground.run

    @property
    def cohort(self) -> Cohort:
        """All cases."""
        return self.ground.cohort

    @property
    def split(self) -> Split:
        """Which patient is in which part."""
        return self.ground.split

    @property
    def preparation(self) -> Preparation:
        """From a scan to what the network sees."""
        return self.ground.preparation

    @property
    def fabric(self) -> Fabric:
        """Where to compute."""
        return self.ground.fabric

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
        return self.ground.training_cases

    @cached_property
    def key(self) -> dict[str, Any]:
        """What every arm depends on, as JSON values: a step made under another key is not reused.

        Which items it learns from, an arm tells itself; so more draws, or another k, leave what is done.
        """
        told = self.settings.shots.model_dump(mode="json", include={"choice", "unit"})
        if self.shots.choice == "coverage":
            told["encoder"] = self.settings.encoder.model_dump(mode="json")
        return {**self.ground.key, "shots": told}

    @property
    def labelled(self) -> Labelled:
        """All labelled training items; a run without full supervision holds only those that were drawn."""
        assert self.settings.shots.full, "only full supervision needs all of them"
        return self.drawn

    @cached_property
    def test_items(self) -> Labelled:
        """The test cases as training items would be; nothing learns from them."""
        return prepare_labelled(self.test_cases, self.cohort, self.preparation)

    def items(self, shots: Sequence[Shot]) -> Labelled:
        """The labelled items that these shots are: slices, or all slices (volumes) of whole patients."""
        if self.shots.unit == "slice":
            return self.drawn.take([SliceRef(str(shot.case), int(shot.z or 0)) for shot in shots])
        wanted = {shot.patient for shot in shots}
        patient = {case.name: case.patient for case in self.cohort.cases}
        return self.drawn.take([ref for ref in self.drawn.refs if patient[ref.case] in wanted])


def open_stage(settings: CommonSettings, ground: Ground) -> Stage:
    """Draw the shots, and prepare the labelled items: all of them for full supervision, else the drawn ones.

    Raises:
        DataError: no case has a mask.
        ConfigError: more shots than labelled patients or slices.
    """
    cohort, split = ground.cohort, ground.split
    _refuse_unlabelled(cohort)
    train, validating = (
        [case for case in cohort.labelled if case.patient in patients]
        for patients in (split.train, split.validation)
    )
    every = prepare_labelled(train, cohort, ground.preparation) if settings.shots.full else None
    shots = draw_shots(
        train if settings.shots.choice == "random" else ground.training_cases,
        cohort,
        shots=settings.shots.counts,
        draws=settings.shots.draws,
        seed=settings.seed,
        unit=settings.shots.unit,
        labels=(lambda case: prepared_labels(case, ground)) if every is None else every.labels_of,
        choice=settings.shots.choice,
        embed=None if settings.shots.choice == "random" else coverage(settings, ground),
    )
    write_split(ground.run.split_json, split, shots)
    drawn = prepare_drawn(shots, train, ground) if every is None else every
    held_out = prepare_labelled(validating, cohort, ground.preparation) if validating else None
    return Stage(ground, settings, shots, drawn, held_out)


def coverage(settings: CommonSettings, ground: Ground) -> Embed:
    """Where slices lie in the eyes of an encoder that learned all training slices without labels."""
    encoder = learn_encoder(ground, unlabelled_slices(ground, cap=PER_PATIENT), settings.encoder.images)
    return embedded(ground, encoder)


def prepared_labels(case: Case, ground: Ground) -> Labels:
    """The prepared label map (Z, Y, X) of a case; nothing of the case is kept."""
    trace = prepare(read_images(case), ground.preparation).trace
    return prepare_mask(read_case_mask(case, ground.cohort), trace)


def prepare_drawn(shots: Shots, cases: Sequence[Case], ground: Ground) -> Labelled:
    """The items of all draws; of cases with drawn slices only these are kept."""
    if shots.unit == "patient":
        whole = [case for case in cases if case.patient in shots.patients]
        return prepare_labelled(whole, ground.cohort, ground.preparation)
    wanted = {SliceRef(str(shot.case), int(shot.z or 0)) for draw in shots.draws for shot in draw}
    names = {ref.case for ref in wanted}
    images: list[Float] = []
    masks: list[Labels] = []
    refs: list[SliceRef] = []
    for case in (case for case in cases if case.name in names):
        items = prepare_labelled([case], ground.cohort, ground.preparation)
        for image, mask, ref in zip(items.images, items.masks, items.refs, strict=True):
            if ref in wanted:
                images.append(image.copy())  # a view would hold the whole case
                masks.append(mask.copy())
                refs.append(ref)
    return Labelled(images, masks, tuple(refs))


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
    """Every draw of every k with its labelled items: draw by draw, small k first."""
    for draw in range(len(stage.shots.draws)):
        for count in sorted(stage.shots.counts):
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
