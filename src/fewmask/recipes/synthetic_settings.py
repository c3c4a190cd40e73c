"""The settings of the recipe synthetic: the factory of labelled images, and who learns from it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fewmask.recipes.head_settings import (
    HeadSettings,
    InversionSettings,
    ReadingText,
    TeacherArmSettings,
    refuse_support,
    refuse_uneven,
)
from fewmask.recipes.reading import Reading
from fewmask.recipes.settings import CommonSettings, GANSettings, Settings, refuse_shapes

TELLS = ("generator", "discriminator", "image")
"""What an interpreter may read: networks that belong to the generator, so that a factory is whole."""


class InterpreterSettings(HeadSettings):
    """The ensemble that labels generated slices; DatasetGAN's by default, narrower."""

    reads: Annotated[
        tuple[ReadingText, ...],
        Field(
            min_length=1,
            max_length=1,
            description="one: generator, with discriminator and image joined by +; @w, @w+, @pti or @encoder",
        ),
    ] = ("generator@w+",)
    size: Annotated[
        Literal["S", "M", "L", "mlp"],
        Field(description="mlp looks at single pixels, as DatasetGAN does; S, M, L: dilated convolutions"),
    ] = "mlp"
    members: Annotated[int, Field(ge=1, description="classifiers that vote")] = 10


class FactorySettings(Settings):
    """Generated images with labels, and which of them teach."""

    pairs: Annotated[int, Field(ge=1, description="generated images with labels, for each draw of shots")] = (
        1000
    )
    source: Annotated[
        Literal["real", "oracle"],
        Field(
            description="what the interpreter learns from: real, the shots after an inversion; oracle, as "
            "many generated slices, labelled by the U-Net on all masks (phantom only)"
        ),
    ] = "real"
    truncation: Annotated[float, Field(gt=0, le=1, description="psi: how near to the mean image")] = 0.7
    truncated_layers: Annotated[
        int | None, Field(ge=1, description="only the first so many styles are pulled; None: all")
    ] = None
    drop: Annotated[float, Field(ge=0, lt=1, description="share of the most uncertain pairs left out")] = 0.1
    plausible_from: Annotated[
        int | None,
        Field(
            ge=1,
            description="from so many slices on, masks must resemble theirs in area, place and pieces; "
            "None: never",
        ),
    ] = 4
    area: Annotated[float, Field(ge=1, description="plausible: factor beyond the shots' areas")] = 1.5
    centre: Annotated[
        float, Field(ge=0, description="plausible: share of the side beyond the shots' centres")
    ] = 0.06
    pieces: Annotated[int, Field(ge=0, description="plausible: pieces more or fewer than the shots'")] = 1
    labels: Annotated[
        Literal["soft", "vote"], Field(description="the ensemble's mean, or the vote of its members")
    ] = "soft"
    first: Annotated[
        float, Field(gt=0, lt=1, description="pairs then real: share of the training images that are pairs")
    ] = 0.5
    mix: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...],
        Field(description="shares of real slices in the batches of the mixed arms, one arm each"),
    ] = (0.5,)
    present: Annotated[
        float,
        Field(ge=0, le=1, description="gan.conditional: share of pairs drawn as slices with rare classes"),
    ] = 0.5
    image_format: Annotated[
        Literal["png", "nifti"], Field(description="files of the pairs: 8 bit, or 12 bit with one slice each")
    ] = "png"


class SemanticSettings(Settings):
    """SemanticGAN: for each draw of shots the generator goes on and learns to draw masks too."""

    images: Annotated[
        int,
        Field(ge=1, description="unlabelled slices that it sees, and labelled ones, after the run's GAN"),
    ] = 8_000
    augment: Annotated[bool, Field(description="vary the labelled slices and their masks")] = True
    truncation: Annotated[float, Field(gt=0, le=1, description="psi of its pairs; 1 as published")] = 1.0
    encoder_images: Annotated[
        int,
        Field(ge=0, description="slices on which its encoder learns; 0: none, the search starts at the mean"),
    ] = 4_000
    steps: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(description="semantic search: steps on latents of test slices, one arm each; 0: encoder only"),
    ] = (0, 100, 300)


SyntheticArm = Literal[
    "empty",
    "unet",
    "plain",
    "mean teacher",
    "interpreter",
    "pairs",
    "pairs then real",
    "mixed",
    "semantic pairs",
    "semantic pairs then real",
    "semantic search",
]
"""Groups of arms that `synthetic` can train; "mixed" are those of factory.mix, "semantic search" those of
semantic.steps."""


class SyntheticSettings(CommonSettings):
    """A factory of labelled images from few masks, and the same U-Net taught by it and without it."""

    arms: Annotated[
        tuple[SyntheticArm, ...], Field(description="what to train and compare; unet is always there")
    ] = ("empty", "unet", "plain", "mean teacher", "pairs", "pairs then real", "mixed")
    pool: Annotated[int, Field(ge=1, description="unlabelled slices of the mean teacher, at most")] = 5_000
    gan: GANSettings = GANSettings()
    inversion: InversionSettings = InversionSettings()
    head: InterpreterSettings = InterpreterSettings()
    factory: FactorySettings = FactorySettings()
    semantic: SemanticSettings = SemanticSettings()
    teacher: TeacherArmSettings = TeacherArmSettings()

    @property
    def reading(self) -> Reading:
        """What the interpreter reads."""
        return Reading.parse(self.head.reads[0])

    @property
    def trained_readings(self) -> tuple[Reading, ...]:
        """The interpreter's, where an arm needs it."""
        return (self.reading,) if self.needs_interpreter else ()

    @property
    def needs_interpreter(self) -> bool:
        """Whether any arm needs the ensemble that labels generated slices."""
        return self.needs_pairs or "interpreter" in self.arms

    @property
    def needs_pairs(self) -> bool:
        """Whether any arm learns from slices that the ensemble labelled."""
        return bool({"pairs", "pairs then real", "mixed"} & set(self.arms))

    @property
    def needs_semantic_pairs(self) -> bool:
        """Whether any arm learns from what the mask branch draws."""
        return bool({"semantic pairs", "semantic pairs then real"} & set(self.arms))

    @property
    def needs_semantic(self) -> bool:
        """Whether any arm needs a generator with a mask branch."""
        return self.needs_semantic_pairs or "semantic search" in self.arms

    @property
    def needs_generator(self) -> bool:
        """Whether any arm needs a generator at all."""
        return self.needs_interpreter or self.needs_semantic

    @property
    def inverts(self) -> bool:
        """Whether labelled slices have to be inverted."""
        return self.needs_interpreter and self.factory.source == "real"

    @model_validator(mode="after")
    def _an_interpreter_that_generates(self) -> "SyntheticSettings":
        refuse_shapes(self.prepare)
        refuse_uneven(self.prepare, self.unet)
        reading = self.reading
        if not reading.generates or set(reading.sources) - set(TELLS):
            raise ValueError(
                "one interpreter labels generated slices: head.reads must be one reading of the generator, "
                f"with @w, @w+, @pti or @encoder, and {', '.join(TELLS[1:])} beside it; found "
                f"{', '.join(self.head.reads)}"
            )
        if len(set(self.factory.mix)) < len(self.factory.mix):
            raise ValueError("factory.mix names a share twice: it would be one arm")
        return self

    @model_validator(mode="after")
    def _labels_that_a_generator_takes(self) -> "SyntheticSettings":
        if self.gan.conditional and self.head.support is not None:
            raise ValueError("`fewmask sample` draws from generators without classes: no head.support here")
        if self.factory.present != FactorySettings().present and not self.gan.conditional:
            raise ValueError("factory.present tells a generator what to draw: it needs gan.conditional=true")
        return self

    @model_validator(mode="after")
    def _a_generator_that_can_draw_masks(self) -> "SyntheticSettings":
        if self.needs_semantic and self.gan.network != "stylegan2":
            raise ValueError("a mask branch stands beside a StyleGAN2: set gan.network=stylegan2")
        if len(set(self.semantic.steps)) < len(self.semantic.steps):
            raise ValueError("semantic.steps names a number twice: it would be one arm")
        return self

    @model_validator(mode="after")
    def _one_source_of_labels(self) -> "SyntheticSettings":
        if self.head.support is not None:
            refuse_support(self.head)
            if self.factory.source != "real":
                raise ValueError(
                    "head.support names slices that a person labelled: leave factory.source at real"
                )
        if self.factory.source == "oracle" and not self.shots.full:
            raise ValueError("the oracle is the U-Net on all masks: set shots.full=true")
        return self
