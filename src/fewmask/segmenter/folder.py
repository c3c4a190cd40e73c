"""A folder of scans in, a folder of masks out: what fails is set aside with its reason, the rest goes on."""

import csv
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fewmask.core.errors import ConfigError, FewmaskError, RunError
from fewmask.core.files import make_folder, write_text
from fewmask.core.run import MaskFolder, ModelFolder
from fewmask.core.volume import Mask, Volume
from fewmask.data.dicom import list_series
from fewmask.data.dicomseg import write_dicom_seg
from fewmask.data.io import read_volume, write_mask
from fewmask.data.overlay import save_png
from fewmask.segmenter import journal
from fewmask.segmenter.journal import Entry
from fewmask.segmenter.model import Segmenter, file_sha256
from fewmask.segmenter.picture import picture_of
from fewmask.segmenter.predict import predict, refuse_missing_modality
from fewmask.segmenter.scans import Scan, fingerprint, gather_scans
from fewmask.training.launch import refuse_missing
from fewmask.training.memory import keep_freed_blocks

MaskFormat = Literal["nii.gz", "nii", "nrrd", "seg.nrrd", "mha", "mhd", "png", "dicom-seg"]


@dataclass(frozen=True)
class FolderResult:
    """What became of the scans, by name. All three together are every scan that was found."""

    done: tuple[str, ...]
    """Segmented now."""
    skipped: tuple[str, ...]
    """Segmented before, from the same scan with the same model and settings."""
    quarantined: Mapping[str, str]
    """Not segmented, with the reason."""

    @property
    def exit_code(self) -> int:
        """0 when every scan has its mask, 2 when some were quarantined."""
        return 2 if self.quarantined else 0


def segment_folder(
    model: Path,
    scans: Path,
    out: Path,
    *,
    tta: bool = False,
    output_format: MaskFormat = "nii.gz",
    device: str = "cpu",
    say: Callable[[str], None] | None = None,
) -> FolderResult:
    """Segment every scan below a folder. The same call again does what is left, changed or quarantined.

    `out` gets a mask per scan on its native grid, a picture of it, `confidences.csv` (the least certain
    first) and `journal.jsonl` (a line per scan, appended as it is finished).

    Args:
        model: a model's folder.
        scans: a scan, a folder of scans and DICOM series, or a cohort; see `scans.gather_scans`.
        out: where the results go.
        tta: average over views; slower.
        output_format: format of the masks; "dicom-seg" needs DICOM scans, which it points at.
        device: where to compute, as torch names it.
        say: is told in a line how each scan went.

    Raises:
        DataError: no such model, or no scan at all.
        ConfigError: an unknown format, or a device that this machine does not have.
        RunError: `out` cannot be written to (full disk, no permission); what was done stays done.
    """
    if output_format not in get_args(MaskFormat):
        raise ConfigError("unknown format", found=output_format, expected=", ".join(get_args(MaskFormat)))
    refuse_missing(device)
    keep_freed_blocks()
    segmenter = Segmenter.load(model, device=device)
    found = gather_scans(scans, segmenter.design.modalities, channels=segmenter.design.picture_channels)
    files = MaskFolder(make_folder(out))
    settings = {
        "model": file_sha256(ModelFolder(Path(model)).model_json),
        "format": output_format,
        "tta": str(tta),
    }
    before = journal.read(files.journal_jsonl)
    done, skipped, quarantined = [], [], {}
    for scan in found:
        entry, fresh = _one(segmenter, scan, files, settings, before.get(scan.name))
        if not fresh:
            skipped.append(scan.name)
            continue
        journal.append(files.journal_jsonl, entry)
        if entry.outcome == "done":
            done.append(scan.name)
        else:
            quarantined[scan.name] = entry.reason
        if say is not None:
            say(_line(entry, len(done) + len(skipped) + len(quarantined), len(found)))
    names = {*done, *skipped}
    entries = journal.read(files.journal_jsonl)
    write_confidences(files.confidences_csv, [entries[name] for name in sorted(names)])
    return FolderResult(tuple(done), tuple(skipped), quarantined)


def write_confidences(path: Path, entries: list[Entry]) -> Path:
    """A CSV of scans, the least certain first: scan, confidence, then confidence and volume per class."""
    ranked = sorted(entries, key=lambda entry: (entry.confidence or 0.0, entry.scan))
    classes = list(dict.fromkeys(name for entry in ranked for name in entry.by_class or {}))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [f"{kind} {name}" for name in classes for kind in ("confidence", "ml")]
    writer.writerow(["scan", "confidence", *heads])
    for entry in ranked:
        pairs = [((entry.by_class or {}).get(name), (entry.volume_ml or {}).get(name)) for name in classes]
        cells = ["" if value is None else f"{value:.4f}" for pair in pairs for value in pair]
        writer.writerow([entry.scan, f"{entry.confidence or 0.0:.4f}", *cells])
    return write_text(path, text.getvalue())


def _one(
    segmenter: Segmenter, scan: Scan, files: MaskFolder, settings: Mapping[str, str], before: Entry | None
) -> tuple[Entry, bool]:
    """What became of one scan, and whether that is news. Any failure but that of writing is quarantined."""
    started = time.monotonic()
    made_from = dict(settings)
    try:
        made_from["input"] = fingerprint(scan.files)
        if scan.read_as:
            made_from["read as"] = scan.read_as
        if before is not None and _still_good(before, made_from, files):
            return before, False
        return _segment(segmenter, scan, files, made_from, started), True
    except RunError:
        raise
    except FewmaskError as error:
        reason = str(error)
    except MemoryError:
        reason = "not enough memory for this scan"
    except Exception as error:
        # a batch of thousands goes on whatever a strange file makes a reader raise
        reason = f"unexpected {type(error).__name__}: {error}"
    seconds = round(time.monotonic() - started, 3)
    return Entry(scan.name, "quarantined", made_from, seconds, reason=reason), True


def _still_good(before: Entry, made_from: Mapping[str, str], files: MaskFolder) -> bool:
    """Whether a scan was done before from the same input, model and settings, and its mask is still there."""
    if before.outcome != "done" or dict(before.made_from) != dict(made_from):
        return False
    mask = files.mask(before.scan, _suffix(made_from["format"]))
    return mask.is_file() and file_sha256(mask) == before.mask_sha256


def _segment(
    segmenter: Segmenter, scan: Scan, files: MaskFolder, made_from: Mapping[str, str], started: float
) -> Entry:
    """Read, segment and write one scan."""
    refuse_missing_modality(segmenter, scan.files)
    images = {
        name: read_volume(image.path, series=image.series, channel=image.channel)
        for name, image in scan.images.items()
    }
    first = segmenter.design.modalities[0]
    prediction = predict(segmenter, images, tta=made_from["tta"] == "True")
    mask = prediction.mask
    path = files.mask(scan.name, _suffix(made_from["format"]))
    _write(path, mask, scan.files[first], segmenter, made_from["format"])
    picture = picture_of(images[first], mask, prediction.trace, segmenter.design.classes)
    save_png(files.picture(scan.name), picture)
    return Entry(
        scan.name,
        "done",
        dict(made_from),
        round(time.monotonic() - started, 3),
        confidence=prediction.confidence,
        by_class=dict(prediction.by_class),
        volume_ml=volumes_ml(mask, segmenter.design.classes),
        mask_sha256=file_sha256(path),
        notes=_notes(images),
    )


def volumes_ml(mask: Mask, classes: Mapping[str, int]) -> dict[str, float]:
    """Volume of each class in millilitres."""
    counts = np.bincount(mask.voxels.ravel().astype(np.int64), minlength=256)
    return {name: float(counts[value] * np.prod(mask.spacing_mm) / 1000) for name, value in classes.items()}


def _notes(images: Mapping[str, Volume]) -> tuple[str, ...]:
    return tuple(f"{name}: {note}" for name, volume in images.items() for note in volume.notes)


def _suffix(output_format: str) -> str:
    return ".dcm" if output_format == "dicom-seg" else f".{output_format}"


def _write(path: Path, mask: Mask, source: Path, segmenter: Segmenter, output_format: str) -> None:
    if output_format != "dicom-seg":
        write_mask(path, mask, classes=segmenter.design.classes)
        return
    sources = list(list_series(source)[0].files) if source.is_dir() else [source]
    write_dicom_seg(path, mask, sources, segmenter.design.classes)


def _line(entry: Entry, number: int, count: int) -> str:
    head = f"{number}/{count} {entry.scan}: "
    if entry.outcome == "done":
        return head + f"confidence {entry.confidence:.2f}, {entry.seconds:.1f} s"
    return head + "quarantined. " + entry.reason.splitlines()[0]
