"""What the page of a run of lazylabel says besides the scores of masks."""

from collections.abc import Mapping, Sequence

from fewmask.core.run import Run
from fewmask.data.domains import DomainSlice
from fewmask.metrics.score import Row
from fewmask.recipes.arms import place
from fewmask.recipes.lazyground import LazyGround
from fewmask.recipes.lazylabel_settings import LazylabelSettings
from fewmask.report.content import (
    Arm,
    Deviation,
    Gallery,
    LedgerLine,
    Picture,
    Sentence,
    Table,
    expert_minutes,
)

COLUMNS = (
    "AUPRC, pixels",
    "AUROC, pixels",
    "AUROC, images",
    "false-positive area",
    "identity error",
    "pointing",
    "pointing, no tolerance",
    "IoU with boxes",
    "acc_mse_binary",
    "acc_mse_soft",
    "prevalence",
)
"""Scores of maps, in the order of the table's columns; those that no arm has are left out."""

TERMS = {
    "AUPRC, AUROC, pixels": "Areas under the precision-recall and ROC curves over all pixels of the diseased "
    "test slices; by chance the prevalence, and 0.5.",
    "AUROC, images": "How well the largest value of a map tells diseased from healthy test slices.",
    "false-positive area": "Share of the bodies of healthy test slices that the masks cover.",
    "identity error": "Mean |G(y) - y| of healthy test slices, in grey levels of [-1, 1]: what a method "
    "changes although nothing is wrong.",
    "pointing": "Share of slices with boxes whose map is largest in one, or at most 3 % of the side from it.",
    "IoU with boxes": "Of the mask with the union of a slice's boxes; a round lesion's outline reaches 0.79.",
    "acc_mse_binary": "1 - mean squared error of the mask, which is the share of right pixels: the "
    "document's accuracy. The empty mask has 1 - prevalence.",
    "acc_mse_soft": "The same of the map itself, which is no share of right pixels: 0.5 everywhere has 75 %.",
    "prevalence": "Share of diseased pixels in diseased slices.",
}


def map_table(told: Mapping[str, Mapping[str, str]]) -> Table:
    """One line per arm, with the scores that any of them has."""
    columns = [name for name in COLUMNS if any(name in scores for scores in told.values())]
    rows = tuple((arm, *(scores.get(name, "–") for name in columns)) for arm, scores in told.items())
    return Table(
        "Maps",
        ("", *columns),
        rows,
        "Over the slices of the test domains, on the prepared grid; of several trainings the first. "
        "Intervals of 95 % over patients. An accuracy below the empty mask's is worse than none.",
    )


def domain_table(lazy: LazyGround) -> Table:
    """How many slices and patients each domain has in each part, and what was left out."""
    rows = tuple(
        (part, counted(both.diseased), counted(both.healthy)) for part, both in lazy.chosen.parts().items()
    )
    left = "; ".join(f"{count} {reason}" for reason, count in lazy.chosen.left_out.items())
    note = f"Left out: {left}." if left else "Nothing was left out."
    return Table("Domains", ("", "diseased, patients", "healthy, patients"), rows, note)


def counted(domain: Sequence[DomainSlice]) -> str:
    """Slices and patients of a domain in words; a slice that is shown more often counts once."""
    return f"{len({one.ref for one in domain})} slices of {len({one.patient for one in domain})}"


def ledger(lazy: LazyGround, arms: Sequence[Arm]) -> tuple[LedgerLine, ...]:
    """What each arm was given: labels of whole images, or healthy ones alone, or nothing."""
    healthy = len({one.ref for one in (*lazy.chosen.train.healthy, *lazy.chosen.validation.healthy)})
    lines = []
    for arm in arms:
        count = lazy.image_labels
        if arm.kind == "trivial":
            count = 0
        elif arm.key in ("intensity", "intensity here", "autoencoder"):
            count = healthy
        lines.append(LedgerLine(arm.key, 0, 0, count, 0, expert_minutes(image_labels=count)))
    return tuple(lines)


def galleries(run: Run, arms: Sequence[Arm]) -> tuple[Gallery, ...]:
    """A sheet for each arm that has one: slice, made healthy, map, mask, reference."""
    pictures = []
    for arm in arms:
        path = run.step(f"{place(arm.key, 0, 0)}/scores").sample_png(0)
        if path.is_file() and arm.kind != "trivial":
            caption = arm.name
            pictures.append(
                Picture.of_file(path, run.folder, f"Diseased test slices by the {caption}", caption)
            )
    note = "From left to right: slice, what the method made of it, how much it changed, mask, reference."
    return (Gallery("Diseased test slices", tuple(pictures), note),) if pictures else ()


def deviations(settings: LazylabelSettings) -> tuple[Deviation, ...]:
    """Where the run departs from the document."""
    side = min(settings.prepare.size)
    return (
        Deviation(
            "metric",
            "accuracy, as one minus the mean squared error",
            "Dice and areas under curves; the accuracy stands in the table under its own name",
            "an empty mask has a high accuracy",
        ),
        Deviation(
            "threshold",
            "0.3 to 0.8 of each image's own maximum, found by eye",
            "calibrated on healthy validation slices; the document's rule is an arm of its own",
            "by the document's rule every healthy image gets a mask",
        ),
        Deviation("size", "64 and 128 pixels", f"{side} pixels", "as prepare.size says"),
        Deviation(
            "augmentation",
            "rotation by 5 degrees and a flip",
            "rotation by 5 degrees, small shifts and scales, no flip",
            "anatomy is asymmetric",
        ),
        Deviation(
            "length",
            "500 epochs",
            f"{settings.document.images} slices",
            "counted in slices, so that sets of different sizes compare",
        ),
    )


def remarks(rows: Sequence[Row]) -> tuple[Sentence, ...]:
    """Where there are no masks to score by: that no verdict is possible from the maps alone."""
    if rows:
        return ()
    return (
        Sentence(
            "The cohort has no masks of test patients: methods are judged by boxes and image labels only. "
            "Whether a map shows the disease's outline is not known.",
            "caution",
        ),
    )
