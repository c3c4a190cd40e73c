"""The machine-readable record of a run: every setting, version and seed, the machine, and what it took."""

import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import fewmask
from fewmask.core.files import write_json
from fewmask.core.run import Run
from fewmask.data.cohort import Cohort
from fewmask.recipes.settings import GroundSettings
from fewmask.report.content import Trained

PACKAGES = ("torch", "monai", "numpy", "scipy", "SimpleITK", "nibabel", "pydicom", "lightning-fabric")


def versions() -> dict[str, str]:
    """Versions of fewmask, Python and the packages that numbers depend on."""
    return {
        "fewmask": fewmask.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def machine() -> dict[str, Any]:
    """What the run ran on, without the machine's name."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def fingerprint(cohort: Cohort) -> str:
    """A short hash of names, patients, classes, and files with sizes and times: has the cohort changed?"""
    digest = hashlib.sha256(repr(sorted(cohort.classes.items())).encode())
    for case in sorted(cohort.cases, key=lambda case: case.name):
        digest.update(f"{case.name}\x1f{case.patient}\x1f".encode())
        for path in [*(image.path for image in case.images.values()), *(mask.path for mask in case.masks)]:
            for part in _parts(path):
                stat = part.stat()
                digest.update(f"{part.name}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}\x1e".encode())
    return digest.hexdigest()[:16]


def patient_key(patient: str) -> str:
    """What is remembered of a patient with a generator: a short hash, no name."""
    return hashlib.sha256(f"fewmask patient {patient}".encode()).hexdigest()[:16]


def _parts(path: Path) -> list[Path]:
    """The files that a scan is made of: a DICOM folder's, or a header with what lies beside it."""
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.is_file())
    if path.suffix.lower() in (".mhd", ".nhdr", ".hdr"):
        return sorted(path.parent.glob(f"{path.stem}.*"))
    return [path] if path.is_file() else []


def write_record(
    run: Run,
    *,
    recipe: str,
    preset: str | None,
    command: str,
    settings: GroundSettings,
    cohort: Cohort,
    trained: Sequence[Trained],
    seconds: float,
) -> Path:
    """Write run.json; `seconds` is what this call took, each training tells its own whole time."""
    return write_json(
        run.run_json,
        {
            "recipe": recipe,
            "preset": preset,
            "command": command,
            "settings": settings.model_dump(mode="json"),
            "seed": settings.seed,
            "versions": versions(),
            "machine": machine(),
            "cohort": {
                "name": cohort.name,
                "cases": len(cohort.cases),
                "labelled": len(cohort.labelled),
                "patients": len(cohort.patients),
                "classes": dict(cohort.classes),
                "fingerprint": fingerprint(cohort),
            },
            "trained": [asdict(one) for one in trained],
            "seconds": round(seconds, 1),
        },
    )


def _processor() -> str:
    """The processor's model, where the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
