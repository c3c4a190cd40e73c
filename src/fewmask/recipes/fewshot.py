"""Few-shot segmentation on GAN features, beside the U-Net on the same masks.

StyleGAN2 (Karras et al. 2020, with adaptive augmentation) learns the unlabelled slices; the k labelled slices
and their augmented copies are projected into its latents; a small convolutional head learns from the
generator's activations (RepurposeGAN, Tritrong et al. 2021); the head labels generated images and a U-Net
learns from them and the k real slices (auto-shot), so that inference needs one pass. The plain U-Net gets the
same k masks and the same budget of images.

    fewmask run fewshot --preset chest-xray-64 --cohort MY_FILMS --out runs/films

Times and scores on real scans: docs/results/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.volume import Mask, Volume
from fewmask.data.augment import StrongAugment
from fewmask.data.augment_spatial import SpatialRanges
from fewmask.data.batches import ArraySource
from fewmask.data.case import Case
from fewmask.data.prepare import Trace, undo_probabilities
from fewmask.data.slices import from_slices, prepare_slices
from fewmask.inversion.keep import read_inversion, write_inversion
from fewmask.inversion.project import Inversion, project
from fewmask.metrics.score import Row
from fewmask.networks.pixelhead import PixelHead
from fewmask.objectives.perceptual import DiscriminatorDistance
from fewmask.recipes.arms import UNET, Mixed, place, scored, stacked, unet_arm
from fewmask.recipes.ganchecks import gan_checks, inversion_check
from fewmask.recipes.generator import learn_generator
from fewmask.recipes.outcome import Outcome
from fewmask.recipes.plan import Work, gan_work, inversion_work, unet_work
from fewmask.recipes.settings import FewshotSettings
from fewmask.recipes.stage import Few, Labelled, Stage, every_draw
from fewmask.report.content import Arm, Deviation
from fewmask.segmenter.evaluate import score_masks
from fewmask.segmenter.fit import encode
from fewmask.synthesis.autoshot import collect, mix_with_real, most_certain, sample_labelled
from fewmask.synthesis.features import (
    ChannelStatistics,
    DiscriminatorFeatures,
    FeatureSource,
    FeatureStack,
    GeneratorFeatures,
    ImageFeatures,
    sampled_statistics,
)
from fewmask.synthesis.generator import Slices, TrainedGenerator
from fewmask.synthesis.pixelhead import Shots as HeadShots
from fewmask.synthesis.pixelhead import augmented_copies, fit_head, predict_head
from fewmask.training.launch import on_cpu

HEAD, AUTOSHOT = "gan head", "gan auto-shot"

ARMS = (
    Arm(
        HEAD,
        "head on GAN features",
        "ours",
        "a small head on the features of a GAN trained on the unlabelled slices; test slices are inverted",
    ),
    Arm(
        AUTOSHOT,
        "auto-shot U-Net",
        "ours",
        "a U-Net that learns from generated slices, labelled by that head, and from the labelled slices",
    ),
    Arm(UNET, "plain U-Net", "baseline", "U-Net with strong augmentation on the labelled slices alone"),
)
"""What each arm of the table is."""

DEVIATIONS = (
    Deviation("generator", "StyleGAN3", "StyleGAN2", "features without margins; cheaper on a CPU"),
    Deviation(
        "what the head reads",
        "the generator's activations",
        "setting head.sources; by default the discriminator's and the slice itself too",
        "an inversion blurs small structures",
    ),
    Deviation(
        "labelled slices",
        "inverted as they are",
        "inverted together with augmented copies",
        "one slice cannot teach that brightness and pose do not matter",
    ),
    Deviation("perceptual distance", "LPIPS", "the discriminator's features", "no downloaded weights"),
)
"""Where this recipe departs from the document it follows (Aoucher et al.; Tritrong et al. 2021)."""

QUESTION = "Do features of a GAN trained on unlabelled slices beat a U-Net on the same few masks?"


@dataclass(frozen=True, eq=False)
class Tested:
    """The test slices as the head sees them: their latents, and which case and slice each is."""

    images: NDArray[np.float32]
    inversion: Inversion
    rows_of: dict[str, list[int]]
    traces: dict[str, Trace]


def run(stage: Stage, settings: FewshotSettings) -> Outcome:
    """Train and score every arm."""
    unlabelled = prepare_slices(
        stage.training_cases,
        stage.cohort,
        stage.preparation,
        masks=False,
        cap=settings.gan.slices_per_patient,
    ).images
    gan = learn_generator(stage.ground, settings.gan, Slices(unlabelled))
    stage = replace(stage, ground=stage.ground.alone())
    stack = features(gan, settings)
    statistics = sampled_statistics(stack, gan.generator, seed=settings.seed)
    tested = invert_test(stage, settings, gan)

    rows: list[Row] = []
    for few, items in every_draw(stage):
        rows += unet_arm(stage, items, shots=few.count, draw=few.draw)
        head = learn_head(stage, settings, gan, stack, statistics, few, items)
        rows += head_arm(stage, settings, few, tested, stack, head)
        rows += autoshot_arm(stage, settings, gan, stack, head, few, items)
    if settings.shots.full:
        rows += unet_arm(stage, stage.labelled, shots=None, draw=0)
    few, items = list(every_draw(stage))[-1]
    checks = gan_checks(gan.generator, unlabelled, tested.images, seed=settings.seed)
    met = inversion_check(invert_shots(stage, settings, gan, few, items)[2], tested.inversion)
    learned = len(unlabelled)
    return Outcome(rows, (*checks, met), {HEAD: learned, AUTOSHOT: learned}, DEVIATIONS)


def features(gan: TrainedGenerator, settings: FewshotSettings) -> FeatureStack:
    """What the head reads."""
    kinds: dict[str, FeatureSource] = {
        "generator": GeneratorFeatures(gan.generator),
        "discriminator": DiscriminatorFeatures(gan.discriminator),
        "image": ImageFeatures(),
    }
    return FeatureStack([kinds[name] for name in settings.head.sources])


def invert(
    stage: Stage, settings: FewshotSettings, gan: TrainedGenerator, images: NDArray[np.float32], name: str
) -> Inversion:
    """Latents of `images`, kept in the run's folder under `name`."""
    step = stage.run.step(f"inversion/{name}")
    how = settings.inversion.model_dump(mode="json")
    inputs = {"stage": stage.key, "inversion": how, "gan": gan.key, "slices": len(images)}
    if step.result(inputs) is None:
        inversion = project(
            gan.generator,
            images,
            space=settings.inversion.space,
            steps=settings.inversion.steps,
            perceptual=DiscriminatorDistance(gan.discriminator),
            seed=settings.seed,
        )
        write_inversion(step.inversion, inversion)
        step.finish({"mse": float(inversion.mse.mean())})
    return read_inversion(step.inversion)


def invert_test(stage: Stage, settings: FewshotSettings, gan: TrainedGenerator) -> Tested:
    """All slices of the test cases, inverted once for all heads."""
    slices = prepare_slices(
        stage.test_cases, stage.cohort, stage.preparation, masks=False, rule=None, dtype=np.float32
    )
    rows_of: dict[str, list[int]] = {}
    for row, ref in enumerate(slices.refs):
        rows_of.setdefault(ref.case, []).append(row)
    inversion = invert(stage, settings, gan, slices.images, "test")
    return Tested(slices.images, inversion, rows_of, dict(slices.traces))


def learn_head(
    stage: Stage,
    settings: FewshotSettings,
    gan: TrainedGenerator,
    stack: FeatureStack,
    statistics: ChannelStatistics,
    few: Few,
    items: Labelled,
) -> PixelHead:
    """The head learns from the k slices and their augmented copies, all inverted as a test slice is."""
    name = place(HEAD, few.count, few.draw)
    images, masks, inversion = invert_shots(stage, settings, gan, few, items)
    step = stage.run.step(name)
    step.claim({"stage": stage.key, **_made_from(settings)})
    return fit_head(
        stack,
        HeadShots(images, masks, inversion.ws),
        step,
        classes=len(stage.labels),
        statistics=statistics,
        images=settings.head.images,
        seed=settings.seed,
        fabric=on_cpu(),
        kind=settings.head.size,
        width=settings.head.width,
        label=name,
    )


def invert_shots(
    stage: Stage, settings: FewshotSettings, gan: TrainedGenerator, few: Few, items: Labelled
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Inversion]:
    """The labelled slices with their augmented copies, their masks as class numbers, and their latents."""
    name = place(HEAD, few.count, few.draw)
    images, masks = stacked(items)
    images, masks = augmented_copies(
        images,
        encode(masks, stage.labels, name),
        StrongAugment(spatial=SpatialRanges(flips=settings.unet.flips)),
        copies=settings.inversion.copies + 1,
        seed=settings.seed,
    )
    return images, masks, invert(stage, settings, gan, images, name)


def head_arm(
    stage: Stage,
    settings: FewshotSettings,
    few: Few,
    tested: Tested,
    stack: FeatureStack,
    head: PixelHead,
) -> list[Row]:
    """The published test path: invert the test slice, let the head read its features."""

    def segment(case: Case, images: Mapping[str, Volume]) -> tuple[Mask, Trace]:
        rows, trace = tested.rows_of[case.name], tested.traces[case.name]
        soft = predict_head([head], stack, tested.images[rows], tested.inversion.ws[rows])
        return undo_probabilities(from_slices(soft), trace, labels=stage.labels), trace

    def compute() -> list[Row]:
        return score_masks(
            segment,
            stage.test_cases,
            stage.cohort,
            arm=HEAD,
            shots=few.count,
            draw=few.draw,
            folder=stage.run.cases(place(HEAD, few.count, few.draw)),
            lesion_classes=settings.cohort.lesions,
        )

    inputs = {"items": [asdict(ref) for ref in stage.items(few.shots).refs], **_made_from(settings)}
    return scored(stage, place(HEAD, few.count, few.draw), inputs, compute)


def autoshot_arm(
    stage: Stage,
    settings: FewshotSettings,
    gan: TrainedGenerator,
    stack: FeatureStack,
    head: PixelHead,
    few: Few,
    items: Labelled,
) -> list[Row]:
    """Generated slices with the head's labels, the uncertain ones left out, mixed with the k real ones."""
    auto = settings.autoshot

    def mixed() -> Mixed:
        samples = collect(
            sample_labelled(
                gan.generator, [head], stack, auto.samples, seed=settings.seed, truncation=auto.truncation
            )
        )
        samples = most_certain(samples, 1.0 - auto.drop)
        images, masks = stacked(items)
        labels = np.asarray(stage.labels, dtype=np.uint8)[samples.labels]
        together, both, weights = mix_with_real(samples, labels, images, masks, real_share=auto.real)
        return ArraySource(together, both), weights.tolist()

    return unet_arm(
        stage,
        items,
        shots=few.count,
        draw=few.draw,
        arm=AUTOSHOT,
        mixed=mixed,
        made_from={**_made_from(settings), "autoshot": auto.model_dump(mode="json")},
    )


def _made_from(settings: FewshotSettings) -> dict[str, Any]:
    """The settings on which the arms with a GAN depend, as JSON values."""
    return settings.model_dump(mode="json", include={"gan", "inversion", "head"})


def plan(settings: FewshotSettings) -> Sequence[Work]:
    """What `run` will do, to be timed."""
    draws = len(settings.shots.counts) * settings.shots.draws
    return [
        gan_work(settings.gan, settings.prepare.size[0]),
        inversion_work(settings),
        unet_work(settings, "U-Net", draws + int(settings.shots.full)),
        unet_work(settings, "auto-shot U-Net", draws),
    ]
