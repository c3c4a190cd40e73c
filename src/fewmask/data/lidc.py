"""The annotation files of LIDC-IDRI (XML): which reader outlined what, on which slice. Reads no voxel.

One file tells of one CT series. Each `readingSession` is one reader; readers are numbered by their order in
the file and are not the same persons from scan to scan. Files come from strangers: a document type, and so
any entity, is refused before anything is built from the text.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import DataError

Kind = Literal["nodule", "small nodule", "non-nodule"]

ROOTS = ("LidcReadMessage", "IdriReadMessage")
MOST_BYTES = 64 << 20
"""The largest real file has about 2 MB."""
DEEPEST = 40
"""Real files are 6 elements deep."""


@dataclass(frozen=True, eq=False)
class Outline:
    """One region on one slice."""

    points: NDArray[np.int64]
    """(n, 2): pixels (x, y) of the slice as DICOM stores it, from (0, 0) at the upper left."""
    z_mm: float | None
    """Height of the slice in the patient (DICOM's z), as the file tells it."""
    sop_uid: str
    """UID of the DICOM image; empty where the file does not tell it."""
    inclusion: bool = True
    """True: part of the nodule. False: a hole in it. The points lie outside the region in both cases."""


@dataclass(frozen=True)
class Mark:
    """One finding of one reader.

    "nodule": 3 mm or more, outlined on every slice. "small nodule": below 3 mm, one point. "non-nodule": 3 mm
    or more but no nodule, one point.
    """

    reader: str
    name: str
    kind: Kind
    outlines: tuple[Outline, ...]
    characteristics: Mapping[str, int] = field(default_factory=dict)
    """Ratings, 1 to 5 or 6, of nodules: subtlety, malignancy, ..."""


@dataclass(frozen=True)
class Reading:
    """All that one file tells."""

    path: Path
    series_uid: str
    study_uid: str
    readers: tuple[str, ...]
    """Everybody who read the scan, also who marked nothing: "reader1", "reader2", ..."""
    marks: tuple[Mark, ...]
    remarks: tuple[str, ...] = ()
    """What was left out, in words."""


def is_lidc_xml(path: Path) -> bool:
    """Whether the beginning of a file names one of LIDC's root elements."""
    try:
        with path.open("rb") as stream:
            head = stream.read(4000)
    except OSError:
        return False
    return any(root.encode() in head for root in ROOTS)


def read_lidc_xml(path: Path) -> Reading:
    """Read one annotation file of a CT.

    Raises:
        DataError: unreadable, no XML, with a document type or entities, of another kind, or a value that is
            no number.
    """
    root = _parse(path)
    if _tag(root) not in ROOTS:
        raise DataError(
            "is no annotation file of LIDC",
            where=str(path),
            found=f"the root element {_tag(root)}",
            expected="LidcReadMessage",
        )
    header = next(_all(root, "ResponseHeader"), root)
    sessions = list(_all(root, "readingSession"))
    remarks: list[str] = []
    if not sessions:
        what = "CXRreadingSession" if any(_tag(one) == "CXRreadingSession" for one in root) else "none"
        raise DataError(
            "holds no reading of a CT",
            where=str(path),
            found=what,
            expected="one readingSession per reader",
            mend="Readings of radiographs are no outlines; leave the file out.",
        )
    marks: list[Mark] = []
    for number, session in enumerate(sessions, start=1):
        marks.extend(_marks(session, f"reader{number}", path, remarks))
    return Reading(
        path,
        series_uid=_any_text(header, ("SeriesInstanceUid", "SeriesInstanceUID")),
        study_uid=_any_text(header, ("StudyInstanceUID", "StudyInstanceUid")),
        readers=tuple(f"reader{number}" for number in range(1, len(sessions) + 1)),
        marks=tuple(marks),
        remarks=tuple(remarks),
    )


def _marks(session: ElementTree.Element, reader: str, path: Path, remarks: list[str]) -> Iterator[Mark]:
    """What one reader marked; a mark without any point is left out and told."""
    for number, nodule in enumerate(_all(session, "unblindedReadNodule", "unblindedRead"), start=1):
        name = _any_text(nodule, ("noduleID",)) or f"nodule {number}"
        where = f"{path.name}, {reader}, {name}"
        outlines = tuple(one for roi in _all(nodule, "roi") if (one := _outline(roi, where)) is not None)
        if not outlines:
            remarks.append(f"{where}: no outline, left out")
            continue
        single = sum(len(one.points) for one in outlines) == 1
        ratings = {_tag(one): int(text) for one in _characteristics(nodule) if (text := _text(one)).isdigit()}
        yield Mark(reader, name, "small nodule" if single else "nodule", outlines, ratings)
    for number, other in enumerate(_all(session, "nonNodule"), start=1):
        name = _any_text(other, ("nonNoduleID",)) or f"non-nodule {number}"
        one = _outline(other, f"{path.name}, {reader}, {name}")
        if one is not None:
            yield Mark(reader, name, "non-nodule", (one,))


def _characteristics(nodule: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for block in _all(nodule, "characteristics"):
        yield from block


def _outline(roi: ElementTree.Element, where: str) -> Outline | None:
    """One region; None when it has no point."""
    points = [
        (_number(_any_text(edge, ("xCoord",)), where), _number(_any_text(edge, ("yCoord",)), where))
        for edge in _all(roi, "edgeMap", "locus")
    ]
    if not points:
        return None
    z = _any_text(roi, ("imageZposition",))
    return Outline(
        np.rint(np.array(points)).astype(np.int64),
        _number(z, where) if z else None,
        _any_text(roi, ("imageSOP_UID",)),
        _any_text(roi, ("inclusion",)).upper() != "FALSE",
    )


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e6:  # NaN fails too
        raise DataError("a coordinate is no number", where=where, found=repr(text[:40]), expected="e.g. 312")
    return value


def _all(element: ElementTree.Element, *names: str) -> Iterator[ElementTree.Element]:
    """Children with one of these names, in any namespace."""
    return (child for child in element if _tag(child) in names)


def _any_text(element: ElementTree.Element, names: tuple[str, ...]) -> str:
    return next((_text(child) for child in _all(element, *names)), "")


def _text(element: ElementTree.Element) -> str:
    return (element.text or "").strip()


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _parse(path: Path) -> ElementTree.Element:
    """The root element of a file without document type or entity that is not absurdly deep or large."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    if size > MOST_BYTES:
        raise DataError("is too large for an annotation file", where=str(path), found=f"{size >> 20} MB")
    try:
        _refuse_tricks(data, path)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError("is not well-formed XML", where=str(path), found=str(error)) from error


def _refuse_tricks(data: bytes, path: Path) -> None:
    """Raise a `DataError` at a document type (entities, external files) and at absurd depth."""
    depth = 0

    def begin(_name: str, _attributes: object) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise DataError(f"elements are nested more than {DEEPEST} deep", where=str(path))

    def end(_name: str) -> None:
        nonlocal depth
        depth -= 1

    def document_type(*_arguments: object) -> None:
        raise DataError(
            "has a document type, which annotation files of LIDC have not",
            where=str(path),
            found="<!DOCTYPE ...>: it could define entities that fill the memory or read other files",
            mend="Get the file from its source again, or remove the declaration.",
        )

    reader = expat.ParserCreate()
    reader.StartElementHandler, reader.EndElementHandler = begin, end
    reader.StartDoctypeDeclHandler = document_type
    reader.EntityDeclHandler = document_type
    reader.Parse(data, True)
