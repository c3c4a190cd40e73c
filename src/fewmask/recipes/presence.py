"""Image-level labels of training slices: which of them show what is rare, lest the generator forget it.

Page `synthetic`, failure "missing rare class": slices with it and without it are shown equally often, or the
generator is told of each which one it is and draws either on demand. Such a label is knowledge of an expert
about training slices that the other arms do not have: it is counted, and told on the page.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import ConfigError
from fewmask.data.case import Case
from fewmask.data.slices import SliceSet, prepare_slices
from fewmask.recipes.ground import Ground
from fewmask.recipes.settings import MASKS, GANSettings
from fewmask.synthesis.generator import Slices
from fewmask.synthesis.keep import KeptGenerator

VALUES = ("absent", "present")
"""What the numbers of a generator's label mean, in their order."""

_USUAL = ({"0", "1"}, {"no", "yes"}, {"false", "true"}, {"negative", "positive"}, {"absent", "present"})
"""Pairs of a tag's values whose second one (in this order, which is the alphabet's) says that it is there."""

Shown = NDArray[np.bool_]


def training_set(ground: Ground, gan: GANSettings) -> SliceSet:
    """What a generator learns from: slices with content of all training patients, so many of each at most.

    With their masks where image-level labels are read off these.

    Raises:
        ConfigError: a training case without a mask then.
    """
    masks = gan.presence == MASKS
    if masks:
        _refuse_unmasked(ground)
        _refuse_unknown(ground)
    return prepare_slices(
        ground.training_cases, ground.cohort, ground.preparation, masks=masks, cap=gan.slices_per_patient
    )


def learned_slices(
    ground: Ground, gan: GANSettings, slices: SliceSet, *, intensities: Mapping[str, Any] | None = None
) -> Slices:
    """The slices of `training_set` with what a generator is told of them.

    Raises:
        ConfigError: image-level labels that cannot be had, or are the same for all slices.
    """
    if gan.presence is None:
        return Slices(slices.images, intensities=intensities)
    shown = shown_in(ground, gan.presence, slices)
    return Slices(
        slices.images,
        one_hot(shown) if gan.conditional else None,
        intensities=intensities,
        weights=balanced(shown) if gan.balance else None,
    )


def held_out_slices(
    ground: Ground, gan: GANSettings, slices: SliceSet, *, intensities: Mapping[str, Any] | None = None
) -> Slices | None:
    """Slices of other patients as the discriminator may look at them; None where it would need their labels.

    Tags of test cases may be looked at, and their masks are not.
    """
    if not gan.conditional:
        return Slices(slices.images, intensities=intensities)
    if gan.presence is None or gan.presence == MASKS:
        return None
    tag, present = _parsed(gan.presence)
    pair = values_of(ground.training_cases, tag, present)
    of = {case.name: case.tags.get(tag, "") for case in ground.cohort.cases}
    found = [of[ref.case] for ref in slices.refs]
    if not set(found) <= set(pair):
        return None
    shown = np.array([value == pair[1] for value in found])
    return Slices(slices.images, one_hot(shown), intensities=intensities)


def shown_in(ground: Ground, presence: str, slices: SliceSet) -> Shown:
    """Of each slice (N,) whether it shows what is rare: by its mask, or by the tag of its case.

    Raises:
        ConfigError: a tag that is missing, has other than two values, or of cases with several slices; or
            all slices, or none, show it.
    """
    if presence == MASKS:
        assert slices.masks is not None, "training_set prepares masks"
        values = [ground.cohort.classes[name] for name in looked_for(ground)]
        shown = np.asarray(np.isin(slices.masks, values).any(axis=(1, 2)))
        _refuse_uniform(shown, looked_for(ground))
        return shown
    tag, present = _parsed(presence)
    _refuse_volumes(slices, tag)
    pair = values_of(ground.training_cases, tag, present)
    of = {case.name: case.tags[tag] for case in ground.training_cases}
    shown = np.array([of[ref.case] == pair[1] for ref in slices.refs])
    _refuse_uniform(shown, (f"{tag}={pair[1]}",))
    return shown


def looked_for(ground: Ground) -> tuple[str, ...]:
    """The classes that masks are searched for: those of cohort.lesions, or all."""
    classes = ground.cohort.classes
    return tuple(name for name in classes if name in ground.settings.cohort.lesions) or tuple(classes)


def values_of(cases: Sequence[Case], tag: str, present: str | None) -> tuple[str, str]:
    """The two values of a tag in cases: absent, present.

    Raises:
        ConfigError: a case without the tag, other than two values, or nobody says which means present.
    """
    found = sorted({case.tags.get(tag, "") for case in cases})
    if "" in found or len(found) != 2:
        raise ConfigError(
            f"the tag {tag!r} does not tell what is present",
            where="gan.presence",
            found=f"values {', '.join(map(repr, found))}",
            expected="exactly two values, one in every training case",
            mend="Give the tag as a column of cases.csv or index.csv; or set gan.presence=masks.",
        )
    if present is None and {value.lower() for value in found} in _USUAL:
        present = sorted(found, key=str.lower)[1]
    if present not in found:
        raise ConfigError(
            f"which value of the tag {tag!r} means present?",
            where="gan.presence",
            found=f"{present or 'none named'}, of {found[0]!r} and {found[1]!r}",
            expected="the tag and one of its values",
            mend=f"Set gan.presence={tag}={found[1]}, if that is it.",
        )
    return (found[1], found[0]) if present == found[0] else (found[0], found[1])


def one_hot(shown: Shown) -> NDArray[np.float32]:
    """Labels (N, 2) in the order of `VALUES`."""
    return np.stack([~shown, shown], axis=1).astype(np.float32)


def balanced(shown: Shown) -> NDArray[np.float64]:
    """Weights (N,) that sum up to 1/2 over the slices with, and to 1/2 over those without."""
    count = int(shown.sum())
    return np.where(shown, 0.5 / count, 0.5 / (len(shown) - count))


def label_rows(share: float) -> Tensor:
    """A thousand labels (1000, 2), "present" in `share` of them: what pairs draw from."""
    return torch.from_numpy(one_hot(np.arange(1000) < round(1000 * share)))


def told_of_presence(ground: Ground, gan: GANSettings) -> dict[str, Any] | None:
    """What a generator was told, as JSON values that are kept with it; None: nothing."""
    if gan.presence is None:
        return None
    by: dict[str, Any] = {"masks": list(looked_for(ground))}
    if gan.presence != MASKS:
        tag, present = _parsed(gan.presence)
        by = {"tag": tag, **dict(zip(VALUES, values_of(ground.training_cases, tag, present), strict=True))}
    classes = list(VALUES) if gan.conditional else []
    return {"by": by, "balance": gan.balance, "classes": classes}


def refuse_other_presence(
    ground: Ground, gan: GANSettings, kept: KeptGenerator, where: str, classes: int
) -> None:
    """A `ConfigError` unless a ready generator has so many classes and was told what the settings say."""
    theirs, ours = kept.told.get("presence"), told_of_presence(ground, gan)
    if theirs == ours and kept.generator.classes == classes:
        return
    tag = (kept.told.get("condition") or {}).get("tag")
    other = f"{kept.generator.classes} classes, of the tag {tag!r}" if theirs is None else str(theirs)
    none = theirs is None and not kept.generator.classes
    raise ConfigError(
        "the generator was told something else of its slices",
        where=where,
        found="nothing" if none else other,
        expected="nothing" if ours is None else str(ours),
        mend="Give both runs the same gan.presence, gan.balance, gan.conditional and cohort.lesions, and no "
        "condition.",
    )


def labels_given(gan: GANSettings, slices: int) -> int:
    """How many image-level labels an expert had to give: one for each of so many training slices."""
    return 0 if gan.presence is None else slices


def presence_words(told: Mapping[str, Any], slices: int) -> str:
    """In one sentence, what image-level labels were used, and whence."""
    by = told["by"]
    source = (
        f"the masks of all training patients (any of {', '.join(by['masks'])} in the slice)"
        if "masks" in by
        else f"the tag {by['tag']} ({by['present']}: present)"
    )
    use = [
        *(["shown equally often with and without"] if told["balance"] else []),
        *(["drawn on demand with or without"] if told["classes"] else []),
    ]
    return f"{slices} training slices have an image-level label from {source}: {' and '.join(use)}"


def _parsed(presence: str) -> tuple[str, str | None]:
    """Tag and the value that means present, from "tag" or "tag=value"."""
    tag, _, value = presence.partition("=")
    return tag, value or None


def _refuse_unmasked(ground: Ground) -> None:
    known = {case.name for case in ground.cohort.labelled}
    lacking = [case.name for case in ground.training_cases if case.name not in known]
    if lacking:
        raise ConfigError(
            "masks tell what a slice shows only where there is one",
            where="gan.presence",
            found=f"{len(lacking)} training cases without a mask: {', '.join(lacking[:6])}",
            expected="a mask of every training case",
            mend="Give the image-level label as a tag of the cases, and its name as gan.presence.",
        )


def _refuse_unknown(ground: Ground) -> None:
    unknown = [name for name in ground.settings.cohort.lesions if name not in ground.cohort.classes]
    if unknown:
        raise ConfigError(
            "masks cannot be searched for classes that they do not have",
            where="cohort.lesions",
            found=", ".join(unknown),
            expected=f"some of {', '.join(ground.cohort.classes)}",
            mend="Correct cohort.lesions, or set cohort.lesions=[] to look for any class.",
        )


def _refuse_volumes(slices: SliceSet, tag: str) -> None:
    many = [name for name, count in Counter(ref.case for ref in slices.refs).items() if count > 1]
    if many:
        raise ConfigError(
            f"the tag {tag!r} is of whole cases, and does not tell which slices show it",
            where="gan.presence",
            found=f"{len(many)} cases of several slices: {', '.join(many[:6])}",
            expected="cases that are pictures",
            mend="Set gan.presence=masks; or make each slice a case.",
        )


def _refuse_uniform(shown: Shown, names: Collection[str]) -> None:
    if not shown.any() or shown.all():
        raise ConfigError(
            "all training slices are alike in what is to be told apart",
            where="gan.presence",
            found=f"{int(shown.sum())} of {len(shown)} show {' or '.join(names)}",
            expected="some that do, and some that do not",
            mend="Name the rare classes in cohort.lesions (gan.presence=masks), or set gan.presence=null.",
        )
