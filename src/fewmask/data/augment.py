"""Strong augmentation of a batch: one warp and one change of tone per image, drawn first, then applied."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewmask.data.augment_intensity import IntensityRanges, Tone, apply_tone, draw_tone
from fewmask.data.augment_spatial import SpatialRanges, Warp, apply_warp, draw_warp


@dataclass(frozen=True)
class StrongAugment:
    """An `Augment` for few masks: (image, mask, generator) -> (image, mask), 2-D or 3-D by the image's axes.

    All chance comes from the generator handed in; the same generator state gives the same result. The ranges
    were tuned on chest films of 64 px with one labelled image.
    """

    spatial: SpatialRanges = field(default_factory=SpatialRanges)
    intensity: IntensityRanges = field(default_factory=IntensityRanges)
    outside: int = 0
    """Class of voxels that the warp brings in from beyond the border: background, for whole images on black.
    For patches of larger images give `IGNORE`."""

    def __call__(
        self, image: Tensor, mask: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """New images (B, C, *S) in [-1, 1] and masks, (B, *S) of integers or (B, K, *S) soft."""
        return self.apply(image, mask, *self.draw(image.shape, generator))

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> tuple[Warp, Tone]:
        """The changes of images of `shape` (B, C, *S), drawn from `generator`."""
        warp = draw_warp(shape[0], len(shape) - 2, self.spatial, generator)
        return warp, draw_tone(shape, self.intensity, generator)

    def apply(
        self, image: Tensor, mask: Tensor | None, warp: Warp, tone: Tone
    ) -> tuple[Tensor, Tensor | None]:
        """Change images and masks as drawn."""
        image, mask = apply_warp(image, mask, warp, spacing=self.spatial.spacing, outside=self.outside)
        return apply_tone(image, tone), mask
