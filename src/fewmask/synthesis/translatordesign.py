"""What a CycleGAN is and how it is trained, in numbers: as published, or as the document on lazy labels."""

from dataclasses import dataclass
from typing import Literal

import torch

from fewmask.core.errors import ConfigError
from fewmask.core.seed import integer
from fewmask.data.augment_spatial import SpatialAugment, SpatialRanges
from fewmask.networks.cyclegan import (
    DocumentDiscriminator,
    DocumentGenerator,
    Down,
    PatchDiscriminator,
    ResNetGenerator,
)
from fewmask.objectives.cyclegan import CycleWeights, Players, Rate

Schedule = Literal["stable", "document"]

_RATES: dict[Schedule, tuple[float, float, float]] = {
    "stable": (2e-4, 2e-4, 0.5),
    "document": (5e-3, 2e-4, 1.0),
}
"""Rates of translators and discriminators, and the share of the training before they fall to 0."""


@dataclass(frozen=True)
class TranslatorDesign:
    """Of `train_translator`; the defaults are those of the published CycleGAN for images up to 128 px."""

    profile: Literal["reference", "document"] = "reference"
    """Networks: published (residual, instance norm, 70 x 70 patches), or the document's (batch norm)."""
    width: int = 64
    """Features of the first convolution of translators and discriminators."""
    blocks: int = 6
    """Residual blocks of a translator; published 9 above 128 px."""
    layers: int = 3
    """Halvings of a reference discriminator: 3 see 70 x 70 pixels, 2 see 34 x 34."""
    down: Down = "stride"
    """How the document's translator halves an image."""
    cycle: float = 10.0
    """Weight of the cycle's error."""
    identity: float = 0.5
    """Weight of the identity's error, times `cycle`."""
    schedule: Schedule = "stable"
    """Learning rates: 0.0002, falling linearly over the second half; or the document's 0.005 and 0.0002."""
    batch: int = 1
    """Images of each domain per update; batch norm needs at least 4."""
    history: int = 50
    """Older generated images kept of each domain."""
    rotate_deg: float = 5.0
    """Augmentation: the largest angle."""
    flip: bool = False
    """Augmentation: mirror left and right in half of the images; never for disease of one side."""

    def __post_init__(self) -> None:
        """Check what the networks do not check themselves."""
        if self.batch < 1 or min(self.cycle, self.identity, self.rotate_deg) < 0:
            raise ConfigError(
                "a translation cannot be trained like this",
                found=f"batch {self.batch}, cycle {self.cycle}, identity {self.identity}, "
                f"{self.rotate_deg} degrees",
                expected="a batch of at least 1, weights and angle not below 0",
            )
        if self.profile == "document" and self.batch < 4:
            raise ConfigError(
                "batch norm needs more images in a batch",
                where="batch",
                found=f"{self.batch}",
                expected="at least 4",
                mend="Set batch to 8, or profile to reference.",
            )

    @classmethod
    def document(cls, *, stable: bool = False) -> "TranslatorDesign":
        """The document's method, with its rates, or with those that do not diverge."""
        return cls(profile="document", schedule="stable" if stable else "document", batch=8, flip=True)

    @classmethod
    def tiny(cls) -> "TranslatorDesign":
        """Small enough for 32 px in seconds."""
        return cls(width=8, blocks=2, layers=2, batch=4)

    @property
    def weights(self) -> CycleWeights:
        """Of the objective's terms."""
        return CycleWeights(self.cycle, self.identity)

    def rates(self, images: int) -> tuple[Rate, Rate]:
        """Of translators and discriminators in a training of so many images."""
        translators, judges, stays = _RATES[self.schedule]
        return Rate(translators, images, stays), Rate(judges, images, stays)

    def augment(self) -> SpatialAugment | None:
        """The document's augmentation; None without."""
        if not self.rotate_deg and not self.flip:
            return None
        ranges = SpatialRanges(
            rotate_deg=self.rotate_deg,
            scale=1.0,
            stretch=1.0,
            shear=0.0,
            shift=0.0,
            elastic=0.0,
            probability=1.0,
            flips=("x",) if self.flip else (),
        )
        return SpatialAugment(ranges)

    def build(self, channels: int, *, seed: int = 0, label: str = "translator") -> Players:
        """All four networks for images of `channels`, weights drawn from (seed, label)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer(seed, label, "weights"))
            if self.profile == "reference":
                return Players(
                    ResNetGenerator(channels, channels, width=self.width, blocks=self.blocks),
                    ResNetGenerator(channels, channels, width=self.width, blocks=self.blocks),
                    PatchDiscriminator(channels, width=self.width, layers=self.layers),
                    PatchDiscriminator(channels, width=self.width, layers=self.layers),
                )
            how = {"width": self.width, "blocks": self.blocks}
            return Players(
                DocumentGenerator(channels, channels, down=self.down, **how),
                DocumentGenerator(channels, channels, down=self.down, **how),
                DocumentDiscriminator(channels, width=self.width),
                DocumentDiscriminator(channels, width=self.width),
            )
