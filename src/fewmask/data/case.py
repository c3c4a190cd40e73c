"""What a cohort is made of: paths and names, no voxel.

A cohort is a set of cases. A case is one scan (one or more aligned modalities) of one patient with the
masks that readers drew on it. Everything here is a frozen record; `cohort.read_cohort` makes it from disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fewmask.core.errors import Problem

REFERENCE = "reference"
"""The reader of a mask whose reader nobody named."""

FOREGROUND = "foreground"
"""The one class of a cohort that declares none."""

IMAGE = "image"
"""The one modality of a cohort that names none."""

PART = "part"
"""The tag that says which part a case comes in: train, validation or test."""


@dataclass(frozen=True)
class ImageFile:
    """Where one modality of a case lies: a file or a DICOM folder; in it a channel (RGB) or a series."""

    path: Path
    channel: int | None = None
    series: str | None = None


@dataclass(frozen=True)
class MaskFile:
    """One mask on disk. `class_name` None: the file is a label map; otherwise it shows that class only."""

    path: Path
    class_name: str | None = None
    reader: str = REFERENCE


@dataclass(frozen=True)
class Case:
    """One scan of one patient: images by modality, masks (none: unlabelled), and tags (site, part, ...)."""

    name: str
    patient: str
    images: Mapping[str, ImageFile]
    masks: tuple[MaskFile, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def readers(self) -> tuple[str, ...]:
        """Who drew masks on this case, sorted."""
        return tuple(sorted({mask.reader for mask in self.masks}))

    def masks_of(self, reader: str) -> tuple[MaskFile, ...]:
        """The masks that `reader` drew, in the order of the cohort."""
        return tuple(mask for mask in self.masks if mask.reader == reader)


@dataclass(frozen=True)
class Cohort:
    """Cases with what their label values mean.

    `classes` maps a class to its label value, 1..n, background (0) left out; its order is the order of
    painting where one-file-per-class masks overlap: the later class wins. `reader` is whose masks are read
    when nobody asks for another. `stored_ignore` is the value that means "unjudged" in the mask files.
    `faults` would make a run wrong, `remarks` would not; both were found while reading the folder.
    """

    name: str
    folder: Path
    cases: tuple[Case, ...]
    classes: Mapping[str, int]
    modalities: tuple[str, ...]
    reader: str = REFERENCE
    stored_ignore: int = 255
    faults: tuple[Problem, ...] = ()
    remarks: tuple[Problem, ...] = ()

    @property
    def labelled(self) -> tuple[Case, ...]:
        """The cases with a mask by the cohort's reader."""
        return tuple(case for case in self.cases if case.masks_of(self.reader))

    @property
    def unlabelled(self) -> tuple[Case, ...]:
        """The cases without a mask by the cohort's reader."""
        return tuple(case for case in self.cases if not case.masks_of(self.reader))

    @property
    def patients(self) -> tuple[str, ...]:
        """All patients, sorted, each once."""
        return tuple(sorted({case.patient for case in self.cases}))

    @property
    def readers(self) -> tuple[str, ...]:
        """Everybody who drew a mask, sorted."""
        return tuple(sorted({mask.reader for case in self.cases for mask in case.masks}))

    def case(self, name: str) -> Case:
        """The case of that name; a `KeyError` when there is none."""
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(name)


@dataclass(frozen=True)
class Found:
    """What one layout reader found in a folder, before classes and readers are settled."""

    cases: tuple[Case, ...]
    classes: Mapping[str, int] | None = None
    stored_ignore: int = 255
    faults: tuple[Problem, ...] = ()
    remarks: tuple[Problem, ...] = ()
