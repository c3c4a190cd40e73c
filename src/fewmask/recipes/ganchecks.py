"""What can go wrong with a GAN and its inversions, as checks on the page (protocol: failure checks)."""

import numpy as np
import torch
from numpy.typing import NDArray

from fewmask.core.seed import integer
from fewmask.inversion.project import Inversion
from fewmask.inversion.residual import residual_gate
from fewmask.metrics.fidelity import novelty
from fewmask.networks.stylegan2 import Generator
from fewmask.report.content import Check

SAMPLES = 128


def gan_checks(
    generator: Generator, training: NDArray[np.floating], held_out: NDArray[np.floating], *, seed: int
) -> tuple[Check, Check]:
    """Collapse and memorisation of a generator; images (N, C, H, W) in [-1, 1]."""
    chance = torch.Generator().manual_seed(integer(seed, "ganchecks"))
    z = torch.randn(SAMPLES, generator.z_dim, generator=chance)
    with torch.no_grad():
        made = [generator(some, noise="constant").clamp(-1, 1).numpy() for some in torch.split(z, 16)]
    found = novelty(np.concatenate(made), training, held_out)
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


def inversion_check(labelled: Inversion, test: Inversion) -> Check:
    """Are test slices met as well as the labelled ones?"""
    gate = residual_gate(labelled)
    share = float(gate.flags(test).mean())
    mse = f"MSE {np.median(test.mse):.4f} against {np.median(labelled.mse):.4f}"
    return Check(
        "Test slices are inverted as well as labelled ones",
        "passed" if share < 0.25 else "warning",
        f"{share:.0%} of the test slices exceed the 95th percentile of the labelled ones' residuals; {mse}",
        "Where the generator cannot draw a slice, the head reads features of another one.",
    )
