"""Pairs in the layouts that other programs read: nnU-Net's raw data, a folder of images and masks, DICOM.

Pixels are those of the pairs' files, grey level for grey level, and masks keep their label values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import write_atomic, write_json, write_text
from fewmask.core.volume import Mask, Volume
from fewmask.data.cohort_classes import CLASSES_JSON
from fewmask.data.cohort_nnunet import DATASET_JSON, IMAGES_TRAIN
from fewmask.data.cohort_table import CASES_CSV
from fewmask.data.dicomseg import write_dicom_seg
from fewmask.data.dicomsynthetic import write_synthetic_dicom
from fewmask.data.io import read_grid, read_mask, read_volume, write_mask, write_volume
from fewmask.synthesis.card import Card
from fewmask.synthesis.factory import PairFolder, Record, checksum, name_of
from fewmask.synthesis.stored import LEVELS, PLACE, ImageFormat

Layout = Literal["nnunet", "folder", "dicom"]
LABELS_TRAIN = "labelsTr"
DICOM = ".dcm"
_RESERVED = ("background", "ignore")
"""Labels that mean something of their own to nnU-Net."""


@dataclass(frozen=True)
class Chosen:
    """Pairs to hand on: the folder they are in, which of them, all records, their card, and a new name."""

    pairs: PairFolder
    numbers: tuple[int, ...]
    records: Mapping[int, Record]
    card: Card
    name: str

    def planes(self, number: int) -> list[NDArray[np.unsignedinteger]]:
        """Grey levels (H, W) of every channel, as the files hold them."""
        return [read_volume(path).voxels[0] for path in self.pairs.images_of(number)]

    def verify(self, number: int) -> None:
        """Raise `DataError` unless the files of a pair are those that were written."""
        record, mask = self.records[number], self.pairs.mask_of(number)
        files = self.pairs.images_of(number)
        missing = [path for path in (*files, mask) if not path.is_file()]
        told = (record.image_sha256, record.mask_sha256)
        if missing or (checksum(files), checksum([mask])) != told:
            raise DataError(
                "a pair is not what it was when it was drawn",
                where=str(missing[0] if missing else files[0]),
                found="a missing file" if missing else "another checksum of its image or mask",
                expected="files that nobody has changed: the card tells of those",
                mend="Delete its files and its line in journal/, and make the pairs again.",
            )


Write = Callable[[Chosen, Path, Callable[[], None]], None]


def refuse_layout(layout: Layout, pairs: PairFolder, image_format: ImageFormat | None) -> None:
    """Raise `ConfigError` where the layout cannot hold these pairs, or has no choice of a file format."""
    reserved = [name for name in pairs.classes if name.lower() in _RESERVED]
    if layout == "nnunet" and reserved:
        raise ConfigError(
            "nnU-Net gives these names a meaning of its own",
            where="classes",
            found=", ".join(reserved),
            mend="Export to another layout, or make the pairs with other class names.",
        )
    if image_format is not None and layout != "folder":
        raise ConfigError(
            "only the layout folder has a choice of file formats",
            found=f"--format {image_format} for {layout}",
            mend="Leave --format away.",
        )


def write_nnunet(chosen: Chosen, folder: Path, tick: Callable[[], None]) -> None:
    """nnU-Net's raw layout, NIfTI files of one slice each; all pairs are for training."""
    for number in chosen.numbers:
        chosen.verify(number)
        for channel, plane in enumerate(chosen.planes(number)):
            path = folder / IMAGES_TRAIN / f"{name_of(number)}_{channel:04d}.nii.gz"
            write_volume(path, Volume(plane[np.newaxis], PLACE["nifti"]))
        mask = chosen.pairs.mask(number)[np.newaxis]
        write_mask(folder / LABELS_TRAIN / f"{name_of(number)}.nii.gz", Mask(mask, PLACE["nifti"]))
        tick()
    description = {
        "name": chosen.name,
        "description": "Generated pairs; they show no patient. See card.md.",
        "licence": chosen.card.licence or "not told",
        "channel_names": {str(n): name for n, name in enumerate(chosen.pairs.modalities)},
        "labels": {"background": 0, **chosen.pairs.classes},
        "numTraining": len(chosen.numbers),
        "file_ending": ".nii.gz",
    }
    write_json(folder / DATASET_JSON, description)


def folder_writer(image_format: ImageFormat | None) -> Write:
    """A writer of `images/`, `masks/`, `classes.json` and `cases.csv`; None: in the pairs' own format."""

    def write(chosen: Chosen, folder: Path, tick: Callable[[], None]) -> None:
        target = replace(chosen.pairs, folder=folder, image_format=image_format or chosen.pairs.image_format)
        records = {}
        for number in chosen.numbers:
            chosen.verify(number)
            _copy(chosen.pairs, target, number)
            images, mask = target.images_of(number), target.mask_of(number)
            old = chosen.records[number]
            records[number] = replace(old, image_sha256=checksum(images), mask_sha256=checksum([mask]))
            tick()
        _write_tables(folder, chosen, target.table(chosen.numbers, records))

    return write


def write_dicom(chosen: Chosen, folder: Path, tick: Callable[[], None]) -> None:
    """Secondary Captures in `images/` and a DICOM-SEG of each mask in `masks/`, with a table of the cases.

    Every channel is a series of its own; the segmentation points at the first.
    """
    pairs, target = chosen.pairs, replace(chosen.pairs, folder=folder)
    origin = f"Generator {chosen.card.generator or 'not told'}."
    records = {}
    for number in chosen.numbers:
        chosen.verify(number)
        old = chosen.records[number]
        files, seg = target.images_of(number, DICOM), target.mask_of(number, DICOM)
        for series, (path, plane) in enumerate(zip(files, chosen.planes(number), strict=True), start=1):
            write_synthetic_dicom(
                path,
                plane,
                name=f"Synthetic^Pair {number:06d}",
                key=old.image_sha256,
                number=number,
                bits=LEVELS[pairs.image_format].bit_length(),
                channel=pairs.modalities[series - 1] if len(files) > 1 else "",
                series=series,
                origin=origin,
            )
        mask = Mask(pairs.mask(number)[np.newaxis], read_grid(files[0]).affine)
        write_dicom_seg(seg, mask, files[:1], pairs.classes, model="fewmask pairs")
        records[number] = replace(old, image_sha256=checksum(files), mask_sha256=checksum([seg]))
        tick()
    _write_tables(folder, chosen, target.table(chosen.numbers, records, DICOM))


def writer_of(layout: Layout, image_format: ImageFormat | None) -> Write:
    """What writes a layout."""
    return {"nnunet": write_nnunet, "dicom": write_dicom, "folder": folder_writer(image_format)}[layout]


def _copy(pairs: PairFolder, target: PairFolder, number: int) -> None:
    """The files of a pair in the target's format: as they are, or level by level."""
    ways = [*zip(pairs.images_of(number), target.images_of(number), strict=True)]
    if pairs.image_format == target.image_format:
        for old, new in [*ways, (pairs.mask_of(number), target.mask_of(number))]:
            data = old.read_bytes()
            write_atomic(new, lambda temporary, data=data: temporary.write_bytes(data))  # type: ignore[misc]
        return
    place = PLACE[target.image_format]
    for old, new in ways:
        write_volume(new, Volume(read_volume(old).voxels, place))
    write_mask(target.mask_of(number), Mask(read_mask(pairs.mask_of(number)).voxels, place))


def _write_tables(folder: Path, chosen: Chosen, table: str) -> None:
    write_json(folder / CLASSES_JSON, dict(chosen.pairs.classes))
    write_text(folder / CASES_CSV, table)
