"""What a report says, apart from the scores: plain records that go to `report.json` and back.

The scores are not in here: they stand in `results.csv`, and every table, figure and verdict of the page is
worked out from those rows, so that page and numbers cannot disagree.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from fewmask.core.errors import RunError
from fewmask.core.files import read_json, write_json

ArmKind = Literal["ours", "baseline", "reference", "control", "trivial"]
"""What an arm is for: on trial; what it must beat on the same masks; what all masks give; a method without
the part that is said to help; no skill. The first baseline of a report is the rival of every arm on trial."""

Verdict = Literal["better", "worse", "mixed", "undecided", "caution", "note"]
"""What a sentence says, shown in words and colour."""

CheckOutcome = Literal["passed", "warning", "failed", "not run"]


@dataclass(frozen=True)
class Arm:
    """One method, under the name that its rows carry."""

    key: str
    """`Row.arm`."""
    name: str
    """In plain words, fit for "the ... reaches 0.85": "plain U-Net"."""
    kind: ArmKind
    what: str = ""
    """One line on what it is."""
    own_masks: bool = False
    """Whether it learned from other masks than the shots: then it is set against no arm on the same shots."""


EMPTY_ARM = Arm("empty", "empty mask", "trivial", "marks nothing: what no skill and no mask give")
"""The arm that marks nothing; its rows have 0 shots."""


@dataclass(frozen=True)
class LedgerLine:
    """What one arm was given, in labels and in minutes of an expert."""

    arm: str
    shots: int | None
    masks: int
    """Masks drawn by hand, as counted by `Report.shots_unit`."""
    image_labels: int
    """Labels of whole images ("ill", "healthy")."""
    unlabelled: int
    """Images without any label."""
    expert_minutes: float
    """Time of an expert to make them; see `expert_minutes`."""
    note: str = ""


def expert_minutes(*, organ_slices: int = 0, lesion_slices: int = 0, image_labels: int = 0) -> float:
    """Minutes of an expert by rule of thumb: 3 per organ slice, 2 per lesion slice, 5 s per image label."""
    return 3.0 * organ_slices + 2.0 * lesion_slices + image_labels * 5.0 / 60.0


@dataclass(frozen=True)
class DataCard:
    """Which scans the run used."""

    cohort: str
    patients: int
    cases: int
    slices: int
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    parts: Mapping[str, int] = field(default_factory=dict)
    """Patients by part: train, validation, test, unlabelled."""
    sites: Mapping[str, int] = field(default_factory=dict)
    """Patients by site; empty when unknown."""
    shapes: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None
    """Smallest and largest size along (Z, Y, X), in voxels."""
    spacings_mm: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """Smallest and largest spacing along (Z, Y, X), in mm."""
    notes: tuple[str, ...] = ()
    """What else a reader should know: licence, source, what the check remarked."""


@dataclass(frozen=True)
class Trained:
    """One training of the run."""

    what: str
    images_seen: int
    seconds: float
    device: str
    parameters: int
    memory_mb: float | None = None
    """Largest memory of the process or device."""
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """What a training told while it ran: several series over the images seen."""

    name: str
    images: tuple[float, ...]
    series: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Watched:
    """How well one arm's first draw segmented while it was trained, see `report.curves.read_watched`."""

    step: str
    """Name of the step, "unet/k=3/draw=0"."""
    arm: str
    """`Row.arm`."""
    shots: int | None
    done: tuple[float, ...]
    """Share of the training's images seen, 0..1, at each point."""
    iou: tuple[float, ...]
    """Mean IoU over classes at each point, 0..1."""


@dataclass(frozen=True)
class Picture:
    """A picture on the page. Either `path`, relative to the page's folder, or `png`, the file in base64."""

    alt: str
    """What it shows, for those who do not see it."""
    caption: str = ""
    path: str = ""
    png: str = ""

    @classmethod
    def of_png(cls, data: bytes, alt: str, caption: str = "") -> "Picture":
        """A picture from the bytes of a PNG file."""
        return cls(alt, caption, png=base64.b64encode(data).decode("ascii"))

    @classmethod
    def of_file(cls, path: Path, folder: Path, alt: str, caption: str = "") -> "Picture":
        """A picture that stays in its file; `folder` is where the page will stand."""
        return cls(alt, caption, path=path.resolve().relative_to(folder.resolve()).as_posix())


@dataclass(frozen=True)
class CasePicture:
    """A test case as an overlay: image, reference, prediction."""

    rank: Literal["best", "median", "worst"]
    arm: str
    shots: int | None
    draw: int
    case: str
    patient: str
    dice: float
    picture: Picture


@dataclass(frozen=True)
class Check:
    """One thing that can go wrong in such a run, and whether it did."""

    name: str
    outcome: CheckOutcome
    found: str
    meaning: str


@dataclass(frozen=True)
class Deviation:
    """Where this run departs from the document it follows."""

    what: str
    document: str
    ours: str
    why: str = ""


@dataclass(frozen=True)
class Table:
    """A table of numbers that are no scores of masks, each already in words."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The first entry of a row is its name."""
    note: str = ""
    """How to read it."""


@dataclass(frozen=True)
class Gallery:
    """Pictures under one heading."""

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Sentence:
    """One sentence of the verdict."""

    text: str
    kind: Verdict = "note"


@dataclass(frozen=True)
class Report:
    """Everything on the page that does not follow from the rows of `results.csv`."""

    title: str
    question: str
    arms: tuple[Arm, ...]
    data: DataCard
    shots_unit: str = "image"
    """What is counted as a shot: image, slice or patient."""
    minutes_rule: str = "3 per organ slice, 2 per lesion slice, 5 seconds per image label"
    """How the ledger's minutes of an expert were counted."""
    command: str = ""
    made: str = ""
    """Date and time of the run, as it should be shown."""
    ledger: tuple[LedgerLine, ...] = ()
    trained: tuple[Trained, ...] = ()
    curves: tuple[Curve, ...] = ()
    watched: tuple[Watched, ...] = ()
    """Mean IoU of the arms while they were trained."""
    checks: tuple[Check, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    remarks: tuple[Sentence, ...] = ()
    """Sentences to stand after those that the verdict finds by itself."""
    cases: tuple[CasePicture, ...] = ()
    samples: tuple[Picture, ...] = ()
    """What the generator draws."""
    tables: tuple[Table, ...] = ()
    """What was measured besides scores of masks."""
    galleries: tuple[Gallery, ...] = ()
    terms: Mapping[str, str] = field(default_factory=dict)
    """Words of `tables` with their definitions."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Every setting; nested mappings of JSON values."""
    versions: Mapping[str, str] = field(default_factory=dict)
    penalty: str = "diag"
    """What a missed structure cost in mm; see `metrics.surface`."""

    def name_of(self, arm: str) -> str:
        """An arm's name in plain words; its key when the report does not know it."""
        return next((known.name for known in (*self.arms, EMPTY_ARM) if known.key == arm), arm)

    def kind_of(self, arm: str) -> ArmKind:
        """What an arm is for; "baseline" when the report does not know it."""
        return next((known.kind for known in (*self.arms, EMPTY_ARM) if known.key == arm), "baseline")

    def own_masks(self, arm: str) -> bool:
        """Whether an arm learned from other masks than the shots."""
        return any(known.key == arm and known.own_masks for known in self.arms)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return value

    @classmethod
    def from_json(cls, value: object, *, where: str = "") -> "Report":
        """The report from JSON values.

        Raises:
            RunError: they are not those of a report; each wrong field is named.
        """
        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
            raise RunError(
                "does not hold a report",
                where=where,
                found="; ".join(faults),
                mend="Run the recipe again on this folder: finished steps are kept, the report is rewritten.",
            ) from error


def write_report(path: Path, report: Report) -> Path:
    """Write `report.json`, atomically."""
    return write_json(path, report.to_json())


def read_report(path: Path) -> Report:
    """Read `report.json`; a `RunError` when it is absent or damaged."""
    return Report.from_json(read_json(path), where=str(path))
