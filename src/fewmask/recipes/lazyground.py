"""The two domains of a run of lazylabel, and the slices that every method is asked about."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError
from fewmask.data.boxes import native_rectangles, prepared_rectangles, read_boxes
from fewmask.data.case import Case
from fewmask.data.domains import ChosenDomains, DomainRule, LabelRule, TwoDomains, choose_domains, images_of
from fewmask.data.slices import SliceSet, prepare_slices
from fewmask.metrics.shortcut import FEWEST, Shortcut, mean_and_size, shortcut
from fewmask.recipes.ground import Ground
from fewmask.recipes.lazylabel_settings import LazylabelSettings
from fewmask.recipes.lazymaps import Scene
from fewmask.report.content import Check
from fewmask.synthesis.difference import body_mask
from fewmask.synthesis.healthy import Domains, Floats

NEITHER = -1


@dataclass(frozen=True, eq=False)
class LazyGround:
    """What a run of lazylabel stands on: the domains, training slices, and what methods are asked about."""

    chosen: ChosenDomains
    slices: SliceSet
    """Of training and validation patients."""
    scene: Scene

    @property
    def domains(self) -> Domains:
        """What methods learn from."""
        train = self.chosen.train
        diseased, healthy = (images_of(self.slices, kind) for kind in (train.diseased, train.healthy))
        return Domains(diseased.astype(np.float32), healthy.astype(np.float32))

    @property
    def image_labels(self) -> int:
        """Labels of whole images that methods and thresholds are given."""
        return len({one.ref for one in (*self.chosen.train.every, *self.chosen.validation.healthy)})

    def key(self) -> dict[str, Any]:
        """What every method's scores depend on besides the method, as JSON values."""
        return {"domains": self.chosen.to_json()}


def open_lazy(ground: Ground, settings: LazylabelSettings) -> LazyGround:
    """Choose the domains and prepare all slices.

    Raises:
        ConfigError: masks of several classes, or a cohort whose labels nothing tells.
        DataError: see `choose_domains` and `read_boxes`.
    """
    refuse_classes(ground)
    learning = [case for case in ground.cohort.cases if case.patient not in ground.split.test]
    asked = ground.split.cases(ground.cohort, "test")
    slices = prepare_slices(
        learning,
        ground.cohort,
        ground.preparation,
        masks=False,
        cap=settings.domains.slices_per_patient,
    )
    judged = all(case.masks for case in asked)
    test = prepare_slices(asked, ground.cohort, ground.preparation, masks=judged, rule=None)
    chosen = choose_domains(
        ground.cohort,
        ground.split,
        rule_of(settings),
        seed=settings.seed,
        slices=[*slices.refs, *test.refs],
        orientation=ground.preparation.orientation,
    )
    return LazyGround(chosen, slices, scene_of(ground, settings, chosen, slices, test))


def rule_of(settings: LazylabelSettings) -> DomainRule:
    """How the settings choose the domains. A test patient is in one of them, whatever they say."""
    how = settings.domains
    if how.tag is None:
        labels = LabelRule()
    else:
        labels = LabelRule(tag=how.tag, healthy=how.healthy, diseased=how.diseased)
    return DomainRule(
        labels=labels,
        disjoint=("train", "validation", "test") if how.disjoint else ("test",),
        matched=("train",) if how.match_height else (),
        repeats=how.repeats,
        stratify=how.stratify,
        position=how.position,
    )


def scene_of(
    ground: Ground,
    settings: LazylabelSettings,
    chosen: ChosenDomains,
    slices: SliceSet,
    test: SliceSet,
) -> Scene:
    """What every method is asked about."""
    healthy = images_of(slices, chosen.validation.healthy).astype(np.float32)
    within = settings.difference.body
    return Scene(
        healthy,
        body_mask(healthy) if within else None,
        test,
        body_mask(np.asarray(test.images, np.float32)) if within else None,
        labels_of(chosen.test, test),
        boxes_of(ground, settings, test),
    )


def labels_of(domains: TwoDomains, test: SliceSet) -> NDArray[np.int8]:
    """1 diseased, 0 healthy, `NEITHER` elsewhere, of every test slice (N,)."""
    place = {ref: row for row, ref in enumerate(test.refs)}
    labels = np.full(len(test.refs), NEITHER, np.int8)
    for one, ill in zip(domains.every, domains.is_diseased, strict=True):
        labels[place[one.ref]] = int(ill)
    return labels


def boxes_of(ground: Ground, settings: LazylabelSettings, test: SliceSet) -> tuple[Floats, ...] | None:
    """The boxes (K, 4) of every test slice, on its grid; None where nobody drew any."""
    if settings.boxes is None:
        return None
    drawn = read_boxes(ground.cohort.folder / settings.boxes, ground.cohort)
    return tuple(
        prepared_rectangles(native_rectangles(drawn.get(ref.case, ())), test.traces[ref.case])
        for ref in test.refs
    )


def shortcut_checks(lazy: LazyGround, settings: LazylabelSettings) -> tuple[Check, ...]:
    """Can the domain be told from a slice's height, or its brightness and size, alone?"""
    train = lazy.chosen.train
    counts = [len({one.patient for one in kind}) for kind in (train.diseased, train.healthy)]
    if min(counts) < FEWEST:
        return ()
    numbers = {
        "mean intensity and size": mean_and_size(
            np.concatenate([lazy.domains.diseased, lazy.domains.healthy])
        )
    }
    if not np.isnan(train.heights).any() and len(set(train.heights.tolist())) > 1:
        numbers = {"height in the scan": train.heights, **numbers}
    found = [
        shortcut(name, values, train.is_diseased, train.patients, seed=settings.seed)
        for name, values in numbers.items()
    ]
    return tuple(shortcut_check(one) for one in found)


def shortcut_check(found: Shortcut) -> Check:
    """One of them for the page."""
    return Check(
        f"The domain cannot be told from {found.of}",
        "warning" if found.tells else "passed",
        found.text(),
        "Nearest neighbours guess the domain of training slices of other patients from these numbers alone. "
        "Above chance, a method may learn them instead of the disease; disease itself changes the mean.",
    )


def refuse_classes(ground: Ground) -> None:
    """A `ConfigError` unless masks, where there are some, show one class: the disease."""
    classes = ground.cohort.classes
    if ground.cohort.labelled and len(classes) != 1:
        raise ConfigError(
            "lazylabel finds one thing, and the masks show several",
            where=str(ground.cohort.folder),
            found=", ".join(classes),
            expected="masks of one class, which are there to score only",
            mend="Declare the one class with cohort.classes, or keep its masks in a folder of their own.",
        )


def labelled_tests(ground: Ground) -> tuple[Case, ...]:
    """Test cases with a mask."""
    return tuple(case for case in ground.cohort.labelled if case.patient in ground.split.test)
