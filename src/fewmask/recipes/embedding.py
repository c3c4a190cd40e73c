"""The encoder that learns a run's unlabelled slices without labels, and where each slice lies in its eyes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fewmask.data.case import Case
from fewmask.data.slices import prepare_slices
from fewmask.networks.embedding import ImageEncoder
from fewmask.recipes.ground import Ground
from fewmask.synthesis.quality import embed as vectors
from fewmask.synthesis.quality import fit_embedding

PER_PATIENT = 60
"""Slices of one patient that are learned, at most."""


def learn_encoder(ground: Ground, slices: NDArray[np.floating], images: int) -> ImageEncoder:
    """Train it on slices (N, C, R, R) of training patients, or load it; kept in the run's folder."""
    return fit_embedding(
        np.asarray(slices, dtype=np.float32),
        ground.run.step("self-supervised"),
        images_seen=images,
        seed=ground.settings.seed,
        fabric=ground.fabric,
        label="self-supervised",
    ).to("cpu")


def unlabelled_slices(ground: Ground, cap: int) -> NDArray[np.floating]:
    """Slices (N, C, H, W) with content of all training patients, at most `cap` of each."""
    return prepare_slices(
        ground.training_cases, ground.cohort, ground.preparation, masks=False, cap=cap
    ).images


def embedded(ground: Ground, encoder: ImageEncoder) -> Callable[[Case], NDArray[np.float64]]:
    """What gives the vectors (Z, d) of all slices of a case."""

    def embed(case: Case) -> NDArray[np.float64]:
        slices = prepare_slices(
            [case], ground.cohort, ground.preparation, masks=False, rule=None, dtype=np.float32
        )
        return vectors(encoder, slices.images)

    return embed
