"""A parametric chest that runs everything without data.

    patient = draw_patient(seed, number)          # chance makes numbers
    rendered = render(patient, view)              # numbers make a volume and its label map

`write_phantom` writes a cohort of them. The truth is known: organs, nodules and opacities, in two modalities,
as seen by scanners of several styles and by readers who err.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, RunError
from fewmask.core.files import read_json, write_json, write_text
from fewmask.core.seed import stream
from fewmask.core.volume import Mask, Volume
from fewmask.data.cohort_table import INDEX_CSV
from fewmask.data.io import write_mask, write_volume
from fewmask.data.phantom_draw import LABELS, Canvas, draw
from fewmask.data.phantom_lesions import draw_lesions
from fewmask.data.phantom_patient import Patient, draw_body, draw_vessels
from fewmask.data.phantom_readers import draw_readers, read_as
from fewmask.data.phantom_shapes import Places
from fewmask.data.phantom_styles import MODALITIES, STYLES, acquire, tissue_values

CLASSES: Mapping[str, int] = {name: LABELS[name] for name in ("left_lung", "right_lung", "heart", "nodule")}
"""The classes of a phantom cohort, unless others are asked for."""

LESIONS = ("nodule", "opacity")
"""What may be wrong with a patient."""

GREY: Mapping[str, tuple[float, float]] = {"A": (-1000.0, 400.0), "B": (0.0, 1000.0)}
"""Values that become 0 and 255 in 8-bit pictures, by modality."""

PHANTOM_JSON = "phantom.json"
"""The settings that a phantom cohort was made with; written last."""

FOV_MM = 400.0
"""Width and height of a slice."""

CHEST_MM = 240.0
"""Height of the chest that many thin slices cover."""

MIDDLE_MM = -22.0
"""Height of the middle slice: through heart and lungs."""


@dataclass(frozen=True)
class View:
    """Which slices of a patient are drawn: a stack of square pictures around `MIDDLE_MM`."""

    size: int = 64
    """Rows and columns of a slice, 16 to 512."""
    slices: int = 8
    """Number of slices; up to 24 are 10 mm thick, more are thinner and cover `CHEST_MM`."""

    def __post_init__(self) -> None:
        """Check both sizes."""
        if not 16 <= self.size <= 512 or self.slices < 1:
            raise ConfigError(
                "a phantom of this size cannot be drawn",
                found=f"size {self.size}, {self.slices} slices",
                expected="size 16 to 512, at least 1 slice",
            )

    @property
    def pixel_mm(self) -> float:
        """Distance from pixel to pixel within a slice."""
        return FOV_MM / self.size

    @property
    def thickness_mm(self) -> float:
        """Distance from slice to slice."""
        return min(10.0, CHEST_MM / self.slices)

    @property
    def places(self) -> Places:
        """Coordinates of the voxels in the patient, in mm."""
        across = ((np.arange(self.size) + 0.5) * self.pixel_mm - FOV_MM / 2).astype(np.float32)
        up = (np.arange(self.slices) - (self.slices - 1) / 2) * self.thickness_mm + MIDDLE_MM
        return Places(
            across.reshape(1, 1, -1), across.reshape(1, -1, 1), up.astype(np.float32).reshape(-1, 1, 1)
        )

    @property
    def slab_mm(self) -> tuple[float, float]:
        """Height of the lowest and of the highest slice."""
        z = self.places.z.ravel()
        return float(z[0]), float(z[-1])

    @property
    def affine(self) -> NDArray[np.float64]:
        """(x, y, z) -> RAS+ mm: x runs to the patient's left, y to the back, z to the head."""
        affine = np.diag([-self.pixel_mm, -self.pixel_mm, self.thickness_mm, 1.0])
        edge = FOV_MM / 2 - self.pixel_mm / 2
        affine[:3, 3] = (edge, edge, self.slab_mm[0])
        return affine

    @property
    def nodule_mm(self) -> float:
        """Mean diameter of a nodule: 18 mm, or what this view can just show."""
        return max(18.0, 3.2 * self.pixel_mm)


@dataclass(frozen=True, eq=False)
class Rendered:
    """A drawn patient before any scanner saw it."""

    ideal: NDArray[np.float32]
    """(Z, Y, X) in HU (modality A) or units (B), without noise."""
    labels: NDArray[np.uint8]
    """(Z, Y, X), values of `LABELS`."""
    organs: NDArray[np.uint8]
    """The same before lesions were drawn: a nodule's voxels are those of the lung that it lies in."""

    def classes(self, classes: Mapping[str, int]) -> NDArray[np.uint8]:
        """The label map (Z, Y, X) of these classes only, with their values."""
        table, plain = np.zeros(256, dtype=np.uint8), np.zeros(256, dtype=np.uint8)
        for name, value in classes.items():
            table[LABELS[name]] = plain[LABELS[name]] = value
        lesion = [LABELS[name] for name in LESIONS if name not in classes]
        return np.where(np.isin(self.labels, lesion), plain[self.organs], table[self.labels])


def draw_patient(
    seed: int, number: int, *, view: View | None = None, lesions: Sequence[str] = ("nodule",)
) -> Patient:
    """Patient `number` of the cohort `seed`, with lesions of these kinds within `view`; none: healthy."""
    _refuse_unknown("lesion", lesions, LESIONS)
    view = view or View()
    body = draw_body(seed, number)
    found = draw_lesions(
        seed, number, body, kinds=tuple(lesions), slab_mm=view.slab_mm, nodule_mm=view.nodule_mm
    )
    return Patient(body, draw_vessels(seed, number), found)


def render(patient: Patient, view: View, *, modality: str = "A") -> Rendered:
    """Draw a patient: a pure function of its arguments."""
    _refuse_unknown("modality", [modality], MODALITIES)
    table = tissue_values(modality, patient.body)
    shape = (view.slices, view.size, view.size)
    ideal = np.full(shape, table["air"], dtype=np.float32)
    labels = np.zeros(shape, dtype=np.uint8)
    canvas = Canvas(view.places, ideal, labels, table, view.pixel_mm, view.thickness_mm)
    organs = draw(canvas, patient)
    return Rendered(ideal, labels, organs)


def scan(
    rendered: Rendered, view: View, *, seed: int, number: int, modality: str = "A", style: str = "white"
) -> Volume:
    """What a scanner of `style` records of a drawn patient: int16 (Z, Y, X), HU (A) or units (B)."""
    _refuse_unknown("style", [style], tuple(STYLES))
    chance = stream(seed, "phantom", "scan", number, modality, style)
    return Volume(acquire(rendered.ideal, modality, STYLES[style], view.pixel_mm, chance), view.affine)


def write_phantom(
    folder: Path,
    *,
    patients: int = 24,
    size: int = 64,
    slices: int = 8,
    labelled: int | None = None,
    modality: str = "A",
    style: str | Sequence[str] = "white",
    seed: int = 0,
    volumes: bool = True,
    classes: Mapping[str, int] = CLASSES,
    lesions: Sequence[str] = ("nodule",),
    readers: int = 0,
) -> Path:
    """Write a cohort of phantom patients, `images/` + `masks/` + `classes.json` + `index.csv`, and return it.

    The same call again changes nothing: a finished cohort is left as it is, an unfinished one is finished.

    Args:
        folder: the cohort's folder.
        patients: how many; about half of them have a lesion.
        size: rows and columns of a slice, 16 to 512 pixels of together 400 mm.
        slices: slices per patient; up to 24 are 10 mm thick, more cover 240 mm.
        labelled: the first so many patients get masks; None: all.
        modality: "A" (like a CT, in HU) or "B" (like an MR).
        style: of the scanner: "clean", "white", "lowpass", "streak"; several take turns and count as sites.
        seed: fixes everything. Patient n is the same in every cohort of one seed, modality and view aside.
        volumes: NIfTI volumes; False: one 8-bit PNG per slice (A through the window -1000 to 400 HU).
        classes: which organs of `LABELS` the masks show, with their values.
        lesions: "nodule", "opacity" or both; none: all patients are healthy.
        readers: so many readers draw masks too, in `masks/reader1/` ...

    Raises:
        ConfigError: a name or number that the phantom does not know.
        RunError: the folder cannot be written, or holds a phantom made with other settings.
    """
    styles = (style,) if isinstance(style, str) else tuple(style)
    labelled = patients if labelled is None else labelled
    cohort = _Cohort(patients, size, slices, labelled, modality, styles, seed, volumes, dict(classes),
                     tuple(lesions), readers)  # fmt: skip
    cohort.check()
    settings = json.loads(json.dumps(asdict(cohort)))
    if not _is_written(folder, settings):
        rows = [row for number in range(patients) for row in _write_patient(folder, number, cohort)]
        _write_tables(folder, rows, classes)
        write_json(folder / PHANTOM_JSON, settings)
    return folder


@dataclass(frozen=True)
class _Cohort:
    """The arguments of `write_phantom`, checked together."""

    patients: int
    size: int
    slices: int
    labelled: int
    modality: str
    styles: tuple[str, ...]
    seed: int
    volumes: bool
    classes: Mapping[str, int]
    lesions: tuple[str, ...]
    readers: int

    @property
    def view(self) -> View:
        return View(self.size, self.slices)

    def check(self) -> None:
        _refuse_unknown("class", tuple(self.classes), tuple(LABELS))
        _refuse_unknown("modality", [self.modality], MODALITIES)
        _refuse_unknown("style", self.styles, tuple(STYLES))
        _refuse_unknown("lesion", self.lesions, LESIONS)
        _ = self.view
        if self.patients < 1 or not 0 <= self.labelled <= self.patients or not self.styles:
            raise ConfigError(
                "a phantom of this size cannot be written",
                found=f"patients={self.patients}, labelled={self.labelled}, {len(self.styles)} styles",
                expected=f"at least one patient, at most {self.patients} labelled, at least one style",
            )


def _write_patient(folder: Path, number: int, cohort: _Cohort) -> list[tuple[str, ...]]:
    """Draw, scan and write one patient; returns the rows of `index.csv` for it."""
    view, seed, classes = cohort.view, cohort.seed, cohort.classes
    patient = draw_patient(seed, number, view=view, lesions=cohort.lesions)
    rendered = render(patient, view, modality=cohort.modality)
    site = cohort.styles[number % len(cohort.styles)]
    picture = scan(rendered, view, seed=seed, number=number, modality=cohort.modality, style=site)
    name, state = f"p{number:03d}", "diseased" if patient.diseased else "healthy"
    files = _write_images(folder, name, picture, cohort.modality, cohort.volumes)
    if number < cohort.labelled:
        truth = rendered.classes(classes)
        _write_masks(folder / "masks", name, truth, view, cohort.volumes)
        for n, reader in enumerate(draw_readers(seed, cohort.readers, pixel_mm=view.pixel_mm)):
            chance = stream(seed, "phantom", "reading", number, n)
            drawn = read_as(reader, truth, picture.spacing_mm, nodule=classes.get("nodule"), chance=chance)
            _write_masks(folder / "masks" / f"reader{n + 1}", name, drawn, view, cohort.volumes)
    return [(file, name, site, state) for file in files]


def _is_written(folder: Path, settings: Mapping[str, object]) -> bool:
    """Whether `folder` holds this very cohort; another phantom there is a `RunError`."""
    if not (folder / PHANTOM_JSON).exists():
        return False
    found = read_json(folder / PHANTOM_JSON)
    if found == settings:
        return True
    changed = [key for key in settings if found.get(key) != settings[key]]
    raise RunError(
        f"holds a phantom made with other settings ({', '.join(changed)})",
        where=str(folder),
        found="; ".join(f"{key}={found.get(key)!r}" for key in changed),
        expected="; ".join(f"{key}={settings[key]!r}" for key in changed),
        mend="Choose another folder, or delete this one.",
    )


def _write_images(folder: Path, name: str, volume: Volume, modality: str, volumes: bool) -> list[str]:
    """Write one patient's scan; the paths of its files below `folder`."""
    if volumes:
        return [_below(folder, write_volume(folder / "images" / f"{name}.nii.gz", volume))]
    low, high = GREY[modality]
    grey = np.clip((volume.voxels.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
    pictures = np.rint(grey).astype(np.uint8)
    return [
        _below(folder, write_volume(folder / "images" / f"{slice_name}.png", Volume(picture, _flat(volume))))
        for slice_name, picture in _named_slices(name, pictures)
    ]


def _write_masks(folder: Path, name: str, labels: NDArray[np.uint8], view: View, volumes: bool) -> None:
    mask = Mask(labels, view.affine)
    if volumes:
        write_mask(folder / f"{name}.nii.gz", mask)
        return
    for slice_name, picture in _named_slices(name, labels):
        write_mask(folder / f"{slice_name}.png", Mask(picture, _flat(mask)))


def _named_slices(name: str, voxels: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Each slice as a volume (1, Y, X) with a name of its own."""
    return [(f"{name}_z{z:02d}", plane[np.newaxis]) for z, plane in enumerate(voxels)]


def _flat(volume: Volume) -> NDArray[np.float64]:
    """The affine of a picture: its pixel size, no place."""
    _, y, x = volume.spacing_mm
    return np.diag([x, y, 1.0, 1.0])


def _below(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _write_tables(folder: Path, rows: Sequence[tuple[str, ...]], classes: Mapping[str, int]) -> None:
    """`classes.json`, and `index.csv` with patient, site and state of every file."""
    write_json(folder / "classes.json", dict(classes))
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file", "patient", "site", "state"))
    writer.writerows(rows)
    write_text(folder / INDEX_CSV, table.getvalue())


def _refuse_unknown(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"the phantom knows no {what} {name!r}", expected=", ".join(known))
