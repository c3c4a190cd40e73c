"""The command line: each verb is one call into the package.

What a verb needs is imported when the verb is asked for, so that `fewmask --help` answers at once.
Exit codes: 0 done; 2 the user's mistake, told in words without a traceback; 1 ours; 75 stopped by a cluster's
signal after a checkpoint, and 130 by Ctrl-C: the same command goes on.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from fewmask import __version__
from fewmask.core.errors import FewmaskError, StoppedError
from fewmask.training.helper import helper
from fewmask.training.stop import ended_at_once

app = App(
    name="fewmask",
    version=__version__,
    help="Train segmenters of medical scans from few masks, or none - and see when a simpler way wins.",
    help_epilogue="Start with `fewmask demo`. Then `fewmask check MY_COHORT` and "
    "`fewmask run fewshot --cohort MY_COHORT --out runs/mine`.",
    help_flags=["--help", "-h"],
    result_action="return_value",
)


@app.command
def demo(*, out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("runs/demo")) -> int:
    """Run the main job end to end on the built-in phantom: GAN, k = 1 and 8, U-Net, report.

    Example: fewmask demo --out runs/demo

    Args:
        out: Folder of the run.
    """
    return run("fewshot", preset="demo", out=out)


@app.command
def check(
    cohort: Path,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    classes: str | None = None,
) -> int:
    """Say all that is wrong with a cohort, what to do about it, and draw the masks on the scans.

    Example: fewmask check my_scans --out check --classes '{anterior: 1, posterior: 2}'

    Args:
        cohort: Folder with images/ and masks/, an nnU-Net raw folder, a cases.csv, or a folder of scans.
        out: Folder for the overlay pictures; none are drawn without it.
        classes: Class names and label values, where the files do not declare them.
    """
    from fewmask.recipes.verbs import check_verb

    return check_verb(cohort, out=out, classes=classes)


@app.command
def run(
    recipe: str,
    *overrides: str,
    preset: str | None = None,
    cohort: Path | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    config: Path | None = None,
    device: Literal["cpu", "cuda", "mps"] | None = None,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Run a recipe. The same command again resumes where it stopped.

    Example: fewmask run fewshot --preset chest-xray-64 --cohort my_scans --out runs/mine gan.images=80000

    Args:
        recipe: `supervised` (U-Net on k masks against all), `fewshot` (GAN features, beside the U-Net),
            `synthetic` (a factory of labelled images), `lazylabel` (masks from labels of whole images),
            `gan` (a generator on unlabelled slices) or `invert` (slices to latents of a generator).
        overrides: Settings as key=value, e.g. unet.images=800 shots.counts='[1, 8]'.
        preset: A named set of settings; `tiny` takes under a minute. `--preset list` shows them.
        cohort: What to train and test on; without it, the built-in phantom.
        out: Folder of the run; runs/RECIPE by default.
        config: YAML file of settings; key=value words go on top of it.
        device: Where to train (same as device=...).
        dry_run: Print the plan with estimates of time and memory, and stop.
        settings: List every setting with its default, and stop.
    """
    from fewmask.recipes import verbs

    if settings:
        return verbs.settings_verb(recipe)
    if preset == "list":
        return verbs.presets_verb(recipe)
    words = [*overrides, *([f"device={device}"] if device else [])]
    return verbs.run_verb(
        recipe, words, preset=preset, cohort=cohort, out=out, config=config, dry_run=dry_run
    )


@app.command(name="import")
def import_(
    checkpoint: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    channels: int | None = None,
) -> int:
    """Take over a published StyleGAN2-ADA or StyleGAN3 checkpoint (.pkl), as safetensors.

    The file is a pickle, a program of whoever wrote it: it is read value by value, and nothing in it is ever
    run. A file that asks for more than numbers and names is refused.

    Example: fewmask import stylegan2-ffhq.pkl --out runs/ffhq --channels 1

    Args:
        checkpoint: The .pkl file.
        out: Folder for generator.json and the weights; `run invert` and gan.start take it.
        channels: Channels of your slices; RGB becomes grey by the mean. Without it, as they are.
    """
    from fewmask.recipes.verbs import import_verb

    return import_verb(checkpoint, out=out, channels=channels)


@app.command
def sample(
    generator: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    count: int = 8,
    seed: int = 0,
    truncation: float = 0.8,
    image_format: Annotated[Literal["png", "nifti"], Parameter(name="--format")] = "png",
    choose: Literal["random", "coverage"] = "random",
    classes: str | None = None,
) -> int:
    """Draw images from a generator for a person to label: pictures, a folder for the masks, what to do.

    Their latents are known, so a head that learns from them loses nothing to an inversion.

    Example: fewmask sample runs/mine/generator --out to_label --count 8 --classes '{lung: 1}'

    Args:
        generator: Folder of a generator, or of a run that trained one.
        out: A new folder.
        count: How many images.
        seed: Which ones.
        truncation: Below 1 images are more usual, and better.
        image_format: png (8 bit) or nifti (12 bit, one slice each).
        choose: random, or by coverage: those that stand best for all that the generator draws.
        classes: Class names and label values of what is to be drawn, if they are known already.
    """
    from fewmask.recipes.sample import sample_verb

    return sample_verb(
        generator,
        out=out,
        count=count,
        seed=seed,
        truncation=truncation,
        image_format=image_format,
        choose=choose,
        classes=classes,
    )


@app.command
def pairs(
    run_folder: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    count: int = 10_000,
    cohort: Path | None = None,
    shard: str = "0/1",
    shots: int | None = None,
    draw: int = 0,
) -> int:
    """Draw more generated images with masks from a finished run of `synthetic`, in shards if wanted.

    Pair n is the same whatever the shards. The same command again draws what is missing; a larger --count
    adds to what is there. When all are there, those to learn from are chosen and a card is written.

    Example: fewmask pairs runs/factory --cohort my_scans --out my_pairs --count 10000 --shard 0/4

    Args:
        run_folder: Folder of the run.
        out: Folder of the pairs: a cohort, the same for all shards.
        count: Pairs of all shards together.
        cohort: The run's cohort; without it, the built-in phantom.
        shard: i/N: the pairs whose number leaves i when divided by N.
        shots: Pairs from so many labelled slices; without it, from the most that the run has.
        draw: Which draw of them.
    """
    from fewmask.recipes.pairs import pairs_verb

    return pairs_verb(run_folder, cohort=cohort, out=out, count=count, shard=shard, shots=shots, draw=draw)


@app.command
def segment(
    model: Path,
    scans: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    output_format: Annotated[
        Literal["nii.gz", "nrrd", "seg.nrrd", "mha", "png", "dicom-seg"], Parameter(name="--format")
    ] = "nii.gz",
    tta: Annotated[bool, Parameter(negative=())] = False,
    device: Literal["cpu", "cuda", "mps"] = "cpu",
) -> int:
    """Segment scans; masks come back on each scan's own grid, with a picture and a confidence.

    A scan that cannot be read is quarantined with its reason and the rest go on (exit code 2 then). The same
    command again does only what is left.

    Example: fewmask segment runs/mine/model my_scans -o masks --format seg.nrrd

    Args:
        model: Folder of a trained model (a run's `model`, or one step's).
        scans: A scan, or a folder of scans and DICOM series.
        out: Folder for masks, pictures, confidences and the journal.
        output_format: File format of the masks; dicom-seg needs DICOM scans.
        tta: Average over small shifts: slower, a little better.
        device: Where to compute.
    """
    from fewmask.recipes.verbs import segment_verb

    return segment_verb(model, scans, out, output_format=output_format, tta=tta, device=device)


@app.command
def score(
    predictions: Path,
    cohort: Path,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    classes: str | None = None,
    lesions: tuple[str, ...] = (),
    penalty: Literal["diag", "crossmoda", "brats_hd95"] = "diag",
) -> int:
    """Score masks from any program against a cohort's masks: Dice, IoU, ASSD, HD95, lesions, intervals.

    Example: fewmask score masks my_scans --out scores

    Args:
        predictions: Folder of masks named after the cases (CASE.nii.gz, CASE.png, ...).
        cohort: The cohort that holds the reference masks.
        out: Folder for results.csv.
        classes: Class names and label values, where the files do not declare them.
        lesions: Classes to score lesion by lesion as well, e.g. --lesions nodule.
        penalty: Distance in mm when one of two masks is empty: image diagonal, 350 or 373.13.
    """
    from fewmask.recipes.verbs import score_verb

    return score_verb(predictions, cohort, out=out, classes=classes, lesions=lesions, penalty=penalty)


@app.command
def consensus(
    cohort: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    rule: Literal["majority", "half", "staple", "grow"] = "majority",
    of: Literal["marking", "all"] = "marking",
    at_least: int = 1,
    readers: tuple[str, ...] = (),
    classes: str | None = None,
) -> int:
    """Make one reference out of the masks of several readers: a new cohort, agreement, pictures.

    A folder of LIDC-IDRI (CTs with their XML files) is taken as it is.

    Example: fewmask consensus my_scans --out my_reference --rule staple

    Args:
        cohort: The cohort with the readers' masks (masks/READER/..., or columns mask@READER), or LIDC.
        out: Folder of the new cohort; the scans stay where they are.
        rule: majority: more than half; half: at least half; staple; grow: readers and regions grown in CT.
        of: Who votes on a structure: the readers marking it, or all who read the case.
        at_least: Drop structures that fewer readers marked (LUNA16 asks for 3 of 4).
        readers: Only these take part.
        classes: Class names and label values, where the files do not declare them.
    """
    from fewmask.recipes.consensus import consensus_verb

    return consensus_verb(
        cohort, out=out, rule=rule, of=of, at_least=at_least, readers=readers, classes=classes
    )


@app.command
def export(
    pairs: Path,
    *,
    to: Literal["nnunet", "folder", "dicom"],
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    everything: Annotated[bool, Parameter(name="--all", negative=())] = False,
    image_format: Annotated[Literal["png", "nifti"] | None, Parameter(name="--format")] = None,
    override: str | None = None,
) -> int:
    """Hand on generated pairs, with their card: for nnU-Net, as a folder, or as DICOM marked synthetic.

    Refused (exit code 2) where the card tells of copies of training images, or does not tell of these pairs.

    Example: fewmask export runs/mine/pairs --to nnunet --out Dataset501_Synthetic

    Args:
        pairs: Folder of generated pairs.
        to: nnunet (raw data), folder (images/, masks/, cases.csv), or dicom (images and DICOM-SEG).
        out: A new folder; it appears when it is complete.
        everything: All pairs, not only those that were kept.
        image_format: File format of the layout folder; without it, as the pairs are.
        override: A sentence that the refusal prints; with it, it is done all the same, and the card says so.
    """
    from fewmask.recipes.export import export_verb

    return export_verb(
        pairs, to=to, out=out, everything=everything, image_format=image_format, override=override
    )


@app.command
def report(run_folder: Path) -> int:
    """Draw a run's report.html again from its files.

    Example: fewmask report runs/mine

    Args:
        run_folder: Folder of a finished run.
    """
    from fewmask.recipes.verbs import report_verb

    return report_verb(run_folder)


def main(words: list[str] | None = None) -> None:
    """Entry point of `fewmask`; ends the process with the exit code.

    Threads that wait for work give their core away: two processes whose threads spin on the same cores slow
    each other about tenfold. OpenMP reads this once, before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with ended_at_once():
        code = _dispatch(words)
    sys.exit(code)


def _dispatch(words: list[str] | None) -> int:
    try:
        code = app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        sys.stderr.write(f"fewmask: {error}\n")
        return 2
    except StoppedError as error:
        if helper():
            return 0  # the run itself tells
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except FewmaskError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on from the last checkpoint\n")
        return 130
    return code if isinstance(code, int) else 0
