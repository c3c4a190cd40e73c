"""Annotation files as LIDC writes them, made up for the tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<LidcReadMessage xmlns="http://www.nih.gov" uid="1.2.3">
 <ResponseHeader><Version>1.8.1</Version><TaskDescription>Second unblinded read</TaskDescription>
  <SeriesInstanceUid>{series}</SeriesInstanceUid><StudyInstanceUID>1.2.9</StudyInstanceUID></ResponseHeader>
"""


def square(low: int, high: int) -> list[tuple[int, int]]:
    """A chain (x, y) of touching pixels, one pixel outside the square low..high-1 in x and 2 further in y."""
    a, b = low - 1, high
    top = [(x, a) for x in range(a, b)]
    right = [(b, y) for y in range(a, b)]
    bottom = [(x, b) for x in range(b, a, -1)]
    left = [(a, y) for y in range(b, a, -1)]
    return [(x, y + 2) for x, y in (*top, *right, *bottom, *left)]


def roi(
    points: Sequence[tuple[int, int]], *, z: float | None = None, sop: str = "", inclusion: bool = True
) -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    height = "" if z is None else f"<imageZposition>{z} </imageZposition>"
    flag = "TRUE" if inclusion else "FALSE"
    return f"<roi>{height}<imageSOP_UID>{sop}</imageSOP_UID><inclusion>{flag}</inclusion>{edges}</roi>"


def nodule(name: str, *rois: str, malignancy: int | None = None) -> str:
    told = (
        ""
        if malignancy is None
        else f"<characteristics><malignancy>{malignancy}</malignancy></characteristics>"
    )
    return f"<unblindedReadNodule><noduleID>{name}</noduleID>{told}{''.join(rois)}</unblindedReadNodule>"


def non_nodule(name: str, x: int, y: int, z: float) -> str:
    return (
        f"<nonNodule><nonNoduleID>{name}</nonNoduleID><imageZposition>{z}</imageZposition>"
        f"<imageSOP_UID/><locus><xCoord>{x}</xCoord><yCoord>{y}</yCoord></locus></nonNodule>"
    )


def write_xml(path: Path, sessions: Sequence[str], *, series: str = "1.2.3.4") -> Path:
    body = "".join(
        f"<readingSession><annotationVersion>3.12</annotationVersion>{one}</readingSession>"
        for one in sessions
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEAD.format(series=series)}{body}</LidcReadMessage>")
    return path


def affine(*, dx: float = 0.7, dz: float = 2.5, z0: float = -100.0) -> np.ndarray:
    """A supine CT as DICOM stores it: x to the left, y to the back, z upwards."""
    matrix = np.diag([-dx, -dx, dz, 1.0])
    matrix[:3, 3] = (20.0, 30.0, z0)
    return matrix
