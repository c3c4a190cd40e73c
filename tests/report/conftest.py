"""A made-up run for the tests of the report; `python tests/report/conftest.py PATH` writes its page."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmask.core.seed import stream
from fewmask.metrics.score import Row
from fewmask.report.content import (
    EMPTY_ARM,
    Arm,
    CasePicture,
    Check,
    Curve,
    DataCard,
    Deviation,
    LedgerLine,
    Picture,
    Report,
    Sentence,
    Trained,
    expert_minutes,
)
from fewmask.report.page import write_page
from fewmask.report.tables import choose_cases

MEANS = {  # Dice of (arm, shots): our head wins at 1, is level at 3, loses at 8
    ("head", 1): 0.86, ("unet", 1): 0.80,
    ("head", 3): 0.885, ("unet", 3): 0.884,
    ("head", 8): 0.89, ("unet", 8): 0.925,
    ("unet", None): 0.95,
}  # fmt: skip
ARMS = (
    Arm("head", "GAN-feature segmenter", "ours", "a convolutional head on the generator's features"),
    Arm("unet", "plain U-Net", "baseline", "U-Net with strong augmentation on the same masks"),
)


def fake_rows(means=MEANS, *, patients=24, draws=2, classes=("left lung", "right lung", "heart")):
    chance = stream(7, "fake")
    ability = chance.normal(0, 0.025, patients)
    rows = []
    for (arm, shots), mean in means.items():
        for draw in range(draws if shots is not None else 1):
            shift = chance.normal(0, 0.004)
            for p in range(patients):
                for c, name in enumerate(classes):
                    dice = float(
                        np.clip(mean + ability[p] + shift - 0.02 * c + chance.normal(0, 0.012), 0, 0.99)
                    )
                    ml = 900.0 - 200 * c
                    rows.append(
                        Row(
                            arm=arm, shots=shots, draw=draw, case=f"film_{p:02d}", patient=f"P{p:03d}",
                            class_name=name, site="", dice=dice, iou=dice / (2 - dice),
                            assd_mm=20 * (1 - dice), hd95_mm=90 * (1 - dice), ceiling=0.982 - 0.01 * c,
                            pixel_accuracy=0.9 + 0.1 * dice, empty_accuracy=0.86 + 0.03 * c,
                            prevalence=0.14 - 0.03 * c, reference_ml=ml, predicted_ml=ml * 1.02,
                            outcome="overlap",
                        )
                    )  # fmt: skip
    return rows


MANY_ARMS = (
    *(Arm(f"way {n}", f"way number {n}", "ours") for n in range(1, 7)),
    Arm("unet", "plain U-Net", "baseline"),
    Arm("teacher", "mean teacher", "baseline"),
    Arm("raw", "head on raw intensities", "control"),
    EMPTY_ARM,
)


def many_rows(patients=12):
    """Six ways on trial, two baselines, a control and the empty mask at three numbers of shots.

    Way 6 is the best at k = 1 and 3, way 1 the worst; the mean teacher is above the U-Net.
    """
    means = {(f"way {n}", k): 0.7 + 0.02 * n + 0.02 * k for n in range(1, 7) for k in (1, 3)}
    means |= {("unet", k): 0.76 + 0.02 * k for k in (1, 3)} | {("unet", None): 0.9}
    means |= {("teacher", k): 0.79 + 0.02 * k for k in (1, 3)} | {("raw", k): 0.4 for k in (1, 3)}
    rows = [
        replace(r, slice_dice=r.dice - 0.1, slice_iou=r.iou - 0.1)
        for r in fake_rows(means, patients=patients)
    ]
    nothing = {"dice": 0.0, "iou": 0.0, "slice_dice": 0.0, "slice_iou": 0.0, "outcome": "missed"}
    return rows + [
        replace(r, arm="empty", shots=0, **nothing) for r in rows if (r.arm, r.shots) == ("unet", None)
    ]


def fake_png(seed, width=360, height=130):
    chance = stream(seed, "picture")
    y, x = np.mgrid[:height, :width]
    grey = 60 + 50 * np.sin(x / 23 + seed) + 40 * np.cos(y / 17) + chance.normal(0, 9, (height, width))
    stream_ = io.BytesIO()
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(stream_, "PNG")
    return stream_.getvalue()


def fake_report(rows):
    images = tuple(float(n) for n in range(0, 40_000, 200))
    noise = stream(1, "curve").normal(0, 0.05, (3, len(images)))
    cases = tuple(
        CasePicture(
            rank, "head", 3, 0, row.case, row.patient, dice,
            Picture.of_png(fake_png(i), f"{row.case}: image, reference and prediction side by side"),
        )
        for i, (rank, row, dice) in enumerate(choose_cases(rows, "head", 3))
    )  # fmt: skip
    return Report(
        title="Lungs and heart on chest films from 1, 3 and 8 masks",
        question="Does a GAN trained on unlabelled films help when only few of them have masks?",
        arms=ARMS,
        data=DataCard(
            cohort="cxr-lungs-heart", patients=240, cases=240, slices=240,
            classes=("left lung", "right lung", "heart"), modalities=("image",),
            parts={"train": 160, "validation": 8, "test": 72}, sites={"Tokyo": 154, "unknown": 86},
            shapes=((1, 1024, 1024), (1, 2048, 2048)), spacings_mm=((1.0, 0.175, 0.175), (1.0, 0.35, 0.35)),
            notes=("Three films carry a burnt-in letter.",),
        ),
        command="fewmask run fewshot --preset chest-xray-64 --cohort cxr-lungs-heart",
        made="2026-11-20 09:14",
        ledger=tuple(
            LedgerLine(
                arm, k, masks=k or 160, image_labels=0, unlabelled=160 if arm == "head" else 0,
                expert_minutes=expert_minutes(organ_slices=3 * (k or 160)),
            )
            for arm, k in MEANS
        ),
        trained=(
            Trained("StyleGAN2, 64 px", 400_000, 3605.2, "cpu, 1 thread", 5_210_337, 1830.0, "resumed twice"),
            Trained("plain U-Net, k = 8, draw 0", 3200, 84.1, "cpu, 1 thread", 1_934_020, 610.0),
        ),
        curves=(
            Curve(
                "StyleGAN2, 64 px", images,
                {
                    "loss_generator": tuple(0.8 + noise[0]), "loss_critic": tuple(1.0 + noise[1]),
                    "r1": tuple(0.1 + 0.1 * noise[2] ** 2), "ada_p": tuple(np.linspace(0, 0.31, len(images))),
                },
            ),
        ),
        checks=(
            Check("No patient in two parts", "passed", "240 patients, 0 shared", "A leak flatters."),
            Check(
                "The generator has not learnt single films by heart", "warning",
                "3 of 64 samples lie closer to a training film than training films lie to one another",
                "Do not pass the samples on.",
            ),
            Check(
                "The generator has not collapsed", "passed", "mean distance of pairs 0.91 of the real films'",
                "A collapsed generator has features for few films only.",
            ),
        ),
        deviations=(
            Deviation("Image size", "256 px", "64 px", "an hour on two cores"),
            Deviation("Perceptual distance", "VGG-16", "the critic's features", "no weights to download"),
        ),
        remarks=(Sentence("On the lungs alone a public pretrained model needs no mask at all.", "note"),),
        cases=cases,
        samples=(
            Picture.of_png(fake_png(99, 360, 360), "64 generated films in a grid", "after 400 000 images"),
        ),
        settings={
            "seed": 0, "gan": {"images": 400_000, "r1_gamma": 0.4},
            "shots": {"counts": [1, 3, 8], "draws": 2}, "prepare": {"size": [64, 64], "window": None},
        },
        versions={"fewmask": "0.1.0", "torch": "2.13.0", "python": "3.11"},
    )  # fmt: skip


@pytest.fixture
def make_rows():
    """`fake_rows`."""
    return fake_rows


@pytest.fixture(scope="session")
def many():
    """`many_rows` with their report."""
    rows = many_rows()
    return rows, replace(fake_report(rows), arms=MANY_ARMS)


@pytest.fixture
def make_report():
    """`fake_report`."""
    return fake_report


if __name__ == "__main__":
    table = fake_rows()
    write_page(fake_report(table), table, Path(sys.argv[1]))
