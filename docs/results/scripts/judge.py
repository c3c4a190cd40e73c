"""Judge kept generators by the code as it is now, whatever code trained them.

python docs/results/scripts/judge.py COHORT WORK GENERATOR ...

COHORT is the cohort that the generators learned from, WORK a folder for the judge's own training, GENERATOR a
folder with generator.json. Preparation, split and seed are those remembered with the first generator. Prints
one line per generator, and one for real slices of unseen patients.
"""

import sys
from pathlib import Path

import numpy as np

from fewmask.core.run import Run
from fewmask.data.slices import prepare_slices
from fewmask.recipes.gan import FINAL, held_out_cases, quality_table
from fewmask.recipes.ground import open_ground
from fewmask.recipes.settings import GroundSettings
from fewmask.synthesis.keep import read_generator
from fewmask.synthesis.quality import Judge, fit_embedding


def main() -> None:
    cohort, work, *folders = (Path(word) for word in sys.argv[1:])
    kept = {folder.parent.name: read_generator(folder) for folder in folders}
    told = next(iter(kept.values())).told
    remembered = {name: told[name] for name in ("prepare", "split", "seed")}
    settings = GroundSettings.model_validate({**remembered, "threads": 1})
    ground = open_ground(settings, cohort, Run.open(work))
    training, unseen = (
        prepare_slices(cases, ground.cohort, ground.preparation, masks=False, cap=60).images
        for cases in (ground.training_cases, held_out_cases(ground))
    )
    encoder = fit_embedding(training, ground.run.step("embedding"), seed=settings.seed, fabric=ground.fabric)
    judge = Judge.of(encoder, training, np.asarray(unseen), seed=settings.seed)
    lines = {"unseen real slices": judge.floor(FINAL, seed=settings.seed)}
    for name, one in kept.items():
        lines[name] = judge.judge(one.generator, count=FINAL, seed=settings.seed)
    for row in quality_table(lines).rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
