"""Every setting of every recipe: a typed field with one line of doc, which is the help and the manual too."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SIDES = (16, 32, 64, 128, 256, 512, 1024)
"""Sides of a slice that a generator can draw, in pixels."""


MASKS = "masks"
"""The value of gan.presence that reads image-level labels off masks."""

FROZEN = ConfigDict(extra="forbid", frozen=True)
"""No setting changes during a run, and an unknown key is an error."""


class Settings(BaseModel):
    """Base of all groups of settings."""

    model_config = FROZEN


class CohortSettings(Settings):
    """How the files of the cohort are to be understood."""

    classes: Annotated[
        dict[str, int] | None,
        Field(
            description="class names and label values, e.g. {anterior: 1, posterior: 2}; None: as declared"
        ),
    ] = None
    reader: Annotated[
        str | None, Field(description="whose masks to use where several readers drew; None: the reference")
    ] = None
    lesions: Annotated[
        tuple[str, ...],
        Field(description="classes that many scans lack: scored by lesion, and none found is no alarm"),
    ] = ()


class PrepareSettings(Settings):
    """From a scan to what the network sees."""

    dims: Annotated[Literal[2, 3], Field(description="2: slices; 3: volumes")] = 2
    size: Annotated[tuple[int, int], Field(description="rows and columns of a slice, in pixels (dims=2)")] = (
        64,
        64,
    )
    spacing_mm: Annotated[
        tuple[float, float, float] | None,
        Field(description="voxel spacing (Z, Y, X) in mm for volumes; None: native"),
    ] = None
    intensity: Annotated[
        Literal["windows", "percentile", "zscore", "film"],
        Field(
            description="windows: CT in HU; percentile, zscore: MR; film: X-ray, by each film's percentiles"
        ),
    ] = "percentile"
    windows: Annotated[
        tuple[Literal["lung", "soft_tissue", "bone", "wide"], ...],
        Field(description="CT windows, one channel each: lung, soft_tissue, bone, wide"),
    ] = ("wide",)
    crop: Annotated[
        Literal["none", "body", "nonzero"],
        Field(description="cut to the body (CT) or to the non-zero box (MR)"),
    ] = "none"


class PhantomSettings(Settings):
    """The built-in torso that stands in when no cohort is given."""

    patients: Annotated[int, Field(ge=4, description="number of patients")] = 24
    size: Annotated[int, Field(ge=32, le=256, description="rows and columns of a slice, in pixels")] = 64
    slices: Annotated[int, Field(ge=1, description="slices per patient")] = 8
    lesion: Annotated[
        Literal["nodule", "opacity"], Field(description="what half of the patients have in their lungs")
    ] = "nodule"
    classes: Annotated[
        tuple[Literal["left_lung", "right_lung", "heart", "nodule", "opacity"], ...],
        Field(min_length=1, description="what the masks show"),
    ] = ("left_lung", "right_lung", "heart", "nodule")


class SplitSettings(Settings):
    """Which patients train, which validate, which test. Never slices: a patient is in one part only."""

    test: Annotated[float, Field(gt=0, lt=1, description="share of patients for the test")] = 0.3
    validation: Annotated[
        float, Field(ge=0, lt=1, description="share of patients for choosing checkpoints")
    ] = 0.0
    stratify: Annotated[
        str | None, Field(description="tag whose values are spread evenly over the parts")
    ] = None


class ShotSettings(Settings):
    """How many masks the few-shot arms may see."""

    counts: Annotated[tuple[int, ...], Field(description="numbers of labelled slices (or patients): k")] = (
        1,
        3,
        8,
    )
    draws: Annotated[int, Field(ge=1, description="independent draws of the k labelled ones")] = 2
    unit: Annotated[
        Literal["slice", "patient"],
        Field(description="what a shot is; of a patient every slice is learned, and inverted for heads"),
    ] = "slice"
    choice: Annotated[
        Literal["random", "coverage"],
        Field(description="how the k are chosen: by chance, or so that they cover the unlabelled slices"),
    ] = "random"
    full: Annotated[bool, Field(description="also train on all labelled training patients")] = True
    minutes_per_mask: Annotated[float, Field(gt=0, description="expert minutes for one labelled slice")] = 3.0


class EncoderSettings(Settings):
    """A small encoder that learns the slices without labels: for coverage, and as features for a head."""

    images: Annotated[int, Field(ge=1, description="slices on which it learns")] = 9_600


class UNetSettings(Settings):
    """The U-Net that every arm is compared with."""

    widths: Annotated[tuple[int, ...], Field(description="channels per level, from full resolution down")] = (
        24,
        48,
        96,
        192,
    )
    images: Annotated[int, Field(ge=1, description="training images seen")] = 3200
    batch: Annotated[int, Field(ge=1, description="images per update")] = 8
    learning_rate: Annotated[float, Field(gt=0, description="peak learning rate of AdamW")] = 1e-3
    patch: Annotated[
        tuple[int, int, int] | None,
        Field(description="patch (Z, Y, X) in voxels for dims=3; None: whole volumes"),
    ] = None
    flips: Annotated[
        tuple[Literal["z", "y", "x"], ...],
        Field(description="axes that may be mirrored; none by default, anatomy is asymmetric"),
    ] = ()
    tta: Annotated[bool, Field(description="average predictions over small shifts and allowed flips")] = False
    class_weights: Annotated[
        bool, Field(description="rare classes count more: 1 / sqrt of their share of pixels")
    ] = False
    follow: Annotated[
        bool,
        Field(description="draw the mean IoU of the test slices over training (2-D); it chooses nothing"),
    ] = False


class GANSettings(Settings):
    """The generator on the unlabelled slices."""

    network: Annotated[
        Literal["stylegan2", "stylegan3-t", "stylegan3-r"],
        Field(description="stylegan3 moves without sticking to pixels, at several times the cost"),
    ] = "stylegan2"
    images: Annotated[int, Field(ge=1, description="training images seen by the discriminator")] = 40_000
    batch: Annotated[int, Field(ge=2, description="images per update")] = 16
    parts: Annotated[
        int, Field(ge=1, description="compute an update in so many parts: less memory, the same result")
    ] = 1
    channel_base: Annotated[
        int, Field(description="channels x resolution: layer widths are min(base / size, max)")
    ] = 4096
    channel_max: Annotated[int, Field(description="widest layer")] = 64
    latent: Annotated[int, Field(description="length of z and w")] = 128
    mapping_layers: Annotated[int, Field(ge=1, description="layers of the mapping network")] = 4
    learning_rate: Annotated[float, Field(gt=0, description="learning rate of both networks")] = 2.5e-3
    r1_gamma: Annotated[
        float | None,
        Field(ge=0, description="weight of the gradient penalty R1; None: 0.0002 size^2 / batch"),
    ] = 0.2
    path_length: Annotated[
        float, Field(ge=0, description="weight of the path length penalty: 0 none, 2 as published")
    ] = 0.0
    mixing: Annotated[float, Field(ge=0, le=1, description="probability of style mixing (StyleGAN2)")] = 0.9
    reuse_fakes: Annotated[
        bool, Field(description="G learns from the images D just saw: cheaper than the published order")
    ] = False
    ada_target: Annotated[
        float, Field(description="mean sign of D on real images that augmentation aims at")
    ] = 0.6
    ada_images: Annotated[int, Field(description="images over which p can rise from 0 to 1")] = 50_000
    mirror: Annotated[bool, Field(description="left-right flips; off: anatomy is asymmetric")] = False
    slices_per_patient: Annotated[int, Field(ge=1, description="at most so many slices of one patient")] = 60
    presence: Annotated[
        str | None,
        Field(
            min_length=1,
            description="image-level labels of rare classes: a tag of the pictures (tag=value: what means "
            "present), or masks: any class (of cohort.lesions) in the slice's mask; None: not known",
        ),
    ] = None
    balance: Annotated[
        bool, Field(description="with presence: show slices with and without equally often")
    ] = False
    conditional: Annotated[
        bool, Field(description="with presence: a generator that draws slices with or without, as told")
    ] = False
    start: Annotated[
        Path | None,
        Field(
            description="go on from this generator: a folder that holds generator.json, see `fewmask import`"
        ),
    ] = None
    ready: Annotated[
        Path | None,
        Field(description="train none: take this one, made by `run gan` on the same cohort, split and seed"),
    ] = None
    freeze_d: Annotated[
        int, Field(ge=0, description="with start: blocks of the discriminator, finest first, that stay")
    ] = 0

    @model_validator(mode="after")
    def _only_what_has_an_effect(self) -> "GANSettings":
        if self.freeze_d and self.start is None:
            raise ValueError("gan.freeze_d holds blocks of a trained discriminator: it needs gan.start")
        if self.path_length and self.network != "stylegan2":
            raise ValueError("StyleGAN3 has no path length penalty: leave gan.path_length at 0")
        if (self.balance or self.conditional) != (self.presence is not None):
            raise ValueError(
                "gan.presence says which slices show what is rare, gan.balance and gan.conditional use it: "
                "set gan.presence and at least one of these, or none"
            )
        return self


class GroundSettings(BaseModel):
    """What every recipe needs: chance, machine, cohort, split and preparation."""

    model_config = FROZEN
    seed: Annotated[int, Field(ge=0, description="fixes everything random")] = 0
    device: Annotated[Literal["cpu", "cuda", "mps"], Field(description="where to train")] = "cpu"
    devices: Annotated[int, Field(ge=1, description="how many of them, one process each")] = 1
    machines: Annotated[int, Field(ge=1, description="how many machines; see docs/scaling.md")] = 1
    precision: Annotated[
        Literal["fp32", "bf16"], Field(description="bf16: convolutions in bfloat16, weights in float32")
    ] = "fp32"
    threads: Annotated[int | None, Field(description="CPU threads; None: torch decides")] = None
    cohort: CohortSettings = CohortSettings()
    phantom: PhantomSettings = PhantomSettings()
    prepare: PrepareSettings = PrepareSettings()
    split: SplitSettings = SplitSettings()


class CommonSettings(GroundSettings):
    """What every recipe that segments needs."""

    shots: ShotSettings = ShotSettings()
    unet: UNetSettings = UNetSettings()
    encoder: EncoderSettings = EncoderSettings()

    @model_validator(mode="after")
    def _shots_fit_the_dimensions(self) -> "CommonSettings":
        if self.prepare.dims == 3 and self.shots.unit != "patient":
            raise ValueError("with volumes (prepare.dims=3) a shot is a patient: set shots.unit=patient")
        if len(set(self.shots.counts)) < len(self.shots.counts) or min(self.shots.counts, default=0) < 1:
            raise ValueError("shots.counts must be different numbers of at least 1")
        if self.prepare.dims == 3 and (self.shots.choice == "coverage" or self.unet.follow):
            raise ValueError("shots.choice=coverage and unet.follow look at slices: set prepare.dims=2")
        return self


class SupervisedSettings(CommonSettings):
    """U-Net on k labelled slices or patients, against the U-Net on all."""

    @model_validator(mode="after")
    def _on_one_device(self) -> "SupervisedSettings":
        _refuse_many_devices(self)
        return self


class QualitySettings(Settings):
    """How a generator is judged while it trains, without downloaded weights."""

    images: Annotated[
        int, Field(ge=0, description="images on which the judging encoder learns; 0: no judgement")
    ] = 9_600
    samples: Annotated[int, Field(ge=32, description="generated images per judgement")] = 256
    judgements: Annotated[int, Field(ge=1, description="judgements over the training, evenly spaced")] = 12


class GANRunSettings(GroundSettings):
    """A generator trained on unlabelled slices, judged and kept."""

    gan: GANSettings = GANSettings()
    quality: QualitySettings = QualitySettings()
    condition: Annotated[
        str | None, Field(description="a tag of the cases (e.g. site) to condition on; None: unconditional")
    ] = None

    @model_validator(mode="after")
    def _slices_for_a_generator(self) -> "GANRunSettings":
        refuse_shapes(self.prepare)
        if self.condition is not None and self.gan.presence is not None:
            raise ValueError("a generator has one kind of classes: set condition or gan.presence, not both")
        return self


class InvertRunSettings(GroundSettings):
    """Latents of unseen slices by several ways, and how far each may be trusted."""

    generator: Annotated[
        Path | None,
        Field(description="folder of the generator: the `generator` folder of a run, or an import"),
    ] = None
    ways: Annotated[
        tuple[Literal["encoder", "encoder+w+", "w", "w+", "w+noise", "pti"], ...],
        Field(
            description="encoder: in passes, +w+: then by steps; w, w+, w+noise: by steps; pti: weights too"
        ),
    ] = ("w", "w+", "pti")
    steps: Annotated[int, Field(ge=1, description="steps in W and W+")] = 100
    pti_steps: Annotated[int, Field(ge=1, description="at most so many steps on the generator's weights")] = (
        60
    )
    pti: Annotated[
        Literal["per_image", "shared"], Field(description="weights for each image, or one set for all")
    ] = "per_image"
    frame: Annotated[
        Literal["frozen", "free"], Field(description="StyleGAN3: may an inversion move the picture?")
    ] = "frozen"
    encoder_images: Annotated[int, Field(ge=1, description="images on which the encoder learns")] = 4_000
    batch: Annotated[int, Field(ge=1, description="slices inverted at once")] = 16
    reference: Annotated[
        int, Field(ge=8, description="training slices whose residuals say what is usual")
    ] = 64
    percentile: Annotated[
        float, Field(gt=0, lt=100, description="a residual above this percentile of theirs is flagged")
    ] = 95.0
    slices_per_patient: Annotated[int, Field(ge=1, description="at most so many slices of one patient")] = 8
    lpips: Annotated[
        Path | None, Field(description="LPIPS weights, if you have them; None: the discriminator's features")
    ] = None

    @model_validator(mode="after")
    def _on_one_device(self) -> "InvertRunSettings":
        _refuse_many_devices(self)
        return self


def refuse_shapes(prepare: PrepareSettings) -> None:
    """A `ValueError` unless the slices are squares that a generator can draw."""
    refuse_volumes(prepare)
    height, width = prepare.size
    if height != width or height not in SIDES:
        sides = ", ".join(map(str, SIDES))
        raise ValueError(
            f"the generator draws squares: set prepare.size=[N, N], N one of {sides}; "
            f"found [{height}, {width}]"
        )


def refuse_volumes(prepare: PrepareSettings) -> None:
    """A `ValueError` where whole volumes are asked for."""
    if prepare.dims != 2:
        raise ValueError("this recipe learns from slices: set prepare.dims=2")


def _refuse_many_devices(settings: GroundSettings) -> None:
    if settings.devices * settings.machines > 1:
        raise ValueError("only the training of a generator is shared among devices: set devices=1")
