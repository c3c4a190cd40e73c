"""How far the pairs of a run may be trusted: their cards, and what the page says of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import ShapeError
from fewmask.core.volume import IGNORE
from fewmask.data.overlay import montage, overlay, png_bytes, with_legend
from fewmask.metrics.calibration import FEWEST as FEWEST_RANKED
from fewmask.metrics.calibration import UncertaintyCurve, uncertainty_curve
from fewmask.metrics.fidelity import Coverage, coverage
from fewmask.metrics.memorisation import FEWEST, CopyDetector
from fewmask.metrics.overlap import overlap as overlap_of
from fewmask.metrics.planted import Planted, plant_copies
from fewmask.recipes.factory import Factory, PairSet, oracle_masks
from fewmask.recipes.record import versions
from fewmask.recipes.semantic import Semantics
from fewmask.recipes.stage import Few, Labelled, every_draw
from fewmask.report.content import Check, Gallery, Picture, Table
from fewmask.segmenter.sources import encode
from fewmask.synthesis.card import CopyReport, card_of, examine
from fewmask.synthesis.card_file import write_card
from fewmask.synthesis.pairs import image_score
from fewmask.synthesis.pixelhead import in_batches, member_probabilities, uncertainty
from fewmask.synthesis.quality import embed
from fewmask.synthesis.sift import against_real

SHOWN, ZOOM = 12, 2
"""Pairs in a gallery, and how large a pixel is drawn."""

MOST = 200
"""At most so many pairs are looked at by the U-Net on all masks."""

TERMS = {
    "Left": "Pairs that stay when the most uncertain ones and those unlike the labelled slices are left out.",
    "Dice to the U-Net on all masks": "Mean over classes and at most 200 pairs: how far the pairs' masks "
    "agree with what a U-Net that learned all masks sees there. On the phantom it is the oracle.",
    "Copies": "Pairs nearer to a training slice than held-out real slices are; see the card.",
    "Covered": "Share of held-out real slices that lie among the pairs, by embedding; in brackets what as "
    "many training slices cover.",
    "Rank correlation": "Spearman's, of uncertainty and error (1 - Dice) over held-out real slices; 0 means "
    "that leaving out uncertain pairs throws dice.",
}


@dataclass(frozen=True)
class Judged:
    """What the page shows of a run's pairs."""

    checks: tuple[Check, ...] = ()
    tables: tuple[Table, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    terms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Looked:
    """One set of pairs, and what was found."""

    name: str
    drawn: PairSet
    copies: CopyReport | None
    covered: Coverage | None
    curve: UncertaintyCurve | None
    agreed: Mapping[str, float] | None


class Judge:
    """Looks at the pairs of every draw, and writes their cards."""

    def __init__(self, factory: Factory) -> None:
        self.factory, self.heads, self.stage = factory, factory.heads, factory.stage

    def judged(self, semantics: Semantics | None) -> Judged:
        """Everything about all sets; tables and pictures are of the first draw."""
        found: list[tuple[Few, Looked]] = []
        for few, items in every_draw(self.stage):
            if self.factory.settings.needs_pairs:
                found.append((few, self.look(few, items)))
            if semantics is not None and self.factory.settings.needs_semantic_pairs:
                drawn, name = semantics.pairs(few, items), f"mask branch, k = {few.count}"
                found.append((few, self.look_at(name, drawn, None, agreed=self._may_ask(few))))
        first = [one for few, one in found if few.draw == 0]
        if not first:
            return Judged()
        curves = [one for one in first if one.curve is not None]
        tables = (sets_table(first), frequencies_table(first[-1], self.real_masks))
        return Judged(
            copy_checks([one for _, one in found]),
            (*tables, *([curves_table(curves)] if curves else [])),
            (Gallery("Pairs", tuple(self.picture(one) for one in first)),),
            TERMS,
        )

    def _may_ask(self, few: Few) -> bool:
        """Whether the U-Net on all masks is asked about the pairs of a draw."""
        return few.draw == 0 and self.stage.settings.shots.full

    def look(self, few: Few, items: Labelled) -> Looked:
        """One set of pairs; its card is written beside it."""
        drawn = self.factory.of(few, items)
        curve = self._curve(few, items)
        return self.look_at(f"k = {few.count}", drawn, curve, agreed=self._may_ask(few))

    def look_at(
        self, name: str, drawn: PairSet, curve: UncertaintyCurve | None, *, agreed: bool = False
    ) -> Looked:
        """Pairs in any folder; `agreed`: ask the U-Net on all masks too."""
        images = np.asarray(drawn.images(), dtype=np.float32)
        looked = Looked(
            name,
            drawn,
            self._copies(drawn),
            self._covered(images),
            curve,
            self._agreed(drawn, images) if agreed else None,
        )
        kept = [drawn.records[number] for number in drawn.sifted.kept]
        card = card_of(
            drawn.pairs,
            copies=looked.copies,
            frequencies=against_real(kept, self.real_masks, self.stage.cohort.classes),
            coverage=looked.covered,
            uncertainty=looked.curve,
            versions=versions(),
        )
        write_card(drawn.pairs.folder, card)
        return looked

    @cached_property
    def real_masks(self) -> NDArray[np.uint8]:
        """All masks that this run holds, for comparison only: (M, H, W) label values."""
        return np.stack(self.stage.drawn.masks)

    @cached_property
    def patients(self) -> tuple[str, ...]:
        """Whose each test slice is."""
        of = {case.name: case.patient for case in self.stage.test_cases}
        owner = {row: of[case] for case, rows in self.heads.tested.rows_of.items() for row in rows}
        return tuple(owner[row] for row in range(len(owner)))

    @cached_property
    def detector(self) -> CopyDetector | None:
        """Knows all training slices; None where too few held-out ones tell what is usual."""
        held_out = self.heads.tested.images
        if len(held_out) < FEWEST:
            return None
        return CopyDetector.of(
            np.asarray(self.heads.unlabelled, dtype=np.float32),
            held_out,
            embed=lambda images: embed(self.heads.encoder, images),
            mirror=self.factory.settings.gan.mirror,
        )

    @cached_property
    def _planted(self) -> Planted:
        """How well the detector finds copies: the same for every set of pairs."""
        assert self.detector is not None
        return plant_copies(self.detector)

    def _copies(self, drawn: PairSet) -> CopyReport | None:
        if self.detector is None:
            return None
        several = len(set(self.patients)) > 1
        patients = self.patients if several else None
        return examine(drawn.pairs, self.detector, patients=patients, planted=self._planted)

    def _covered(self, images: NDArray[np.float32]) -> Coverage | None:
        vectors = [
            embed(self.heads.encoder, some)
            for some in (self.heads.tested.images, images, self.heads.unlabelled)
        ]
        try:
            return coverage(*vectors, seed=self.factory.settings.seed)
        except ShapeError:  # too few slices on one side
            return None

    def _curve(self, few: Few, items: Labelled) -> UncertaintyCurve | None:
        """Of the interpreter on test slices, where it answers on them anyway: inversions are dear."""
        heads, settings = self.heads, self.factory.settings
        if "interpreter" not in settings.arms or len(self.patients) < FEWEST_RANKED:
            return None
        head = self.factory.interpreter(few, items)

        def answer(image: Tensor, ws: Tensor | None) -> Tensor:
            each = member_probabilities([head.head], head.stack, image, ws)
            return torch.cat([each.mean(dim=0), uncertainty(each)[:, None]], dim=1)

        both = in_batches(answer, heads.tested.images, heads.tested_ws(head.reading), 16)
        masks = encode(np.stack(self.stage.test_items.masks), self.stage.labels, "test slices")
        answers = both[:, :-1].argmax(axis=1)
        dice = [_dice(one, mask, len(self.stage.labels)) for one, mask in zip(answers, masks, strict=True)]
        scores = image_score(torch.from_numpy(both[:, -1])).tolist()
        return uncertainty_curve(scores, [float(np.mean(one)) for one in dice], self.patients)

    def _agreed(self, drawn: PairSet, images: NDArray[np.float32]) -> dict[str, float]:
        """Dice of the pairs' masks and what the U-Net on all masks sees, by class."""
        numbers = drawn.sifted.kept[:MOST]
        seen = oracle_masks(self.stage, images[: len(numbers)])
        told = encode(np.stack([drawn.pairs.mask(n) for n in numbers]), self.stage.labels, "pairs")
        each = [_dice(one, mask, len(self.stage.labels)) for one, mask in zip(told, seen, strict=True)]
        return dict(zip(self.stage.cohort.classes, np.mean(each, axis=0).tolist(), strict=True))

    def picture(self, one: Looked) -> Picture:
        """The first pairs that stay, their masks outlined, with what they scored."""
        numbers, pairs = one.drawn.sifted.kept[:SHOWN], one.drawn.pairs
        side = ZOOM * max(self.stage.settings.prepare.size)
        drawn = [
            overlay(pairs.image(n)[0], pairs.mask(n), window=(-1, 1), size=(side, side)) for n in numbers
        ]
        titles = [f"{n}: {one.drawn.records[n].score:.2f}" for n in numbers]
        sheet = with_legend(montage(drawn, columns=6, titles=titles), self.stage.cohort.classes)
        caption = f"{one.name}: number and uncertainty"
        return Picture.of_png(png_bytes(sheet), f"Generated slices with masks, {caption}", caption)


def _dice(answer: NDArray[np.integer], mask: NDArray[np.uint8], classes: int) -> list[float]:
    """Of every class but the background; judged pixels only."""
    judged = mask != IGNORE
    return [overlap_of(answer == n, mask == n, judged).dice for n in range(1, classes)]


def sets_table(found: list[Looked]) -> Table:
    """How many pairs, how many stay, and how good they are."""
    rows = []
    for one in found:
        sifted, agreed = one.drawn.sifted, one.agreed
        reasons = ", ".join(f"{reason} {count}" for reason, count in list(sifted.counts.items())[:4])
        covered = "–" if one.covered is None else f"{one.covered.covered:.2f}"
        if one.covered is not None and one.covered.real_covered is not None:
            covered += f" ({one.covered.real_covered:.2f})"
        rows.append(
            (
                one.name,
                str(len(one.drawn.records)),
                str(len(sifted.kept)),
                reasons or "none",
                "–" if agreed is None else f"{float(np.mean(list(agreed.values()))):.3f}",
                "not looked for" if one.copies is None else str(len(one.copies.copies)),
                covered,
            )
        )
    columns = ("", "Pairs", "Left", "Left out for", "Dice to the U-Net on all masks", "Copies", "Covered")
    return Table("Pairs of the first draw", columns, tuple(rows), "Each folder of pairs has a card.")


def frequencies_table(one: Looked, real: NDArray[np.uint8]) -> Table:
    """Presence and area of every class, real against generated."""
    kept = [one.drawn.records[number] for number in one.drawn.sifted.kept]
    rows = [
        (
            row.class_name,
            f"{row.real_present:.0%}",
            f"{row.made_present:.0%}",
            _quartiles(row.real_area),
            _quartiles(row.made_area),
        )
        for row in against_real(kept, real, one.drawn.pairs.classes)
    ]
    columns = ("", "In real slices", "In pairs", "Area in real slices", "Area in pairs")
    title = f"Classes, real against generated, {one.name}"
    return Table(title, columns, tuple(rows), "Areas in pixels where shown: median [quartiles].")


def _quartiles(area: tuple[float, float, float] | None) -> str:
    return "–" if area is None else f"{area[1]:.0f} [{area[0]:.0f}, {area[2]:.0f}]"


def curves_table(found: list[Looked]) -> Table:
    """Does the interpreter know on real slices where it is wrong?"""
    rows = []
    for one in found:
        curve = one.curve
        assert curve is not None
        between = "" if curve.rank_interval is None else " [{:.2f}, {:.2f}]".format(*curve.rank_interval)
        fall = "" if curve.fall_interval is None else " [{:+.3f}, {:+.3f}]".format(*curve.fall_interval)
        told = (
            "–" if curve.rank is None else f"{curve.rank:.2f}{between}",
            f"{curve.error:.3f}",
            f"{curve.fall:+.3f}{fall}",
            f"{curve.best_fall:+.3f}",
        )
        rows.append((one.name, *(text.replace("-", "−") for text in told)))
    columns = ("", "Rank correlation", "Error, 1 - Dice", "Gained by leaving out a tenth", "At best")
    return Table("Uncertainty against error on test slices", columns, tuple(rows), "[95 %] over patients.")


def copy_checks(found: list[Looked]) -> tuple[Check, ...]:
    """Copies among all pairs, and whether the detector would have found them."""
    name, proof = "No pair is a copy of a training slice", "Planted copies of training slices are found"
    meaning = "Such a pair must not be shared; `fewmask export` refuses it."
    reports = [one.copies for one in found if one.copies is not None]
    if not reports:
        few = f"fewer than {FEWEST} held-out slices"
        return (Check(name, "not run", few, meaning), Check(proof, "not run", few, meaning))
    copied = sum(len(report.copies) for report in reports)
    looked = sum(len(report.examined) for report in reports)
    shares = [report.planted.share for report in reports if report.planted is not None]
    proven = all(report.proven for report in reports)
    return (
        Check(name, "failed" if copied else "passed", f"{copied} of {looked} pairs of all draws", meaning),
        Check(
            proof,
            "passed" if proven else "warning",
            f"{min(shares, default=0):.1%} of shifted, noisy, brighter and other copies are found",
            "Below 99 % of any kind the detector proves little; the card says which kinds it misses.",
        ),
    )
