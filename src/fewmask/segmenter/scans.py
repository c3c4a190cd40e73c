"""What in a folder belongs together: one scan, or one case of several modalities, under one name."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewmask.core.errors import DataError
from fewmask.data.filetype import suffix_of
from fewmask.data.io import find_scans

_CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class Scan:
    """One thing to be segmented: a file or DICOM folder per modality, under a name for its results."""

    name: str
    files: Mapping[str, Path]


def gather_scans(place: Path, modalities: Sequence[str]) -> list[Scan]:
    """The scans below `place` (a folder, a DICOM folder or one file), sorted by name.

    For a model of one modality every file is a scan of its own. For several, files that share a name up to
    `_0000`, `_0001`, ... (nnU-Net: the number is the modality's position) or `_MODALITY` are one scan. Names
    keep the folders below `place`; equal names of different formats get their format appended.

    Raises:
        DataError: nothing readable is there.
    """
    place = Path(place)
    groups: dict[str, dict[str, Path]] = {}
    found = find_scans(place)
    plain = [_plain_name(path, place) for path in found]
    for path, name in zip(found, plain, strict=True):
        stem, modality = _split(name, modalities)
        if modality in groups.get(stem, {}) or (len(modalities) == 1 and stem in groups):
            stem = f"{stem}_{suffix_of(path).strip('.').replace('.', '_') or 'dicom'}"
        groups.setdefault(stem, {})[modality] = path
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
