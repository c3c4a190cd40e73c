"""The encoder that learns a run's unlabelled slices without labels, and where each slice lies in its eyes."""

import numpy as np
from numpy.typing import NDArray

from fewmask.data.case import Case
from fewmask.data.shots import PER_PATIENT as PER_PATIENT
from fewmask.data.shots import Embed
from fewmask.data.slices import prepare_slices
from fewmask.networks.embedding import ImageEncoder
from fewmask.recipes.ground import Ground
from fewmask.synthesis.quality import embed as vectors
from fewmask.synthesis.quality import fit_embedding


def learn_encoder(ground: Ground, slices: NDArray[np.floating], images: int) -> ImageEncoder:
    """Train it on slices (N, C, R, R) of training patients, or load it; kept in the run's folder.

    The slices stay as they are, in 16 bits: each batch of them becomes float32 when it is looked at.
    """
    return fit_embedding(
        slices,
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


def embedded(ground: Ground, encoder: ImageEncoder) -> Embed:
    """What gives the slices of a case that have content, and the vectors (n, d) of these."""

    def embed(case: Case) -> tuple[list[int], NDArray[np.float64]]:
        slices = prepare_slices([case], ground.cohort, ground.preparation, masks=False, dtype=np.float32)
        return [ref.z for ref in slices.refs], vectors(encoder, slices.images)

    return embed
