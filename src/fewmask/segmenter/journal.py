"""What happened to each scan of a folder, one JSON line at a time, so that the same command goes on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from fewmask.core.files import append_line


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    scan: str
    """Name of the scan."""
    outcome: Literal["done", "quarantined"]
    made_from: Mapping[str, str]
    """Checksums of input and model, and the settings: done again only when one of them has changed."""
    seconds: float
    reason: str = ""
    """Why it was quarantined; empty when done."""
    confidence: float | None = None
    by_class: Mapping[str, float] | None = None
    """Confidence per class, 0..1."""
    volume_ml: Mapping[str, float] | None = None
    """Volume of each class; for a picture of unknown pixel size, pixels / 1000."""
    mask_sha256: str = ""
    notes: tuple[str, ...] = ()
    """What reading the scan had to change, in words."""


def append(path: Path, entry: Entry) -> None:
    """Add a line and flush it to the disk; `RunError` when that is not possible."""
    append_line(path, json.dumps(asdict(entry), ensure_ascii=False))


def read(path: Path) -> dict[str, Entry]:
    """The last entry of every scan. A line cut short by a crash is passed over; no file gives no entries."""
    if not path.exists():
        return {}
    known = {field.name for field in fields(Entry)}
    entries: dict[str, Entry] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            entry = Entry(**{name: value for name, value in values.items() if name in known})
        except (ValueError, TypeError, AttributeError):
            continue
        entries[entry.scan] = entry
    return entries
