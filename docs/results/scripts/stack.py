"""Stack a cohort of picture slices, one sequence per colour channel, to volumes: scores are per patient then.

    python docs/results/scripts/stack.py mr-glioma-3-sequences OUT --channels '{"t1": 0, "flair": 1}'

Reads index.csv (file, mask, study, patient, slice, site) and writes NIfTI volumes and a cases.csv. The slices
carry no geometry: a pixel counts as 1 mm, and the distance of slices as `--between` mm.
"""

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from fewmask.core.volume import Mask, Volume
from fewmask.data.io import write_mask, write_volume


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("source", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--channels", type=json.loads, required=True)
    options.add_argument("--between", type=float, default=5.0)
    told = options.parse_args()
    studies = defaultdict(list)
    for row in csv.DictReader((told.source / "index.csv").open(encoding="utf-8")):
        studies[row["study"]].append(row)
    affine = np.diag([-1.0, -1.0, told.between, 1.0])  # rows go back, columns to the left, as in the pictures
    for part in ("images", "masks"):
        (told.out / part).mkdir(parents=True, exist_ok=True)
    lines = []
    for study, rows in sorted(studies.items()):
        rows.sort(key=lambda row: int(row["slice"]))
        voxels = np.stack([np.asarray(Image.open(told.source / row["file"])) for row in rows])
        mask = np.stack([np.asarray(Image.open(told.source / row["mask"])) > 0 for row in rows])
        line = {"case": study, "patient": rows[0]["patient"], "site": rows[0]["site"]}
        for name, channel in told.channels.items():
            line[f"image:{name}"] = f"images/{study}_{name}.nii.gz"
            write_volume(told.out / line[f"image:{name}"], Volume(voxels[..., channel], affine))
        line["mask"] = f"masks/{study}.nii.gz"
        write_mask(told.out / line["mask"], Mask(mask.astype(np.uint8), affine))
        lines.append(line)
    with (told.out / "cases.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(lines)
    (told.out / "classes.json").write_text('{"lesion": 1}\n', encoding="utf-8")
    print(f"{len(lines)} volumes of {len({line['patient'] for line in lines})} patients: {told.out}")


if __name__ == "__main__":
    main()
