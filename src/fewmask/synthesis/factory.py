"""Pairs on the disk: a cohort that grows by number, stopped and resumed at will, in as many shards as wanted.

The folder is a cohort (`fewmask check` reads it). Only pairs that are written to the end are in its table:

```
cases.csv                       one row per pair: its files, SHA-256, score, pixels of each class
classes.json, factory.json      label values; what the pairs are made from
images/pair_000000.png          one channel, or images/pair_000000_NAME.png for each of several
masks/pair_000000.png           label values
soft/pair_000000.safetensors    soft (K, H, W) and uncertain (H, W), float16
journal/0_of_1.jsonl            one line per pair of a shard, added when its files are on the disk
```

Nothing but the journals depends on how the numbers were divided, on where the work was stopped, or on how
many pairs were asked for at a time.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from fewmask.core.errors import ConfigError, DataError, RunError
from fewmask.core.files import append_line, held, make_folder, read_json, write_atomic, write_json, write_text
from fewmask.data.case import IMAGE
from fewmask.data.cohort_classes import CLASSES_JSON, valid_classes
from fewmask.data.cohort_table import CASES_CSV
from fewmask.data.io import read_mask, read_volume
from fewmask.metrics.shapes import Shape, shapes
from fewmask.synthesis.pairs import Pair
from fewmask.synthesis.stored import SUFFIX, ImageFormat, from_grey_levels, write_labels, write_plane

FORMAT = 1
FACTORY_JSON = "factory.json"
Shard = tuple[int, int]
"""(i, N): the numbers n with n mod N = i."""


@dataclass(frozen=True)
class Record:
    """One pair on the disk.

    image_sha256, mask_sha256: checksums of its files, those of several channels one after the other; score:
    how uncertain it is, 0-1; shapes: of each class.
    """

    number: int
    image_sha256: str
    mask_sha256: str
    score: float
    shapes: Mapping[str, Shape]


@dataclass(frozen=True)
class PairFolder:
    """A folder of pairs: where its files are, and what they hold. Made by `open_pairs`."""

    folder: Path
    made_from: Mapping[str, Any]
    classes: Mapping[str, int]
    modalities: tuple[str, ...]
    image_format: ImageFormat

    def images_of(self, number: int, suffix: str = "") -> tuple[Path, ...]:
        """The files of a pair's channels, in the order of the modalities; `suffix`: if not the usual one."""
        ends = [f"_{name}" for name in self.modalities] if len(self.modalities) > 1 else [""]
        suffix = suffix or SUFFIX[self.image_format]
        return tuple(self.folder / "images" / f"{name_of(number)}{end}{suffix}" for end in ends)

    def mask_of(self, number: int, suffix: str = "") -> Path:
        """The file of a pair's mask."""
        return self.folder / "masks" / f"{name_of(number)}{suffix or SUFFIX[self.image_format]}"

    def soft_of(self, number: int) -> Path:
        """The file of a pair's soft labels."""
        return self.folder / "soft" / f"{name_of(number)}.safetensors"

    def records(self) -> dict[int, Record]:
        """Every pair that is complete, of all shards, by number.

        A `RunError` when two journals tell different things of one pair.
        """
        found: dict[int, Record] = {}
        for path in sorted((self.folder / "journal").glob("*.jsonl")):
            for record in _read_journal(path):
                if found.setdefault(record.number, record) != record:
                    raise RunError(
                        f"pair {record.number} was drawn twice with different results",
                        where=str(path),
                        mend="Draw all shards on machines of one kind, with the same number of threads.",
                    )
        return dict(sorted(found.items()))

    def image(self, number: int) -> NDArray[np.float32]:
        """The image (C, H, W) of a pair as its files hold it, in [-1, 1]."""
        planes = [read_volume(path).voxels[0] for path in self.images_of(number)]
        return from_grey_levels(np.stack(planes), self.image_format)

    def mask(self, number: int) -> NDArray[np.uint8]:
        """The mask (H, W) of a pair, label values."""
        return np.asarray(read_mask(self.mask_of(number)).voxels[0], dtype=np.uint8)

    def soft(self, number: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """The soft labels (K, H, W) of a pair and its uncertainty (H, W)."""
        arrays = load_file(self.soft_of(number))
        return arrays["soft"], arrays["uncertain"]

    def table(self, numbers: Iterable[int], records: Mapping[int, Record], suffix: str = "") -> str:
        """A cohort's table (cases.csv) of some of the pairs; `suffix`: of their files."""
        channels = [IMAGE] if len(self.modalities) == 1 else [f"{IMAGE}:{name}" for name in self.modalities]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        pixels = [f"pixels_{name}" for name in self.classes]
        told = ["number", "score", "image_sha256", "mask_sha256", *pixels]
        writer.writerow(["case", "patient", *channels, "mask", *told])
        for number in sorted(numbers):
            one, name = records[number], name_of(number)
            files = [*self.images_of(number, suffix), self.mask_of(number, suffix)]
            where = [path.relative_to(self.folder).as_posix() for path in files]
            areas = [one.shapes[class_name].pixels for class_name in self.classes]
            row = [name, name, *where, number, one.score, one.image_sha256, one.mask_sha256, *areas]
            writer.writerow(row)
        return text.getvalue()


def name_of(number: int) -> str:
    """The case name of pair `number`."""
    return f"pair_{number:06d}"


def open_pairs(folder: Path) -> PairFolder:
    """The pairs that `make_pairs` left in a folder, finished or not; a `DataError` when there are none."""
    path = folder / FACTORY_JSON
    if not path.is_file():
        raise DataError("holds no generated pairs", where=str(folder), expected=f"a file {FACTORY_JSON}")
    told = read_json(path)
    if told.get("format") != FORMAT:
        raise DataError("is of another format", where=str(path), found=f"{told.get('format')}")
    names = tuple(told["modalities"])
    return PairFolder(folder, told["made_from"], told["classes"], names, told["image_format"])


def make_pairs(
    folder: Path,
    draw: Callable[[int], Pair],
    count: int,
    *,
    made_from: Mapping[str, Any],
    classes: Mapping[str, int],
    modalities: Sequence[str] = (IMAGE,),
    image_format: ImageFormat = "png",
    shard: Shard = (0, 1),
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> PairFolder:
    """Write the pairs 0 to count - 1 that belong to a shard and are not there yet.

    Shards may be written one after the other or at the same time, into one folder, in any division; a larger
    count later adds pairs.

    Args:
        folder: new, or one that this wrote with the same arguments.
        draw: pair n, the same whenever it is asked for; a `PairMaker`.
        count: pairs of all shards together, at least 1.
        made_from: what `draw` depends on (JSON values): keys of its networks, seed, truncation.
        classes: names and label values 1..n of the masks.
        modalities: a name for each channel; words that a file name can hold.
        image_format: "png" of 8 bit, or "nifti" of 12 bit with one slice each.
        shard: (i, N).
        batch_size: pairs that are drawn before they are written; changes memory, not bytes.
        on_progress: called with (pairs of this shard done, all of them) after every batch.

    Raises:
        ConfigError: a number out of range, names that do not do, or a folder of other pairs.
        RunError: the disk is full or the folder cannot be written to; the same call goes on.
    """
    _refuse(count, shard, batch_size, modalities)
    pairs = _claim(folder, made_from, valid_classes(classes, "classes"), tuple(modalities), image_format)
    mine = range(shard[0], count, shard[1])
    journal = folder / "journal" / f"{shard[0]}_of_{shard[1]}.jsonl"
    with held(journal.with_name(f".{journal.stem}.lock")):
        done = pairs.records()
        todo = [number for number in mine if number not in done]
        for first in range(0, len(todo), batch_size):
            for pair in [draw(number) for number in todo[first : first + batch_size]]:
                append_line(journal, json.dumps(asdict(_write(pairs, pair)), ensure_ascii=False))
            if on_progress is not None:
                on_progress(len(mine) - max(len(todo) - first - batch_size, 0), len(mine))
    with held(folder / "journal" / ".table.lock", wait=True):
        records = pairs.records()
        if records:
            write_text(folder / CASES_CSV, pairs.table(records, records))
    return pairs


def _write(pairs: PairFolder, pair: Pair) -> Record:
    """Put the files of a pair on the disk, each atomically; the journal's line makes them count."""
    if len(pair.image) != len(pairs.modalities) or len(pair.soft) != len(pairs.classes) + 1:
        raise ConfigError(
            "the pairs do not have the channels or classes that were declared",
            found=f"{len(pair.image)} channels, {len(pair.soft)} classes with the background",
            expected=f"{len(pairs.modalities)} and {len(pairs.classes) + 1}",
        )
    images = pairs.images_of(pair.number)
    for path, plane in zip(images, pair.image, strict=True):
        write_plane(_without_suffix(path, pairs.image_format), plane, pairs.image_format)
    arrays = {"soft": pair.soft, "uncertain": pair.uncertain.astype(np.float16)}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # Not safetensors' own writing: on a full disk it raises what is no OSError.
    write_atomic(pairs.soft_of(pair.number), lambda temporary: temporary.write_bytes(save(arrays)))
    mask = pairs.mask_of(pair.number)
    write_labels(_without_suffix(mask, pairs.image_format), pair.mask, pairs.image_format)
    found = shapes(pair.mask, pairs.classes)
    return Record(pair.number, checksum(images), checksum([mask]), round(pair.score, 6), found)


def _without_suffix(path: Path, image_format: ImageFormat) -> Path:
    return path.with_name(path.name.removesuffix(SUFFIX[image_format]))


def checksum(paths: Sequence[Path]) -> str:
    """SHA-256 of files, one after the other, as a `Record` holds it."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _read_journal(path: Path) -> list[Record]:
    """The lines of a journal; one that was cut short is passed over."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            told = json.loads(line)
            named = {name: _shape(**shape) for name, shape in told.pop("shapes").items()}
            found.append(Record(**told, shapes=named))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def _shape(pixels: int, centre: Sequence[float] | None, pieces: int) -> Shape:
    return Shape(pixels, None if centre is None else (centre[0], centre[1]), pieces)


def _claim(
    folder: Path,
    made_from: Mapping[str, Any],
    classes: dict[str, int],
    modalities: tuple[str, ...],
    image_format: ImageFormat,
) -> PairFolder:
    """The folder for these pairs, begun or new; a `ConfigError` when it holds anything else."""
    told = {
        "format": FORMAT,
        "made_from": json.loads(json.dumps(made_from)),
        "classes": classes,
        "modalities": list(modalities),
        "image_format": image_format,
    }
    make_folder(folder)
    path = folder / FACTORY_JSON
    visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if path.is_file():
        found = read_json(path)
        other = [name for name, value in told.items() if found.get(name) != value]
        what = "holds pairs that were made with another " + ", ".join(other)
    else:
        other = [entry.name for entry in visible if entry.name != CLASSES_JSON]
        what = "holds other files"
    if other:
        mend = "Choose a new --out: all pairs of a folder are made alike."
        raise ConfigError(what, where=str(folder), found=", ".join(other[:6]), mend=mend)
    if not path.is_file():
        write_json(folder / CLASSES_JSON, classes)
        write_json(path, told)
    return open_pairs(folder)


def _refuse(count: int, shard: Shard, batch_size: int, modalities: Sequence[str]) -> None:
    if count < 1 or batch_size < 1 or not 0 <= shard[0] < shard[1]:
        raise ConfigError(
            "pairs cannot be made so",
            found=f"count {count}, shard {shard[0]}/{shard[1]}, batch size {batch_size}",
            expected="count and batch size at least 1, shard i/N with i from 0 to N - 1",
        )
    names = [name for name in modalities if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name)]
    if not modalities or len(set(names)) != len(modalities):
        raise ConfigError(
            "channels need names of their own that a file name can hold",
            where="modalities",
            found=", ".join(modalities),
            expected="letters, digits and hyphens",
        )
