"""A generator with a mask branch as a source of labelled images: pair n is fixed by (seed, n).

SemanticGAN (Li et al., CVPR 2021): image and mask come from the same styles, and no head stands between.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fewmask.core.errors import ConfigError
from fewmask.networks.semanticgan import SemanticGenerator
from fewmask.objectives.semanticgan import log_probabilities
from fewmask.synthesis.pairs import Pair, class_centres, image_score, numbered_styles, refuse_draws
from fewmask.synthesis.pixelhead import uncertainty


@dataclass(frozen=True, eq=False)
class SemanticPairMaker:
    """Draws pair n, whatever was drawn before it; a rival of `pairs.PairMaker`.

    The mask is the largest channel of the mask branch, or where its single one is above 0; `soft` are the
    probabilities, of the background too, and `uncertain` is their entropy, divided by that of a guess. Pair n
    has the latent that a `PairMaker` of the same seed gives it.

    generator: in evaluation mode; seed: names the latents; truncation: psi of the latents, 1 for none as
    published; truncated_layers: only the first so many styles are pulled, None for all; temperature: divides
    the logits before the softmax or the sigmoid, None for the published 0.1 and 0.3; labels (M, classes): for
    a generator with classes of whole images, each pair gets one of these rows and is pulled to its class.

    Raises `ConfigError` on a truncation outside [0, 1], a temperature that is not above 0, or labels that do
    not fit the generator.
    """

    generator: SemanticGenerator
    seed: int
    truncation: float = 1.0
    truncated_layers: int | None = None
    temperature: float | None = None
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot draw a pair."""
        refuse_draws(self.generator, self.truncation, self.labels)
        if self.temperature is not None and not self.temperature > 0:
            raise ConfigError(
                "pairs cannot be drawn so",
                found=f"temperature {self.temperature:g}",
                expected="a temperature above 0",
            )

    @cached_property
    def _centres(self) -> Tensor | None:
        return class_centres(self.generator)

    def __call__(self, number: int) -> Pair:
        """Pair `number`, at least 0."""
        with torch.no_grad():
            ws = numbered_styles(
                self.generator,
                self.seed,
                number,
                truncation=self.truncation,
                truncated_layers=self.truncated_layers,
                labels=self.labels,
                centres=self._centres,
            )
            image, logits = self.generator.pair(ws, "constant")
            image = image.float().clamp(-1, 1)
            probabilities = log_probabilities(logits, self.temperature).exp()
            unsure = uncertainty(probabilities[None])
        return Pair(
            number,
            image[0].cpu().numpy(),
            probabilities.argmax(dim=1)[0].cpu().numpy().astype(np.uint8),
            probabilities[0].cpu().numpy().astype(np.float16),
            unsure[0].cpu().numpy(),
            float(image_score(unsure)[0]),
        )
