"""The settings that recipes with heads on frozen features share: inversion, heads, teacher."""

from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field

from fewmask.recipes.reading import Reading
from fewmask.recipes.settings import (
    EncoderSettings,
    GANSettings,
    PrepareSettings,
    Settings,
    ShotSettings,
    UNetSettings,
)


class InversionSettings(Settings):
    """From a real slice to the generator's latent, for heads that read the generator."""

    steps: Annotated[int, Field(ge=1, description="steps in W and W+, on the CPU whatever device says")] = 100
    pti_steps: Annotated[
        int, Field(ge=1, description="@pti: updates that tune one generator to the training slices")
    ] = 300
    encoder_images: Annotated[
        int, Field(ge=1, description="@encoder: training slices on which the encoder learns, on the CPU")
    ] = 4_000
    copies: Annotated[
        int, Field(ge=0, description="augmented copies of each labelled slice, inverted too")
    ] = 12


def _reading(text: str) -> str:
    return Reading.parse(text).text


ReadingText = Annotated[str, AfterValidator(_reading)]
"""A setting that says what a head reads; see `recipes.reading`."""


class HeadSettings(Settings):
    """The small segmenters on frozen features.

    They and their inversions run on the CPU, whatever `device` says.
    """

    reads: Annotated[
        tuple[ReadingText, ...],
        Field(
            min_length=1,
            description="one arm each: generator, discriminator, encoder (self-supervised), unet, image, "
            "joined by +; the generator with the way to invert: @w, @w+, @pti or @encoder",
        ),
    ] = ("generator@w+", "generator+discriminator+image@w+")
    size: Annotated[
        Literal["S", "M", "L", "mlp"],
        Field(description="depth of the dilated convolutions; mlp: none; a head learns on the CPU"),
    ] = "S"
    smallest: Annotated[
        int, Field(ge=4, description="the generator's layers below so many pixels a side are not read")
    ] = 8
    width: Annotated[int, Field(ge=1, description="channels after the projection of the features")] = 64
    images: Annotated[int, Field(ge=1, description="training images seen")] = 2000
    members: Annotated[int, Field(ge=1, description="heads that vote, each from its own first weights")] = 1
    augment_features: Annotated[
        bool, Field(description="warp the features with the mask while the head learns")
    ] = False
    class_weights: Annotated[
        bool, Field(description="rare classes count more: 1 / sqrt of their share of pixels")
    ] = False
    support: Annotated[
        Path | None,
        Field(description="learn from generated slices that a person labelled: a folder of `fewmask sample`"),
    ] = None


class TeacherArmSettings(Settings):
    """Mean teacher: a U-Net that learns to agree with its own average on unlabelled slices."""

    labelled: Annotated[float, Field(gt=0, lt=1, description="share of labelled slices in each batch")] = 0.5
    average: Annotated[int, Field(ge=1, description="half-life of the teacher's weights, in images")] = 1_000
    weight: Annotated[float, Field(ge=0, description="weight of the loss on unlabelled slices")] = 1.0
    confidence: Annotated[
        float, Field(ge=0, le=1, description="pixels of which the teacher is less sure teach nothing")
    ] = 0.0


class Headed(Protocol):
    """The settings that heads and inversions look at, whichever recipe trains them."""

    @property
    def seed(self) -> int:
        """Fixes everything random."""

    @property
    def prepare(self) -> PrepareSettings:
        """From a scan to what the network sees."""

    @property
    def shots(self) -> ShotSettings:
        """How many masks."""

    @property
    def unet(self) -> UNetSettings:
        """The U-Net that may be read too."""

    @property
    def encoder(self) -> EncoderSettings:
        """The encoder that learns without labels."""

    @property
    def gan(self) -> GANSettings:
        """The generator."""

    @property
    def inversion(self) -> InversionSettings:
        """From slices to latents."""

    @property
    def head(self) -> HeadSettings:
        """The heads."""

    @property
    def trained_readings(self) -> tuple[Reading, ...]:
        """What the heads of this run read, each once."""


def refuse_twice(head: HeadSettings) -> None:
    """A `ValueError` when two readings are one and the same."""
    readings = [Reading.parse(text) for text in head.reads]
    if len({(frozenset(one.sources), one.way) for one in readings}) < len(readings):
        raise ValueError("head.reads names a reading twice, in whatever order: it would be one arm")


def refuse_support(head: HeadSettings) -> None:
    """A `ValueError` when a reading cannot learn from slices that the generator drew."""
    readings = [Reading.parse(text) for text in head.reads]
    strange = [one.text for one in readings if one.way not in ("w", "w+") or "unet" in one.sources]
    if strange:
        raise ValueError(
            "head.support holds slices that the generator drew: every head.reads must name it with "
            f"@w or @w+, and not the U-Net; found {', '.join(strange)}"
        )


def refuse_uneven(prepare: PrepareSettings, unet: UNetSettings) -> None:
    """A `ValueError` when the U-Net cannot halve a slice for every level."""
    step = 2 ** (len(unet.widths) - 1)
    if any(side % step for side in prepare.size):
        raise ValueError(
            f"the U-Net halves a slice {len(unet.widths) - 1} times: set prepare.size to multiples "
            f"of {step}; found {list(prepare.size)}"
        )
