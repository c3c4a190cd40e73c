"""What can go wrong with a GAN and its inversions, as checks on the page (protocol: failure checks)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fewmask.core.seed import integer, stream
from fewmask.inversion.project import Inversion
from fewmask.inversion.residual import residual_gate
from fewmask.metrics.fidelity import novelty
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.alarms import BY_HEART, COLLAPSE, Alarm
from fewmask.objectives.latents import show_latents
from fewmask.report.content import Check

SAMPLES = 128
MOST = 1000
"""At most so many real slices are compared: distances are between all pairs."""


FEWEST = 8
"""Fewer residuals have no 95th percentile."""

NAME = "Test slices are inverted as well as labelled ones, by {}"
MEANING = "Where the generator cannot draw a slice, the head reads features of another one."


def gan_checks(
    generator: ImageGenerator, training: NDArray[np.floating], held_out: NDArray[np.floating], *, seed: int
) -> tuple[Check, Check]:
    """Collapse and memorisation of a generator; images (N, C, H, W) in [-1, 1], all classes in turn."""
    latents = show_latents(generator, SAMPLES, integer(seed, "ganchecks"))
    parts = [latents.rows(slice(first, first + 16)) for first in range(0, SAMPLES, 16)]
    with torch.no_grad():
        made = [generator(some.z[0], some.label, noise="constant").clamp(-1, 1).numpy() for some in parts]
    found = novelty(
        np.concatenate(made), _some(training, "training", seed), _some(held_out, "held out", seed)
    )
    varied = found.variety > 0.5
    new = found.copying > 0.5
    return (
        Check(
            "The generator has not collapsed",
            "passed" if varied else "failed",
            f"two generated slices differ {found.variety:.2f} times as much as two real ones",
            "A collapsed generator shows one anatomy again and again; its features know no other.",
        ),
        Check(
            "Generated slices are no copies",
            "passed" if new else "failed",
            f"the nearest training slice is {found.copying:.2f} times as far as from unseen real slices",
            "A generator that repeats its training slices must not be shared, and teaches nothing new.",
        ),
    )


def alarm_checks(rung: Sequence[Alarm]) -> tuple[Check, ...]:
    """What rang while the generator trained, one check per kind of alarm."""
    meanings = {
        COLLAPSE: "If it rings, the generator drew the same again and again; the kept snapshot may be sound.",
        BY_HEART: "If it rings, the discriminator knows the training slices by heart: add slices.",
    }
    of = {alarm.name: alarm for alarm in rung}
    return tuple(
        Check(
            f"No alarm of {name} during the training",
            "warning" if name in of else "passed",
            str(of[name]) if name in of else "none rang",
            meaning,
        )
        for name, meaning in meanings.items()
    )


def inversion_check(labelled: Inversion, test: Inversion, way: str) -> Check:
    """Are test slices met as well as the labelled ones, when both are inverted by `way`?"""
    name = NAME.format(way.upper() if way != "encoder" else "the encoder")
    if len(labelled.mse) < FEWEST:
        return Check(
            name, "not run", f"only {len(labelled.mse)} labelled slices and copies were inverted", MEANING
        )
    gate = residual_gate(labelled)
    share = float(gate.flags(test).mean())
    mse = f"MSE {np.median(test.mse):.4f} against {np.median(labelled.mse):.4f}"
    return Check(
        name,
        "passed" if share < 0.25 else "warning",
        f"{share:.0%} of the test slices exceed the 95th percentile of the labelled ones' residuals; {mse}",
        MEANING,
    )


def _some(images: NDArray[np.floating], name: str, seed: int) -> NDArray[np.floating]:
    """All images, or `MOST` of them."""
    if len(images) <= MOST:
        return images
    chosen = stream(seed, "ganchecks", name).choice(len(images), MOST, replace=False)
    return images[np.sort(chosen)]
