"""The card of a set of pairs: what it was made from, and what is known of how far it may be trusted.

What nobody measured is None, and is said to be missing in the card's words (`card_words`). The report on
copies of training images names the pairs that were looked at by their checksums: pairs that are drawn or
changed later are not covered by it. `card_file` puts a card beside its pairs.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError
from fewmask.metrics.calibration import UncertaintyCurve
from fewmask.metrics.fidelity import Coverage
from fewmask.metrics.memorisation import CopyDetector, memorisation
from fewmask.metrics.planted import Planted, false_alarms, plant_copies
from fewmask.metrics.shapes import ClassRow
from fewmask.synthesis.factory import PairFolder, Record
from fewmask.synthesis.sift import read_sifted

_BLOCK = 256
"""Images that are looked at together."""


@dataclass(frozen=True)
class CopyReport:
    """Whether pairs are copies of training images.

    examined: numbers of the pairs that were looked at; digest: `digest_of` these; copies: those of them that
    are copies; training, held_out: real images on either side; numbers: `Memorisation.numbers`, medians and
    thresholds of every distance; false_alarms: share of held-out images that are called copies by what other
    held-out patients say, 0-1; planted: how many planted copies were found, None when none were planted.
    """

    examined: tuple[int, ...]
    digest: str
    copies: tuple[int, ...]
    training: int
    held_out: int
    numbers: Mapping[str, float]
    false_alarms: float | None
    planted: Planted | None

    @property
    def proven(self) -> bool:
        """Whether the detector is known to find copies."""
        return self.planted is not None and self.planted.proven


@dataclass(frozen=True)
class Card:
    """All that is known of a set of pairs; None: nobody measured or told it. Made by `card_of`.

    generator: a hash of its weights; made_from: settings, keys and seeds, as `make_pairs` got them; kept,
    refused: how many pairs `sift` chose, and how many each reason refused; frequencies: presence and area of
    every class, real against generated; licence: a line of the user's; versions: of what made the card.
    """

    generator: str | None
    made_from: Mapping[str, Any]
    classes: Mapping[str, int]
    modalities: tuple[str, ...]
    drawn: int
    kept: int | None
    refused: Mapping[str, int] | None
    copies: CopyReport | None
    frequencies: tuple[ClassRow, ...] | None
    coverage: Coverage | None
    uncertainty: UncertaintyCurve | None
    licence: str | None
    versions: Mapping[str, str]


def card_of(
    pairs: PairFolder,
    *,
    generator: str | None = None,
    copies: CopyReport | None = None,
    frequencies: Sequence[ClassRow] | None = None,
    coverage: Coverage | None = None,
    uncertainty: UncertaintyCurve | None = None,
    licence: str | None = None,
    versions: Mapping[str, str] | None = None,
) -> Card:
    """The card of a folder of pairs, with whatever else is known.

    Args:
        pairs: its pairs are counted, and those that `write_sifted` kept.
        generator: hash of the generator; None: what `made_from` says under "generator", if that is a word.
        copies: from `examine`.
        frequencies: from `sift.against_real`.
        coverage: from `metrics.fidelity.coverage`.
        uncertainty: from `metrics.calibration.uncertainty_curve`, on held-out real images.
        licence: on which terms the pairs may be used, in one line.
        versions: of the packages that the pairs depend on; None: fewmask's alone.

    Raises `ConfigError` when the licence has more than one line.
    """
    if licence is not None and len(licence.strip().splitlines()) != 1:
        raise ConfigError("a licence must be said in one line", found=repr(licence))
    told = pairs.made_from.get("generator")
    chosen = read_sifted(pairs)
    return Card(
        generator=generator or (told if isinstance(told, str) and told else None),
        made_from=dict(pairs.made_from),
        classes=dict(pairs.classes),
        modalities=pairs.modalities,
        drawn=len(pairs.records()),
        kept=None if chosen is None else len(chosen.kept),
        refused=None if chosen is None else chosen.counts,
        copies=copies,
        frequencies=None if frequencies is None else tuple(frequencies),
        coverage=coverage,
        uncertainty=uncertainty,
        licence=None if licence is None else licence.strip(),
        versions=dict(versions) if versions is not None else {"fewmask": version("fewmask")},
    )


def examine(
    pairs: PairFolder,
    detector: CopyDetector,
    *,
    patients: NDArray[np.generic] | Sequence[str] | None = None,
    numbers: Iterable[int] | None = None,
    plants: int = 200,
    planted: Planted | None = None,
    seed: int = 0,
) -> CopyReport:
    """Look for copies of training images among pairs, as their files hold them, and prove the detector.

    Args:
        pairs: at least one.
        detector: of all training images and held-out ones, prepared as the generator's images are.
        patients: (H,) whose image each held-out one of the detector is; None: false alarms are not counted.
        numbers: which pairs; None: all there are. `export` takes only pairs that were looked at.
        plants: copies to plant of each kind; 0: none, and the detector stays unproven.
        planted: what `plant_copies` found with this detector before, for several sets of pairs; None: now.
        seed: of the planted copies.
    """
    records = pairs.records()
    asked = tuple(sorted(records if numbers is None else set(numbers)))
    blocks = (asked[first : first + _BLOCK] for first in range(0, len(asked), _BLOCK))
    found = memorisation(detector, (np.stack([pairs.image(n) for n in block]) for block in blocks))
    if planted is None and plants:
        planted = plant_copies(detector, most=plants, seed=seed)
    alarms = None if patients is None else false_alarms(detector, np.asarray(patients))
    return CopyReport(
        examined=asked,
        digest=digest_of(records, asked),
        copies=tuple(asked[row] for row in found.copies),
        training=len(detector.training),
        held_out=len(next(iter(detector.held_out.values()))),
        numbers=found.numbers(),
        false_alarms=alarms,
        planted=planted,
    )


def digest_of(records: Mapping[int, Record], numbers: Iterable[int]) -> str:
    """A hash of the images and masks of some pairs."""
    lines = (f"{n} {records[n].image_sha256} {records[n].mask_sha256}" for n in sorted(numbers))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
