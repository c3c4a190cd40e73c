"""The reference numbers, file by file: what each file is, is told by what it holds, not by its name.

`FEWMASK_PARITY` names the folder; `FEWMASK_PARITY_TABLE` names a file for the table of errors, as Markdown.
"""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4
"""Of the output's own spread, in float32."""
HALF = 3e-3
"""The same for what is stored in half precision, beyond its rounding."""

KINDS = {
    "generator": r"sd/synthesis\.(b4\.const|input\.freqs)",
    "discriminator": r"sd/b4\.out\.weight",
    "mapping": r"sd/fc0\.weight",
    "official": r"out/G_ema/.*",
    "operations": r"in/f1331",
    "augmentation": r"meta/Hz_geom",
    "mask_discriminator": r"sd/scale0_layer1\.0\.0\.weight_u",
    "mask_losses": r"out/softmax_tau[\d.]+",
    "ensemble": r"out/uncertainty_top10pct",
    "resnet": r"sd/model\.10\.conv_block\.1\.weight",
    "patches": r"sd/model\.0\.weight",
    "unet": r"sd/model\.model\.0\.weight",
    "schedule": r"out/lr_per_epoch",
}


def folder():
    path = Path(os.environ.get("FEWMASK_PARITY", "../shared/parity"))
    return path if path.is_absolute() else ROOT / path


def kind_of(path):
    """Which of the kinds a file is; None for another project's."""
    with np.load(path, allow_pickle=False) as file:
        for kind, pattern in KINDS.items():
            if any(re.fullmatch(pattern, key) for key in file.files):
                return kind
    return None


def pytest_generate_tests(metafunc):
    """A test that asks for `generator_file` runs once for every such file, and so on."""
    for kind in KINDS:
        if f"{kind}_file" in metafunc.fixturenames:
            found = [path for path in sorted(folder().glob("*.npz")) if kind_of(path) == kind]
            metafunc.parametrize(f"{kind}_file", found, ids=[path.stem for path in found])


def spread(theirs):
    """The standard deviation, or the size where there is nothing to vary."""
    deviation = float(theirs.double().std()) if theirs.numel() > 1 else 0.0
    size = float(theirs.double().abs().max())
    return deviation if deviation > 1e-6 * size else max(size, 1e-12)


@dataclass
class Reference:
    """One file: its configuration, arrays by name, and what was compared so far."""

    path: Path
    config: dict
    data: dict
    errors: dict = field(default_factory=dict)
    done: set = field(default_factory=set)

    def tensor(self, key):
        """An array as a tensor; None if it is missing or empty (no labels)."""
        value = self.data.get(key)
        return None if value is None or not value.size else torch.from_numpy(np.asarray(value))

    def state(self, prefix="sd/"):
        return {key.removeprefix(prefix): v for key, v in self.data.items() if key.startswith(prefix)}

    def named(self, pattern):
        """(key, match) of the keys that match a pattern as a whole."""
        return [(key, found) for key in self.data if (found := re.fullmatch(pattern, key))]

    def compare(self, key, ours, *, like=None):
        """Keep the largest difference, relative to the spread of the reference (or of the array `like`).

        What was stored in half precision was rounded by up to 2^-11 of itself, which is not counted.
        """
        self.done.add(key)
        theirs = torch.from_numpy(np.asarray(self.data[key])).double()
        ours = torch.as_tensor(ours).detach().double()
        assert ours.shape == theirs.shape, (key, tuple(ours.shape), tuple(theirs.shape))
        measure = theirs if like is None else torch.from_numpy(self.data[like])
        rounding = 2**-11 if self.data[key].dtype == np.float16 else 0.0
        off = (ours - theirs).abs() - rounding * theirs.abs()
        self.errors[key] = max(float(off.max()), 0.0) / spread(measure)

    def largest(self, prefix):
        return max((error for key, error in self.errors.items() if key.startswith(prefix)), default=None)

    def check(self, *also):
        """Nothing may be off, and no output may have been passed over but those named in `also`."""
        bad = {
            key: f"{error:.1e}"
            for key, error in self.errors.items()
            if not error <= (HALF if self.data[key].dtype == np.float16 else TOLERANCE)
        }
        assert not bad, bad
        unseen = [
            key
            for key in self.data
            if key.startswith(("out/", "act/", "sum/")) and key not in self.done and key not in also
        ]
        assert not unseen, f"no check for {unseen}"
        assert self.errors


def configuration(config):
    """In words, for the table."""
    if "G" in config:
        return configuration(config["G"])
    if "img_resolution" not in config:
        return ", ".join(f"{k} {v}" for k, v in config.items() if type(v) in (int, float)) or "-"
    words = [f"{config['img_resolution']} px", f"{config['img_channels']} ch"]
    words.append(f"width ({config.get('channel_base', 32768)}, {config.get('channel_max', 512)})")
    if config.get("c_dim"):
        words.append(f"{config['c_dim']} classes")
    if "conv_clamp" in config:
        words.append(f"clamp {config['conv_clamp']}")
    if config.get("use_radial_filters"):
        words.append("R")
    return ", ".join(words)


ROWS = []


@pytest.fixture
def reference():
    """Loads a file; what was compared in the test becomes a row of the table."""
    opened = []

    def load(path):
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
        found = Reference(path, json.loads(str(data.pop("cfg"))), data)
        opened.append(found)
        return found

    yield load
    ROWS.extend(found for found in opened if found.errors)


def pytest_sessionfinish():
    target = os.environ.get("FEWMASK_PARITY_TABLE")
    if not target or not ROWS:
        return
    lines = [
        "| file | what | configuration | compared | float32 | half precision |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(ROWS, key=lambda row: row.path.name):
        whole, half = row.largest("out/"), row.largest("act/")
        cells = [f"`{row.path.stem}`", kind_of(row.path), configuration(row.config), str(len(row.errors))]
        cells += ["-" if error is None else f"{error:.1e}" for error in (whole, half)]
        lines.append("| " + " | ".join(cells) + " |")
    Path(target).write_text("\n".join(lines) + "\n", encoding="utf-8")
