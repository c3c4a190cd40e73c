"""Generated images that a person labels: written as a small cohort, read back with whatever masks were drawn.

Tritrong et al. 2021 label images that the generator drew: their latents are known, so nothing is lost to an
inversion. The folder is a cohort (`fewmask check` reads it), and masks may be drawn in any program and any
layout that a cohort may have:

```
images/sample_0000.png      what to draw on (several channels: the first; all of them in channels/)
masks/                      where the masks go
overview.png, README.txt    all samples on one sheet; what to do
support.json                what the samples were made from, and the checksum of:
samples.safetensors         latents and images in full precision
```
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import make_folder, write_atomic, write_json, write_text
from fewmask.core.seed import integer
from fewmask.data.check_geometry import judge
from fewmask.data.cohort import Case, Cohort, read_case_mask, read_cohort, read_images
from fewmask.data.cohort_classes import CLASSES_JSON, valid_classes
from fewmask.data.coverage import medoids
from fewmask.data.orientation import nearest_turn
from fewmask.data.overlay import enlarge, grey_picture, montage, png_bytes
from fewmask.networks.generator import ImageGenerator
from fewmask.synthesis.stored import SUFFIX, grey_levels, write_plane
from fewmask.synthesis.stored import ImageFormat as ImageFormat

Choose = Literal["random", "coverage"]
Float = NDArray[np.float32]

FORMAT = 1
SUPPORT_JSON = "support.json"
SAMPLES = "samples.safetensors"
POOL = 32
"""By coverage each sample is chosen among so many."""
MOST = 1000
"""At most so many samples: somebody has to draw on them."""

_SHOWN = 192


@dataclass(frozen=True, eq=False)
class Support:
    """Labelled samples of a generator.

    images (k, C, H, W) float32 in [-1, 1] as the generator drew them; masks (k, H, W) uint8 label values, 0
    background, `IGNORE` unjudged; ws (k, num_ws, w_dim) their latents; names of these samples; missing: the
    samples nobody has labelled; classes with their label values; generator: the key that `export_support`
    was given, to compare with.
    """

    images: Float
    masks: NDArray[np.uint8]
    ws: Float
    names: tuple[str, ...]
    missing: tuple[str, ...]
    classes: Mapping[str, int]
    generator: str


def export_support(
    folder: Path,
    generator: ImageGenerator,
    count: int,
    *,
    key: str,
    seed: int = 0,
    truncation: float = 0.8,
    image_format: ImageFormat = "png",
    choose: Choose = "random",
    classes: Mapping[str, int] | None = None,
) -> tuple[str, ...]:
    """Write `count` images of a generator for a person to label; again with the same arguments, do nothing.

    Args:
        folder: new, or one that this wrote.
        generator: in evaluation mode, without classes.
        count: how many images, 1 to `MOST`.
        key: names the generator, such as a checksum of its weights; `read_support` gives it back.
        seed: sample n of the random choice is fixed by (seed, n).
        truncation: psi of the latents: below 1 images are more usual, and better.
        image_format: "png" of 8 bit, or "nifti" of 12 bit with one slice each.
        choose: "random"; "coverage" takes the medoids in W of `POOL` times as many latents, the most usual
            first.
        classes: names and label values 1..n of what is to be drawn, if they are known already.

    Returns:
        Names of the samples.

    Raises:
        ConfigError: a number out of range, classes that are no declaration, a generator with classes, or a
            folder that holds something else.
        RunError: the folder cannot be written to.
    """
    _refuse(generator, count, truncation)
    declared = None if classes is None else valid_classes(classes, "classes")
    made_from = {
        "generator": key,
        "count": count,
        "seed": seed,
        "truncation": truncation,
        "image_format": image_format,
        "choose": choose,
        "classes": declared,
    }
    names = tuple(f"sample_{number:04d}" for number in range(count))
    if _already(folder, made_from):
        return names
    ws, images = _samples(generator, count, seed, truncation, choose)
    content = save({"ws": ws, "images": images})  # its own writer raises no OSError on a full disk
    path = write_atomic(make_folder(folder) / SAMPLES, lambda temporary: temporary.write_bytes(content))
    for name, image in zip(names, images, strict=True):
        _write_images(folder, name, image, image_format)
    _write_overview(folder / "overview.png", names, images)
    make_folder(folder / "masks")
    if declared is not None:
        write_json(folder / CLASSES_JSON, declared)
    write_text(folder / "README.txt", _how_to(names, SUFFIX[image_format], images.shape, declared))
    told = {"format": FORMAT, "made_from": made_from, "names": list(names), "sha256": _sha256(path)}
    write_json(folder / SUPPORT_JSON, told)
    return names


def read_support(folder: Path, classes: Mapping[str, int] | None = None) -> Support:
    """The samples of `export_support` on which masks were drawn.

    Args:
        folder: what `export_support` wrote, with masks in any layout of a cohort.
        classes: names and label values; default: those given at export, else by the names of the masks.

    Raises:
        DataError: no such folder; no mask at all; a mask that fits no sample, is of another size or place
            than its image, or holds a label nobody declared; images or latents that were changed.
        ConfigError: `classes` do not fit the masks.
    """
    record, arrays = _record(folder)
    cohort = read_cohort(folder, classes=classes)
    names = [str(name) for name in record["names"]]
    strange = [case.name for case in cohort.cases if case.name not in names]
    if strange or not cohort.labelled:
        raise DataError(
            "holds images that are no samples" if strange else "nobody has labelled a sample yet",
            where=str(folder),
            found=", ".join(strange[:6]) if strange else "an empty folder masks",
            expected="only the images that were written" if strange else "at least one mask",
            mend="Take them out." if strange else f"Draw on {names[0]} first; README.txt tells how.",
        )
    image_format: ImageFormat = record["made_from"]["image_format"]
    rows, masks = [], []
    for case in sorted(cohort.labelled, key=lambda one: one.name):
        row = names.index(case.name)
        masks.append(_mask(case, cohort, arrays["images"][row], image_format))
        rows.append(row)
    labelled = tuple(names[row] for row in rows)
    return Support(
        arrays["images"][rows],
        np.stack(masks),
        arrays["ws"][rows],
        labelled,
        tuple(name for name in names if name not in labelled),
        dict(cohort.classes),
        str(record["made_from"]["generator"]),
    )


def _samples(
    generator: ImageGenerator, count: int, seed: int, truncation: float, choose: Choose
) -> tuple[Float, Float]:
    """Latents (N, num_ws, w_dim) and images (N, C, H, W) in [-1, 1]."""
    device = next(generator.parameters()).device
    drawn = []
    for number in range(count * POOL if choose == "coverage" else count):
        chance = torch.Generator().manual_seed(integer(seed, "support", number))
        drawn.append(torch.randn(generator.z_dim, generator=chance))
    with torch.no_grad():
        ws = generator.mapping(torch.stack(drawn).to(device), truncation=truncation)
        if choose == "coverage":
            ws = ws[list(medoids(ws[:, 0].cpu().numpy(), count))]
        image = [generator.synthesis(some, noise="constant").clamp(-1, 1) for some in ws.split(16)]
    return tuple(  # type: ignore[return-value]
        np.array(one.float().cpu().numpy(), order="C") for one in (ws, torch.cat(image))
    )


def _write_images(folder: Path, name: str, image: Float, image_format: ImageFormat) -> None:
    """The first channel where a person draws; all of them beside, if there are several."""
    planes = {folder / "images" / name: image[0]}
    if len(image) > 1:
        planes |= {folder / "channels" / f"{name}_{n}": plane for n, plane in enumerate(image)}
    for path, plane in planes.items():
        write_plane(path, plane, image_format)


def _write_overview(path: Path, names: Sequence[str], images: Float) -> None:
    """All samples, named, on one sheet."""
    zoom = max(1, _SHOWN // images.shape[3])
    size = (images.shape[2] * zoom, images.shape[3] * zoom)
    drawn = [enlarge(grey_picture(image[0], window=(-1, 1)), size, smooth=True) for image in images]
    sheet = montage(drawn, columns=min(8, round(len(drawn) ** 0.5 + 0.5)), titles=names)
    write_atomic(path, lambda temporary: temporary.write_bytes(png_bytes(sheet)))


def _mask(case: Case, cohort: Cohort, image: Float, image_format: ImageFormat) -> NDArray[np.uint8]:
    """The mask (H, W) of a sample, if it lies on its picture and the picture is what was written."""
    picture = next(iter(read_images(case).values()))
    expected = grey_levels(image[0], image_format)
    if picture.shape != (1, *expected.shape) or np.abs(picture.voxels[0] - expected.astype(float)).max() > 1:
        raise DataError(
            "an image is not the one that was written: its latents do not belong to it",
            where=f"case {case.name}",
            found=f"shape {picture.shape}, values to {picture.voxels.max():g}",
            expected=f"shape {(1, *expected.shape)}, as the generator drew it",
            mend="Draw on the images as they are; restore it with the same `fewmask sample` elsewhere.",
        )
    mask = read_case_mask(case, cohort)
    turn = nearest_turn(mask.grid, "LPS")
    fit = judge(turn.grid(mask.grid), picture.grid)
    if fit.verdict == "wrong":
        raise DataError(
            "a mask does not lie on its image",
            where=f"case {case.name}",
            found=fit.why,
            expected=f"{picture.shape[2]} x {picture.shape[1]} pixels, at the image's place",
            mend="Save the mask in the geometry of the image, not cropped, enlarged or turned.",
        )
    return np.asarray(turn.do(mask.voxels)[0], dtype=np.uint8)


def _record(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `export_support` told, and its arrays, when both are as they were written."""
    path = folder / SUPPORT_JSON
    if not path.is_file():
        raise DataError(
            "holds no samples to label",
            where=str(folder),
            expected=f"a file {SUPPORT_JSON}",
            mend="Write them with `fewmask sample`.",
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT or not {"names", "made_from", "sha256"} <= set(record):
            raise ValueError("of another format")
        same = _sha256(folder / SAMPLES) == record["sha256"]
        arrays = load_file(folder / SAMPLES)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError("the samples cannot be read", where=str(folder), found=str(error)) from error
    if not same:
        raise DataError(
            "the latents are not those of these samples",
            where=str(folder / SAMPLES),
            found="a file that was changed: its checksum differs",
            mend="Copy it again from where the samples were written.",
        )
    return record, arrays


def _already(folder: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether the folder holds these samples; a `ConfigError` when it holds anything else."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    if (folder / SUPPORT_JSON).is_file():
        found = _record(folder)[0]["made_from"]
        if found == made_from:
            return True
        other = [name for name in made_from if made_from[name] != found.get(name)]
        what = "holds samples that were made with another " + ", ".join(other)
    elif (folder / SAMPLES).is_file():  # stopped before the end
        return False
    else:
        what = "holds other files"
    raise ConfigError(what, where=str(folder), mend="Choose a new --out: masks belong to one set of samples.")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _refuse(generator: ImageGenerator, count: int, truncation: float) -> None:
    if not 1 <= count <= MOST or not 0 <= truncation <= 1:
        raise ConfigError(
            "samples to label cannot be drawn so",
            found=f"count {count}, truncation {truncation:g}",
            expected=f"1 to {MOST} samples, truncation 0 to 1",
        )
    if generator.classes:
        raise ConfigError(
            "a generator with classes cannot draw samples to label",
            found=f"{generator.classes} classes",
            mend="Use one that was trained without.",
        )


def _how_to(
    names: Sequence[str], suffix: str, shape: Sequence[int], classes: Mapping[str, int] | None
) -> str:
    """What the person is told."""
    first, some = names[0], next(iter(classes or {"lung": 1}))
    values = ", ".join(f"{value} = {name}" for name, value in classes.items()) if classes else ""
    several = "\n   All channels of each are in channels/; draw on those in images/." if shape[1] > 1 else ""
    ways = {
        f"{first}{suffix}": f"all classes in one file: 0 = background, {values or '1, 2, ... = classes'}",
        f"{some}/{first}{suffix}": "one class per file, in a folder of its name",
        f"{first}_{some}{suffix}": "one class per file",
    }
    width = max(map(len, ways))
    listed = "\n".join(f"       masks/{name:{width}}  {what}" for name, what in ways.items())
    return f"""These {len(names)} images were drawn by a generator; they show no patient.

1. Open images/{first}{suffix}, ... in a program you like (3D Slicer, ITK-SNAP, labelme, GIMP, ...).
   overview.png shows all of them.{several}
2. Draw what is to be found, and save one mask per image into masks/, in the size of the image
   ({shape[3]} x {shape[2]} pixels), as PNG, NIfTI, NRRD or MHA (no JPEG), in one of these ways:
{listed}
   Pixels that nobody can judge: 255 in a file of all classes.
   From labelme, export label.png and put it at masks/{first}/label.png.
3. You need not label all of them. An image without a mask counts as not labelled; where nothing is to be
   seen, save an empty mask.
4. `fewmask check` on this folder tells whether the masks are well.

Do not change the images, {SUPPORT_JSON} or {SAMPLES}.
"""
