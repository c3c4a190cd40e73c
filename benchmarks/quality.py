"""Do the figures of `synthesis.quality` mean something? Known faults of real films, from weak to strong.

python -m benchmarks quality [COHORT [RUN]]

COHORT: a cohort of chest films (default ../shared/data/cxr-lungs-heart); RUN: a fewshot run at 64 px of it
(default runs/chest), whose picture grids over time are ranked if they are there. An encoder is trained on the
training patients' films as a training of a GAN would; then films of other patients, unharmed and harmed, are
judged as if a generator had drawn them.
"""

import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fewmask.core.run import Run, Step
from fewmask.core.seed import stream
from fewmask.data.cohort import read_cohort
from fewmask.data.prepare import Preparation
from fewmask.data.slices import prepare_slices
from fewmask.data.split import split_by_patient
from fewmask.networks.stylegan2 import Generator
from fewmask.synthesis.quality import Judge, Quality, fit_embedding
from fewmask.training.launch import launch

Images = NDArray[np.float32]
SIZE = 64
SEEDS = (0,)
"""Of the encoder; each costs a minute more."""


def films(cohort: Path) -> tuple[Images, Images]:
    """Training and test patients' films (N, 1, 64, 64), as the preset chest-xray-64 of `fewshot` has them."""
    read = read_cohort(cohort, on_fault="report")
    split = split_by_patient(read.cases, seed=0, test=0.3, validation=0.0)
    channels = dict.fromkeys(read.modalities, ("film",))
    how = Preparation(channels=channels, axes="slices", size=(SIZE, SIZE), crop="none")
    return tuple(
        np.asarray(
            prepare_slices([c for c in read.cases if c.patient in who], read, how, masks=False).images,
            dtype=np.float32,
        )
        for who in (split.train, split.test)
    )


def harmed(real: Images) -> dict[str, list[tuple[str, Images]]]:
    """Faults from none to strong."""
    noise = stream(0, "noise").normal(size=real.shape)
    mean = real.mean(axis=(1, 2, 3), keepdims=True)
    patched = stream(0, "patches").random((real.shape[0], 4, 4)).repeat(16, 1).repeat(16, 2)[:, None]
    other = np.roll(real, 1, axis=0)
    made = {
        "blur (pixels)": [
            (s, ndimage.gaussian_filter(real, (0, 0, s, s))) for s in (0.0, 0.4, 0.6, 1.0, 2.0)
        ],
        "noise (deviation)": [(s, (real + s * noise).clip(-1, 1)) for s in (0.0, 0.02, 0.05, 0.1, 0.2)],
        "less contrast": [(s, (real - mean) * s + mean) for s in (1.0, 0.9, 0.8, 0.6, 0.4)],
        "more contrast": [(s, ((real - mean) * s + mean).clip(-1, 1)) for s in (1.0, 1.2, 1.5, 2.0)],
        "shifted (pixels)": [(s, np.roll(real, s, axis=3)) for s in (0, 2, 4, 8)],
        "patches of others (share)": [(s, np.where(patched < s, other, real)) for s in (0.0, 0.1, 0.2, 0.4)],
        "distinct films": [(n, np.resize(real[:n], real.shape)) for n in (len(real), 40, 20, 10, 5, 2)],
    }
    return {
        name: [(f"{level:g}", np.asarray(one, dtype=np.float32)) for level, one in steps]
        for name, steps in made.items()
    }


def told(name: str, q: Quality) -> str:
    distances = (
        f"{q.frechet:8.2f} {q.kernel:8.3f} +- {q.kernel_error:5.3f} {q.precision:6.2f} {q.recall:6.2f}"
    )
    return (
        f"{name:34} {distances} {q.diversity:6.2f} {q.copying:7.2f} {q.copying_pixels:7.2f} {q.copies:6.2f}"
    )


HEAD = (
    f"{'':34} {'Frechet':>8} {'kernel':>8}    {'error':>5} {'prec.':>6} {'recall':>6} {'divers':>6}"
    f" {'copying':>7} {'pixels':>7} {'copies':>6}"
)


def show_faults(judge: Judge, unseen: Images) -> list[str]:
    """Print every fault; the names of those along which a distance did not rise."""
    broken = []
    for fault, steps in harmed(unseen).items():
        found = [judge.judge_images(images) for _, images in steps]
        print(fault)
        for (level, _), quality in zip(steps, found, strict=True):
            print(told(f"  {level}", quality))
        for figure in ("frechet", "kernel"):
            values = [getattr(quality, figure) for quality in found]
            if any(a >= b for a, b in pairwise(values)):
                broken.append(f"{fault}: {figure}")
    return broken


def show_copies(judge: Judge, training: Images, unseen: Images) -> None:
    """Training films with a little noise or a small shift, alone and among unseen films."""
    noise = stream(0, "copies").normal(0, 0.01, training.shape)
    copies = np.asarray(training + noise, dtype=np.float32)
    print("copies of training films")
    print(told("  all, noise 0.01", judge.judge_images(copies)))
    print(told("  all, shifted by one pixel", judge.judge_images(np.roll(copies, 1, axis=3))))
    print(told("  a quarter, noise 0.01", judge.judge_images(np.concatenate([copies[:17], unseen[:51]]))))


def grids(step: Step) -> list[tuple[str, Images]]:
    """The picture grids that a GAN's training left, by images seen."""
    found = []
    for path in sorted(step.samples.glob("*.png")):
        sheet = np.asarray(Image.open(path), dtype=np.float32) / 127.5 - 1
        rows, columns = sheet.shape[0] // SIZE, sheet.shape[1] // SIZE
        tiles = sheet.reshape(rows, SIZE, columns, SIZE).swapaxes(1, 2).reshape(-1, 1, SIZE, SIZE)
        found.append((str(int(path.stem)), tiles[tiles.std(axis=(1, 2, 3)) > 0]))
    return found


def show_grids(judge: Judge, run: Path) -> None:
    pictures = grids(Step(run / "steps" / "gan"))
    if not pictures:
        return
    count = min(len(images) for _, images in pictures)
    print(f"a GAN's pictures over time (images seen), {count} of each; floor of that many:")
    print(told("  floor", judge.floor(count)))
    for seen, images in pictures:
        print(told(f"  {seen}", judge.judge_images(images[:count])))


def show_cost(judge: Judge) -> None:
    """Seconds for one judgement of 256 images, as a training makes it."""
    design = {"channel_base": 2048, "channel_max": 64, "mapping_layers": 2}
    generator = Generator(128, 128, SIZE, 1, **design).eval()
    started = time.process_time()
    judge.judge(generator, count=256)
    print(f"one judgement of 256 images: {time.process_time() - started:.1f} CPU seconds")


def main() -> None:
    cohort = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/cxr-lungs-heart")
    run = Path(sys.argv[2] if len(sys.argv) > 2 else "runs/chest")
    training, unseen = films(cohort)
    fabric = launch(threads=1)
    print(f"{len(training)} training films, {len(unseen)} of other patients, {SIZE} px")
    everything: dict[int, list[str]] = {}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            encoder = fit_embedding(training, Run.open(Path(folder)).step("e"), seed=seed, fabric=fabric)
        print(f"\nseed {seed}: encoder trained in {time.process_time() - started:.0f} CPU seconds")
        judge = Judge.of(encoder, training)  # the unseen films are the "generated" ones here
        print(HEAD)
        print(told("floor", judge.floor()))
        everything[seed] = show_faults(judge, unseen)
        show_copies(judge, training, unseen)
        show_grids(judge, run)
        show_cost(judge)
    print(f"\ndistances that did not rise, by seed of the encoder: {everything}")


if __name__ == "__main__":
    main()
