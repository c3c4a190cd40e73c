"""What in a folder belongs together: one scan, or one case of several modalities, under one name."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fewmask.core.errors import DataError
from fewmask.data.case import Case, ImageFile
from fewmask.data.cohort import read_cohort
from fewmask.data.cohort_classes import declared_channels
from fewmask.data.cohort_folder import IMAGE_FOLDERS, MASK_FOLDERS
from fewmask.data.cohort_nnunet import IMAGES_TRAIN
from fewmask.data.cohort_table import CASES_CSV
from fewmask.data.filetype import PICTURES, suffix_of
from fewmask.data.io import find_scans

_CHANNEL = re.compile(r"_(\d{4})$")
_UNNAMED = re.compile(r"channel(\d+)")
_COLOURS = {"red": 0, "green": 1, "blue": 2}


@dataclass(frozen=True)
class Scan:
    """One thing to be segmented: a file or DICOM folder per modality, under a name for its results."""

    name: str
    images: Mapping[str, ImageFile]

    @property
    def files(self) -> dict[str, Path]:
        """Where each modality lies; the same file several times where its channels are modalities."""
        return {modality: image.path for modality, image in self.images.items()}

    @property
    def read_as(self) -> str:
        """Which channels and series are read, in words; empty where files have only one."""
        told = {
            name: ", ".join(
                f"{kind} {value}"
                for kind, value in (("channel", image.channel), ("series", image.series))
                if value is not None
            )
            for name, image in self.images.items()
        }
        return "; ".join(f"{name}: {words}" for name, words in sorted(told.items()) if words)


def gather_scans(
    place: Path, modalities: Sequence[str], *, channels: Mapping[str, int] | None = None
) -> list[Scan]:
    """The scans below `place` (a folder, a DICOM folder or one file), sorted by name.

    A cohort (`cases.csv`, `imagesTr/`, or `images/` with masks beside) gives its cases under their names, and
    no mask. Else, for a model of one modality every file is a scan of its own. For several, files that share
    a name up to `_0000`, `_0001`, ... (nnU-Net: the number is the modality's position) or `_MODALITY` are one
    scan; a picture whose channels are the modalities is one by itself. Names keep the folders below `place`;
    equal names of different formats get their format appended.

    Args:
        place: where the scans are.
        modalities: what the model needs.
        channels: channel number of each modality in pictures. A `channels.json` in `place`, or beside it,
            goes before it; red, green and blue need neither.

    Raises:
        DataError: nothing readable is there, or the cohort cannot be understood.
    """
    place = Path(place)
    numbers = _channel_numbers(place, modalities, channels or {})
    if _is_cohort(place):
        cases = read_cohort(place, on_fault="report").cases
        scans = {case.name: Scan(case.name, _of_case(case, modalities, numbers)) for case in cases}
        if len(scans) < len(cases):
            raise DataError(
                "the cohort has case names twice", where=str(place), mend="Name them differently."
            )
        return [scans[name] for name in sorted(scans)]
    groups: dict[str, dict[str, ImageFile]] = {}
    for path in find_scans(place):
        name = _plain_name(path, place)
        stem, modality = _split(name, modalities)
        images = {modality: ImageFile(path)}
        if numbers and suffix_of(path) in PICTURES and (stem == name or _coloured(path)):
            stem, images = name, _of_picture(path, numbers)
        if groups.get(stem, {}).keys() & images.keys() or (len(modalities) == 1 and stem in groups):
            stem = f"{stem}_{suffix_of(path).strip('.').replace('.', '_') or 'dicom'}"
        groups.setdefault(stem, {}).update(images)
    return [Scan(name, groups[name]) for name in sorted(groups)]


def fingerprint(files: Mapping[str, Path]) -> str:
    """SHA-256 over the bytes of all files of a scan, in hex; by it a changed input is known."""
    digest = hashlib.sha256()
    for modality in sorted(files):
        path = files[modality]
        inside = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
        for file in [*inside, *_companions(path)]:
            digest.update(f"{modality}/{file.name}\0".encode())
            try:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                raise DataError(f"cannot be read ({error.strerror or error})", where=str(file)) from error
    return digest.hexdigest()


def _is_cohort(place: Path) -> bool:
    """Whether `place` is a cohort with a layout of its own, and not just scans."""
    if place.is_file():
        return place.suffix.lower() == ".csv"
    if (place / CASES_CSV).is_file() or (place / IMAGES_TRAIN).is_dir():
        return True
    return all(any((place / name).is_dir() for name in names) for names in (IMAGE_FOLDERS, MASK_FOLDERS))


def _channel_numbers(place: Path, modalities: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    """The channel of each modality in pictures; none when the modalities are not known to be channels."""
    folder = place if place.is_dir() else place.parent
    for named in (declared_channels(folder), declared_channels(folder.parent), known, _COLOURS):
        if named and all(modality in named for modality in modalities):
            return {modality: named[modality] for modality in modalities}
    return {}


def _of_picture(path: Path, numbers: Mapping[str, int]) -> dict[str, ImageFile]:
    return {modality: ImageFile(path, channel) for modality, channel in numbers.items()}


def _of_case(case: Case, modalities: Sequence[str], numbers: Mapping[str, int]) -> dict[str, ImageFile]:
    """The images of a case by the model's modalities, as far as they can be told apart."""
    images = dict(case.images)
    if all(modality in images for modality in modalities):
        return {modality: images[modality] for modality in modalities}
    if len({(image.path, image.series) for image in images.values()}) == 1:
        only = next(iter(images.values()))
        if numbers and suffix_of(only.path) in PICTURES:
            return _of_picture(only.path, numbers)
        if len(modalities) == 1:
            return {modalities[0]: ImageFile(only.path, series=only.series)}
    by_number = {int(match[1]): images[name] for name in images if (match := _UNNAMED.fullmatch(name))}
    if len(by_number) == len(images):  # nnU-Net without a dataset.json
        return {name: by_number[number] for number, name in enumerate(modalities) if number in by_number}
    return images


def _coloured(path: Path) -> bool:
    """Whether a picture's header says that it has several channels."""
    try:
        with Image.open(path) as picture:
            return len(picture.getbands()) > 2
    except (OSError, ValueError, SyntaxError):
        return False  # reading the scan tells what is wrong with this file


def _plain_name(path: Path, place: Path) -> str:
    """The name below `place`, without suffix, with slashes for folders."""
    if path == place:
        return _stem(path)
    below = path.relative_to(place)
    return (below.parent / _stem(path)).as_posix()


def _stem(path: Path) -> str:
    if path.is_dir():
        return path.resolve().name
    suffix = suffix_of(path)
    return path.name[: len(path.name) - len(suffix)] if suffix else path.name


def _split(name: str, modalities: Sequence[str]) -> tuple[str, str]:
    """The case's name and which modality a file is."""
    number = _CHANNEL.search(name)
    if number and int(number[1]) < len(modalities):
        return name[: number.start()], modalities[int(number[1])]
    if len(modalities) > 1:
        for modality in modalities:
            if name.endswith(f"_{modality}"):
                return name[: -len(modality) - 1], modality
    return name, modalities[0]


def _companions(path: Path) -> list[Path]:
    """The voxel file beside a detached header."""
    if suffix_of(path) not in (".mhd", ".nhdr"):
        return []
    stem = path.name[: -len(suffix_of(path))]
    return [file for end in (".raw", ".zraw", ".raw.gz") if (file := path.with_name(stem + end)).is_file()]
