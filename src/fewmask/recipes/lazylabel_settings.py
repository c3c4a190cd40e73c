"""The settings of the recipe lazylabel: masks from labels of whole images."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fewmask.recipes.settings import GroundSettings, Settings, SplitSettings, refuse_volumes

LazyArm = Literal[
    "cam",
    "autoencoder",
    "diffusion",
    "document",
    "cyclegan",
    "mask head",
    "vagan",
    "fixed point",
    "displacement",
]


class DomainsSettings(Settings):
    """Which slices count as healthy, and which as diseased."""

    tag: Annotated[
        str | None,
        Field(
            description="tag of the cases that labels whole images; None: a slice is diseased where its mask "
            "shows a class"
        ),
    ] = None
    healthy: Annotated[tuple[str, ...], Field(description="values of the tag that mean healthy")] = (
        "healthy",
    )
    diseased: Annotated[tuple[str, ...], Field(description="values of the tag that mean diseased")] = (
        "diseased",
    )
    disjoint: Annotated[
        bool,
        Field(
            description="a training patient gives slices to one domain only; test patients always do; costs "
            "half of the slices"
        ),
    ] = False
    match_height: Annotated[
        bool, Field(description="draw both training domains from the same heights in the scan")
    ] = True
    repeats: Annotated[
        int, Field(ge=1, description="for that: a slice may be shown so many times as often as others")
    ] = 4
    position: Annotated[
        str | None,
        Field(
            description="where cases are pictures of a stack: tag with the slice's number, or number/total"
        ),
    ] = None
    stratify: Annotated[
        str | None, Field(description="with disjoint: tag whose values are spread evenly over the domains")
    ] = None
    slices_per_patient: Annotated[int, Field(ge=1, description="at most so many slices of one patient")] = 60


class DocumentSettings(Settings):
    """CycleGAN and threshold as the document has them."""

    images: Annotated[int, Field(ge=1, description="diseased slices seen; the document: 500 epochs")] = 20_000
    width: Annotated[int, Field(ge=1, description="channels of the first layer")] = 32
    batch: Annotated[int, Field(ge=4, description="slices of each domain per update")] = 8
    flip: Annotated[bool, Field(description="mirror half of the slices; anatomy is asymmetric")] = False


class CycleSettings(Settings):
    """The published CycleGAN, with learning rates that hold."""

    images: Annotated[int, Field(ge=1, description="diseased slices seen")] = 20_000
    width: Annotated[int, Field(ge=1, description="channels of the first layer")] = 32
    blocks: Annotated[int, Field(ge=1, description="residual blocks: 6 up to 128 pixels, 9 above")] = 6
    batch: Annotated[int, Field(ge=1, description="slices of each domain per update")] = 4
    identity: Annotated[
        float, Field(ge=0, description="weight of leaving images of the other domain as they are, of lambda")
    ] = 0.5


class MaskHeadSettings(Settings):
    """CycleGAN whose generator says where it paints."""

    images: Annotated[int, Field(ge=1, description="diseased slices seen")] = 20_000
    batch: Annotated[int, Field(ge=1, description="slices of each domain per update")] = 8
    width: Annotated[int, Field(ge=1, description="channels of the first layer")] = 32
    area: Annotated[float, Field(ge=0, description="price of painting everywhere")] = 0.3
    variation: Annotated[float, Field(ge=0, description="price of a ragged mask (total variation)")] = 1e-3


class AddedMapSettings(Settings):
    """VA-GAN: a map that is added."""

    images: Annotated[int, Field(ge=1, description="diseased slices seen by the generator")] = 8_000
    batch: Annotated[int, Field(ge=1, description="slices per update")] = 8
    width: Annotated[int, Field(ge=1, description="channels of the first layer")] = 16
    warm_up: Annotated[
        int, Field(ge=0, description="first updates, each with 100 of the critic instead of 5, as published")
    ] = 25
    sparsity: Annotated[float, Field(ge=0, description="weight of the map's L1 norm")] = 100.0


class FixedPointSettings(Settings):
    """Fixed-Point GAN: one conditional generator that must leave a domain's own images alone."""

    images: Annotated[int, Field(ge=1, description="slices seen by the critic")] = 40_000
    batch: Annotated[int, Field(ge=1, description="slices per update")] = 8
    width: Annotated[int, Field(ge=1, description="channels of the first layer")] = 32


class DisplacementArmSettings(Settings):
    """An experiment for disease that displaces: the image is warped towards healthy."""

    images: Annotated[int, Field(ge=1, description="diseased slices seen by the generator")] = 8_000


class ClassifierArmSettings(Settings):
    """The classifier of whole images whose activation map is a rival."""

    images: Annotated[int, Field(ge=1, description="slices seen")] = 20_000
    gradient: Annotated[
        int | None,
        Field(ge=1, description="Grad-CAM after so many stages, finer; None: the plain activation map"),
    ] = None


class AutoencoderArmSettings(Settings):
    """The autoencoder of healthy slices whose residual is a rival."""

    images: Annotated[int, Field(ge=1, description="healthy slices seen")] = 20_000
    denoising: Annotated[
        bool, Field(description="learn to remove coarse noise (Kascenas et al. 2022) instead of a bottleneck")
    ] = True


class DiffusionArmSettings(Settings):
    """A small diffusion model that makes slices healthy: the strongest rival, and the dearest."""

    images: Annotated[int, Field(ge=1, description="slices seen")] = 60_000
    steps: Annotated[int, Field(ge=1, description="DDIM steps in either direction")] = 25
    guidance: Annotated[float, Field(ge=0, description="how strongly towards healthy")] = 3.0


class DifferenceArmSettings(Settings):
    """From how much each pixel was changed to a mask."""

    smoothing: Annotated[
        Literal["gaussian", "median", "none"], Field(description="what is done to each map first")
    ] = "gaussian"
    sigma: Annotated[float, Field(gt=0, description="of the Gaussian, in pixels")] = 1.0
    false_positive_share: Annotated[
        float, Field(gt=0, lt=1, description="share of healthy validation bodies that may fire")
    ] = 0.01
    least_area: Annotated[
        float, Field(ge=0, lt=1, description="parts below this share of the image are dropped")
    ] = 0.001
    body: Annotated[bool, Field(description="look inside the body only")] = True


class LazylabelSettings(GroundSettings):
    """Masks from image-level labels: methods that make an image healthy, and what must stand beside them."""

    split: SplitSettings = SplitSettings(validation=0.2)
    arms: Annotated[
        tuple[LazyArm, ...],
        Field(
            min_length=1,
            description="what to train and compare; empty mask, body and brightness are always there",
        ),
    ] = ("cam", "autoencoder", "document", "cyclegan", "mask head", "vagan", "fixed point")
    trainings: Annotated[
        int, Field(ge=1, description="trainings of every method, each from another seed")
    ] = 1
    boxes: Annotated[
        str | None,
        Field(description="table of boxes (file, x, y, w, h) in the cohort's folder, to score against"),
    ] = None
    domains: DomainsSettings = DomainsSettings()
    document: DocumentSettings = DocumentSettings()
    cyclegan: CycleSettings = CycleSettings()
    mask_head: MaskHeadSettings = MaskHeadSettings()
    vagan: AddedMapSettings = AddedMapSettings()
    fixed_point: FixedPointSettings = FixedPointSettings()
    displacement: DisplacementArmSettings = DisplacementArmSettings()
    classifier: ClassifierArmSettings = ClassifierArmSettings()
    autoencoder: AutoencoderArmSettings = AutoencoderArmSettings()
    diffusion: DiffusionArmSettings = DiffusionArmSettings()
    difference: DifferenceArmSettings = DifferenceArmSettings()

    @model_validator(mode="after")
    def _slices_of_three_parts(self) -> "LazylabelSettings":
        refuse_volumes(self.prepare)
        if not self.split.validation:
            raise ValueError(
                "healthy validation slices set every threshold: split.validation must be above 0"
            )
        if self.devices * self.machines > 1:
            raise ValueError("only the training of a generator is shared among devices: set devices=1")
        return self
