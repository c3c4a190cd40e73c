"""Inversions on the disk: they cost minutes, so a run keeps them, with the recipe they were made by."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fewmask.core.errors import RunError
from fewmask.core.files import write_atomic
from fewmask.inversion.result import Inversion
from fewmask.training.checkpoint import read_tensors

_FIELDS = ("ws", "images", "mse", "perceptual", "ms_ssim")
_RECIPE = "recipe"


def write_inversion(path: Path, inversion: Inversion, recipe: Mapping[str, Any] | None = None) -> Path:
    """Write an inversion as safetensors, atomically; `recipe` (JSON values) tells how it was made.

    Tensors are named as the fields of `Inversion`; noise maps "noise/00", "noise/01", ... The same inversion
    and recipe give the same bytes.
    """
    arrays = {name: getattr(inversion, name) for name in _FIELDS}
    arrays |= {f"noise/{n:02d}": noise for n, noise in enumerate(inversion.noise)}
    told = {_RECIPE: json.dumps(dict(recipe or {}), sort_keys=True)}
    content = save(arrays, metadata=told)  # its own writer raises no OSError on a full disk
    return write_atomic(path, lambda temporary: temporary.write_bytes(content))


def read_inversion(path: Path) -> Inversion:
    """What `write_inversion` wrote.

    Raises:
        RunError: the file is missing, cut off or damaged, or it is no inversion.
    """
    tensors = read_tensors(path)
    missing = [name for name in _FIELDS if name not in tensors]
    if missing:
        raise RunError(
            "is not an inversion, or one of an older fewmask",
            where=str(path),
            found=", ".join(sorted(tensors)),
            expected=", ".join(_FIELDS),
            mend="Invert the images again.",
        )
    noise = tuple(tensors[name].numpy() for name in sorted(tensors) if name.startswith("noise/"))
    return Inversion(**{name: tensors[name].numpy() for name in _FIELDS}, noise=noise)


def read_recipe(path: Path) -> dict[str, Any]:
    """How the inversion in this file was made; raises `RunError` as `read_inversion` does."""
    try:
        with safe_open(path, framework="numpy") as opened:
            told: dict[str, Any] = json.loads((opened.metadata() or {}).get(_RECIPE, "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"is not a readable safetensors file ({error})", where=str(path)) from error
    return told
