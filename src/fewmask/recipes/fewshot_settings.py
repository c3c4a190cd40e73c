"""The settings of the recipe fewshot: arms, heads, auto-shot, and learning without labels."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fewmask.recipes.head_settings import (
    HeadSettings,
    InversionSettings,
    ReadingText,
    TeacherArmSettings,
    refuse_support,
    refuse_twice,
    refuse_uneven,
)
from fewmask.recipes.reading import Reading
from fewmask.recipes.settings import CommonSettings, GANSettings, Settings, refuse_shapes, refuse_volumes


class AutoshotSettings(Settings):
    """Generated images labelled by a head teach a U-Net, so that inference needs one pass."""

    reads: Annotated[ReadingText, Field(description="which head labels; it reads the generator")] = (
        "generator+discriminator+image@w+"
    )
    samples: Annotated[int, Field(ge=1, description="generated images")] = 1000
    truncation: Annotated[float, Field(gt=0, le=1, description="psi: how near to the mean image")] = 0.8
    drop: Annotated[float, Field(ge=0, lt=1, description="share of the most uncertain samples left out")] = (
        0.1
    )
    confidence: Annotated[
        Literal["none", "entropy"], Field(description="entropy: pixels count as much as the head is sure")
    ] = "entropy"
    real: Annotated[float, Field(ge=0, lt=1, description="share of real labelled slices in each batch")] = 0.5


class PropagationSettings(Settings):
    """Labelled slices are registered with unlabelled ones: their shapes, and masks that are voted on.

    The registration presumes that all slices show the same organs.
    """

    targets: Annotated[
        int, Field(ge=1, description="unlabelled slices that are registered with every labelled one, at most")
    ] = 200
    real: Annotated[float, Field(gt=0, lt=1, description="share of real labelled slices in each batch")] = (
        0.33
    )
    warped: Annotated[
        float, Field(ge=0, lt=1, description="share of labelled slices warped onto unlabelled ones")
    ] = 0.33
    side: Annotated[
        int, Field(ge=16, description="longer side in pixels at which slices are registered, at most")
    ] = 64
    smoothness: Annotated[
        float, Field(gt=0, description="how smooth the warps are: sigma in pixels of that size")
    ] = 1.0

    @model_validator(mode="after")
    def _leave_room(self) -> "PropagationSettings":
        if self.real + self.warped >= 1:
            raise ValueError(
                "propagation.real and propagation.warped must leave room: their sum is 1 or more"
            )
        return self


FewshotArm = Literal["empty", "unet", "longer", "mean teacher", "heads", "auto-shot", "propagation"]
"""Groups of arms that `fewshot` can train; "heads" are those of head.reads."""


class FewshotSettings(CommonSettings):
    """From few masks and many unlabelled slices: GAN features, teachers, and the U-Net on the same masks."""

    arms: Annotated[
        tuple[FewshotArm, ...], Field(description="what to train and compare; unet is always there")
    ] = ("empty", "unet", "longer", "mean teacher", "heads", "auto-shot", "propagation")
    pool: Annotated[int, Field(ge=1, description="unlabelled slices that a teacher labels, at most")] = 5_000
    gan: GANSettings = GANSettings()
    inversion: InversionSettings = InversionSettings()
    head: HeadSettings = HeadSettings()
    autoshot: AutoshotSettings = AutoshotSettings()
    teacher: TeacherArmSettings = TeacherArmSettings()
    propagation: PropagationSettings = PropagationSettings()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What the heads of the table read, in the settings' order; none where no head was asked for."""
        return tuple(map(Reading.parse, self.head.reads)) if "heads" in self.arms else ()

    @property
    def trained_readings(self) -> tuple[Reading, ...]:
        """The same with the head of auto-shot, each once: one head per draw is trained for each."""
        auto = (Reading.parse(self.autoshot.reads),) if "auto-shot" in self.arms else ()
        return tuple(dict.fromkeys((*self.readings, *auto)))

    @property
    def needs_generator(self) -> bool:
        """Whether any head reads the generator or its discriminator."""
        return any({"generator", "discriminator"} & set(one.sources) for one in self.trained_readings)

    @property
    def needs_encoder(self) -> bool:
        """Whether the choice of shots or any head needs the self-supervised encoder."""
        read = any("encoder" in one.sources for one in self.trained_readings)
        return self.shots.choice == "coverage" or read

    @model_validator(mode="after")
    def _slices_that_networks_take(self) -> "FewshotSettings":
        if self.needs_generator or self.needs_encoder:
            refuse_shapes(self.prepare)
        if self.gan.presence is not None:
            raise ValueError("fewshot takes no image-level labels: gan.presence is for run gan and synthetic")
        refuse_volumes(self.prepare)
        refuse_uneven(self.prepare, self.unet)
        return self

    @model_validator(mode="after")
    def _arms_have_what_they_need(self) -> "FewshotSettings":
        if not Reading.parse(self.autoshot.reads).generates:
            raise ValueError("auto-shot labels generated slices: autoshot.reads must name the generator")
        refuse_twice(self.head)
        if self.head.support is not None:
            if "heads" not in self.arms:
                raise ValueError("head.support teaches the heads of head.reads: name heads in arms")
            refuse_support(self.head)
        return self
