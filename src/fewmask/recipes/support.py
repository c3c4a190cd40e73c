"""Heads that learn from generated slices which a person labelled, as RepurposeGAN was published.

Their latents are known, so no inversion blurs what the head learns from; test slices are inverted as ever.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewmask.core.errors import ConfigError
from fewmask.inversion.resume import array_key, network_key
from fewmask.metrics.score import Row
from fewmask.recipes.arms import place
from fewmask.recipes.heads import Heads, TrainedHead, key_of, tested_head
from fewmask.recipes.reading import Reading
from fewmask.segmenter.sources import encode
from fewmask.synthesis.pixelhead import Shots
from fewmask.synthesis.support import Support, read_support


def key_of_supported(reading: Reading) -> str:
    """The arm of a reading on generated slices, as rows name it."""
    return f"{key_of(reading)} generated"


def checked_support(heads: Heads) -> Support:
    """The labelled samples of `head.support`.

    Raises:
        DataError: see `synthesis.support.read_support`.
        ConfigError: they were drawn by another generator than this run's.
    """
    folder = heads.settings.head.support
    assert folder is not None
    support = read_support(folder, heads.stage.cohort.classes)
    found, ours = support.generator, network_key(heads.gan.generator)
    if found != ours:
        raise ConfigError(
            "the labelled samples were drawn by another generator",
            where=str(folder),
            found=found,
            expected=ours,
            mend="Set gan.ready to the generator that `fewmask sample` was given.",
        )
    return support


def support_arms(heads: Heads, readings: Sequence[Reading], support: Support) -> list[Row]:
    """One head per reading on all labelled samples; their number stands for k."""
    stage, settings = heads.stage, heads.settings
    masks = encode(support.masks, stage.labels, str(settings.head.support))
    shots = Shots(support.images, masks, support.ws)
    rows: list[Row] = []
    for reading in readings:
        rows += _arm(
            heads,
            reading,
            shots,
            {"samples": array_key(support.images), "masks": array_key(masks.astype(np.float32))},
        )
    return rows


def _arm(heads: Heads, reading: Reading, shots: Shots, origin: dict[str, Any]) -> list[Row]:
    arm, count = key_of_supported(reading), len(shots.images)
    made_from = {**heads.made_from(reading), **origin}

    def train() -> TrainedHead:
        return heads.fit(reading, place(arm, count, 0), heads.stack(reading), shots, made_from)

    return tested_head(heads, arm, count, 0, made_from, train)
