"""What a run will do, and how long it will take on this machine: measured on a few updates, not guessed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from fewmask.core.seed import integer, stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.inversion.encoder import PASSES, encode
from fewmask.networks.embedding import ImageEncoder
from fewmask.networks.encoder import LatentEncoder
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.pixelhead import PixelHead
from fewmask.networks.stylegan2 import Discriminator
from fewmask.networks.unet import build_unet
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.embedding import EmbeddingObjective, Expander
from fewmask.objectives.encoder import EncoderObjective
from fewmask.objectives.minimise import Alone
from fewmask.objectives.perceptual import DiscriminatorDistance
from fewmask.objectives.pixelhead import PixelHeadObjective
from fewmask.objectives.regularise import Regularisation
from fewmask.objectives.segmentation import Schedule, SegmentationObjective
from fewmask.objectives.stylegan import StyleGANObjective
from fewmask.recipes.generator import design_of, like_start
from fewmask.recipes.head_settings import Headed
from fewmask.recipes.latents import PIVOTS
from fewmask.recipes.reading import Reading, Way
from fewmask.recipes.settings import CommonSettings, GANRunSettings, GANSettings
from fewmask.recipes.synthetic_settings import SyntheticSettings
from fewmask.synthesis.design import GeneratorDesign, build_discriminator, build_generator
from fewmask.synthesis.features import Source, stack_of
from fewmask.synthesis.keep import read_generator
from fewmask.synthesis.pairs import PairMaker
from fewmask.synthesis.pixelhead import chances
from fewmask.synthesis.quality import Judge, draw_images
from fewmask.training.loop import Objective
from fewmask.training.memory import memory_mb

PATIENCE = 4.0
"""Seconds that one measured update may take; a slower one is measured on two images alone."""

CLASSES = 4  # of the trial networks: their cost hardly depends on it


@dataclass(frozen=True)
class Work:
    """One kind of step of a run: how often, how many images each, and how to measure its speed."""

    what: str
    times: int
    images: int
    rate: Callable[[], float]
    """Images per second on this machine, measured by a few updates."""


@dataclass(frozen=True)
class Estimate:
    """A work with its measured cost."""

    work: Work
    seconds: float
    """For all its times together."""
    memory_mb: float
    """Highest of this process so far; the prepared slices of a large cohort come on top."""


def estimates(works: Sequence[Work]) -> list[Estimate]:
    """Measure every work; takes some seconds."""
    result = []
    for work in works:
        seconds = work.times * work.images / work.rate() if work.times else 0.0
        memory = memory_mb(torch.device("cpu"))["peak_memory_mb"]
        result.append(Estimate(work, seconds, memory))
    return result


def unet_work(settings: CommonSettings, what: str, times: int) -> Work:
    """Trainings of the U-Net."""
    unet, size = settings.unet, settings.prepare.size
    shape = size if settings.prepare.dims == 2 else unet.patch or (32, 32, 32)

    def rate() -> float:
        network = build_unet(len(shape), 1, CLASSES, unet.widths)
        objective = SegmentationObjective(network, Schedule(1e-3, unet.images), classes=CLASSES)
        images = _noise((unet.batch, 1, *shape))
        masks = np.zeros((unet.batch, *shape), np.uint8)
        return _images_per_second(objective, ArraySource(images, masks), unet.batch)

    return Work(what, times, unet.images, rate)


def generator_works(settings: GANRunSettings, *, final: int) -> list[Work]:
    """All that `run gan` does: the judging encoder, the training, judgements, `final` images at the end.

    The channels of a slice are those of one modality; more cost little.
    """
    gan, quality, size = settings.gan, settings.quality, settings.prepare.size[0]
    prepare = settings.prepare
    channels = len(prepare.windows) if prepare.intensity == "windows" else 1
    works = [gan_work(gan, size, channels=channels)]
    if quality.images:
        speed = cache(lambda: _judging_rate(gan, size, channels))
        works = [
            embedding_work(quality.images, size, channels=channels),
            *works,
            Work("judgements", quality.judgements, quality.samples, speed),
            Work("drawing and judging at the end", 2, final, speed),
        ]
    return works


def gan_work(gan: GANSettings, size: int, *, channels: int = 1) -> Work:
    """The training of the generator; none where a ready one is taken."""
    return Work("GAN", int(gan.ready is None), gan.images, lambda: _gan_rate(gan, size, channels))


def embedding_work(images: int, size: int, *, channels: int = 1, what: str = "encoder that judges") -> Work:
    """The training of an encoder without labels: one that judges a generator, or one that is read."""

    def rate() -> float:
        batch, dim = 32, 64
        objective = EmbeddingObjective(
            ImageEncoder(channels, size, dim=dim), Expander(dim, 4 * dim), images=images
        )
        source = ArraySource(_noise((batch, channels, size, size)))
        return _images_per_second(objective, source, batch, updates=2)

    return Work(what, 1, images, rate)


def _gan_rate(gan: GANSettings, size: int, channels: int) -> float:
    """Images per second: plain updates, and the dearer ones of R1 and path length by their share.

    Few images are measured where a whole minibatch would take long: an image costs about as much.
    """
    design = _design(gan)
    generator, average, discriminator = _networks(gan, size, channels)
    lazy = Regularisation(
        r1_gamma=design.gamma(size),
        r1_every=design.r1_every,
        path_length_weight=design.path_length_weight,
        path_length_every=design.path_length_every,
    )

    def seconds(count: int, minibatch: int) -> float:
        objective = StyleGANObjective(
            generator,
            discriminator,
            average,
            batch=count,
            augment=AdaptiveAugmentation(operations=design.ada_operations, p=0.2),
            regularisation=lazy,
            mixing=design.mixing,
            freeze=design.freeze,
            fading=design.fading,
            reuse_fakes=design.reuse_fakes,
        )
        batch = Stream(ArraySource(_noise((count, channels, size, size))), count, seed=0, name="plan").at(0)
        started = time.perf_counter()
        objective.update(batch, count * minibatch, Alone())
        return (time.perf_counter() - started) / count

    first = seconds(2, 1)
    if 2 * first > PATIENCE:
        return 1 / first
    whole = max(gan.batch // gan.parts, 2)
    count = whole if whole * first < PATIENCE else 2
    plain = seconds(count, 1)
    flat = seconds(count, 0) if lazy.r1_gamma or lazy.path_length_weight else plain
    short = seconds(count, lazy.path_length_every) if lazy.path_length_weight else plain
    r1, path = max(flat - short, 0.0), max(short - plain, 0.0)
    return 1 / (plain + r1 / lazy.r1_every + path / lazy.path_length_every)


def _judging_rate(gan: GANSettings, size: int, channels: int) -> float:
    """Images per second that are drawn and compared with real ones."""
    generator, _, _ = _networks(gan, size, channels)
    encoder, count = ImageEncoder(channels, size), 16
    encoder.initialise(torch.Generator().manual_seed(integer(0, "plan")))
    judge = Judge.of(encoder, _noise((2 * count, channels, size, size)))
    draw_images(generator.eval(), 1, seed=0, labels=None)
    started = time.perf_counter()
    judge.judge(generator, count=count)
    return count / (time.perf_counter() - started)


def inversion_works(settings: Headed) -> list[Work]:
    """For each way to invert that a head uses: what it learns first, the labelled slices, and test slices.

    A draw's shots are nested, so those of its largest k are inverted; a patient counts as one slice, and the
    test slices as a hundred, since the settings do not tell how many there are.
    """
    copies, most = settings.inversion.copies + 1, max(settings.shots.counts)
    labelled = settings.shots.draws * most * copies
    works = []
    for way in dict.fromkeys(one.way for one in settings.trained_readings if one.way is not None):
        works += _learned_first(settings, way)
        speed = cache(partial(_inversion_rate, settings, way))
        name = "the encoder" if way == "encoder" else way.upper()
        each = "labelled slices" if settings.shots.unit == "slice" else "labelled patients, a slice each,"
        works += [
            Work(f"inversion of {each} by {name}", 1, labelled, speed),
            Work(f"inversion of every hundred test slices by {name}", 1, 100, speed),
        ]
    return works


def _learned_first(settings: Headed, way: Way) -> list[Work]:
    """The encoder of latents, or the generator that is tuned to training slices after their inversion."""
    inversion = settings.inversion
    if way == "encoder":
        return [Work("encoder of latents", 1, inversion.encoder_images, partial(_latent_rate, settings))]
    if way != "pti":
        return []
    return [
        Work("inversion of training slices for PTI", 1, PIVOTS, partial(_inversion_rate, settings, "w")),
        Work(
            "tuning of the generator (PTI)", 1, 8 * inversion.pti_steps, partial(_step_rate, settings, True)
        ),
    ]


def head_works(settings: Headed) -> list[Work]:
    """The heads of all draws, by what they read; once each, whether auto-shot uses one or the table."""
    times = settings.shots.draws * len(settings.shots.counts)
    return [
        Work(f"head on {one.text}", times, settings.head.images, partial(_head_rate, settings, one))
        for one in settings.trained_readings
    ]


def pairs_work(settings: SyntheticSettings, times: int) -> Work:
    """The pairs of all draws."""
    return Work("pairs", times, settings.factory.pairs, partial(_pairs_rate, settings))


def semantic_work(settings: SyntheticSettings, times: int) -> Work:
    """Generators with a mask branch; both discriminators together take about twice the time of one."""
    size = settings.prepare.size[0]
    return Work("SemanticGAN", times, settings.semantic.images, lambda: _gan_rate(settings.gan, size, 1) / 2)


def _pairs_rate(settings: SyntheticSettings) -> float:
    """Pairs per second, without the writing of files."""
    generator, _, discriminator = _networks(settings.gan, settings.prepare.size[0], 1)
    networks: dict[Source, Callable[[], nn.Module]] = {
        "generator": generator.eval,
        "discriminator": discriminator.eval,
    }
    how = settings.head
    stack = stack_of(settings.reading.sources, networks, smallest=how.smallest)
    ws = generator.mapping(torch.from_numpy(_noise((1, generator.z_dim)))).detach()
    channels = stack.channels(torch.from_numpy(_noise((1, 1, *settings.prepare.size))), ws)
    head = PixelHead(channels, CLASSES, kind=how.size, width=how.width, members=how.members)
    head.initialise(*chances(0, "plan", how.members))
    draw, count = PairMaker(generator, [head], stack, 0), 3
    draw(0)
    started = time.perf_counter()
    for number in range(count):
        draw(number)
    return count / (time.perf_counter() - started)


def _head_rate(settings: Headed, reading: Reading) -> float:
    """Images per second of a head over the features that it reads."""
    height, width = settings.prepare.size
    latents = None
    networks: dict[Source, Callable[[], nn.Module]] = {
        "encoder": lambda: ImageEncoder(1, height).eval(),
        "unet": lambda: build_unet(2, 1, CLASSES, settings.unet.widths).eval(),
    }
    if {"generator", "discriminator"} & set(reading.sources):
        generator, _, discriminator = _networks(settings.gan, height, 1)
        latents = generator.mapping(torch.from_numpy(_noise((8, generator.z_dim)))).detach()
        networks |= {"generator": generator.eval, "discriminator": discriminator.eval}
    stack, images, how = (
        stack_of(reading.sources, networks, smallest=settings.head.smallest),
        _noise((8, 1, height, width)),
        settings.head,
    )
    channels = stack.channels(torch.from_numpy(images), latents)
    head = PixelHead(channels, CLASSES, kind=how.size, width=how.width, members=how.members)
    head.initialise(*chances(0, "plan", how.members))
    objective = PixelHeadObjective(head, stack.maps, images=how.images, latents=latents)
    return _images_per_second(objective, ArraySource(images, np.ones((8, height, width), np.uint8)), 8)


def _latent_rate(settings: Headed) -> float:
    """Images per second of the training of the encoder of latents."""
    generator, _, discriminator = _networks(settings.gan, settings.prepare.size[0], 1)
    objective = EncoderObjective(
        _latent_encoder(generator),
        generator.eval().requires_grad_(False),
        perceptual=DiscriminatorDistance(discriminator),
        images=settings.inversion.encoder_images,
        passes=PASSES,
    )
    source = ArraySource(_noise((8, 1, *settings.prepare.size)))
    return _images_per_second(objective, source, 8, updates=1)


def _latent_encoder(generator: ImageGenerator) -> LatentEncoder:
    """An encoder as it begins, around some latent."""
    with torch.no_grad():
        ws = generator.mapping(torch.from_numpy(_noise((1, generator.z_dim))))
        start = generator.synthesis(ws, noise="constant")[0]
    encoder = LatentEncoder(
        generator.channels,
        generator.resolution,
        generator.num_ws,
        ws[0, -1],
        start,
        spread=1.0,
        frame_ws=generator.synthesis.frame_ws,
    )
    encoder.initialise(torch.Generator().manual_seed(integer(0, "plan")))
    return encoder


def _inversion_rate(settings: Headed, way: Way) -> float:
    """Images per second that are inverted."""
    if way != "encoder":
        return _step_rate(settings, False) / settings.inversion.steps
    generator, _, discriminator = _networks(settings.gan, settings.prepare.size[0], 1)
    encoder, distance = _latent_encoder(generator).eval(), DiscriminatorDistance(discriminator)
    images = _noise((8, 1, *settings.prepare.size))
    started = time.perf_counter()
    encode(encoder, generator.eval(), images, perceptual=distance)
    return len(images) / (time.perf_counter() - started)


def _step_rate(settings: Headed, weights: bool) -> float:
    """Images per second in one step on their latents, or on the generator's weights."""
    size = settings.prepare.size[0]
    generator, _, discriminator = _networks(settings.gan, size, 1)
    distance = DiscriminatorDistance(discriminator).towards(torch.from_numpy(_noise((4, 1, size, size))))
    ws = generator.mapping(torch.from_numpy(_noise((4, generator.z_dim)))).detach()
    generator.requires_grad_(weights)
    started = time.perf_counter()
    for _ in range(2):
        image = generator.synthesis(ws.requires_grad_(not weights), "constant")
        torch.autograd.backward(distance(image).sum())
    return 4 * 2 / (time.perf_counter() - started)


def _design(gan: GANSettings) -> GeneratorDesign:
    """As the training takes it: with the sizes of the networks that it starts from."""
    if gan.start is None:
        return design_of(gan)
    return like_start(design_of(gan), read_generator(gan.start), freeze=gan.freeze_d)


def _networks(
    gan: GANSettings, size: int, channels: int
) -> tuple[ImageGenerator, ImageGenerator, Discriminator]:
    design = _design(gan)
    first, second = (build_generator(design.generator(channels, size)) for _ in range(2))
    return first, second, build_discriminator(design.discriminator(channels, size))


def _images_per_second(objective: Objective, source: ArraySource, batch: int, *, updates: int = 3) -> float:
    """Speed of a few updates after one that warms up."""
    images, minimise = Stream(source, batch, seed=0, name="plan"), Alone()
    objective.update(images.at(0), 0, minimise)
    started = time.perf_counter()
    for number in range(1, updates + 1):
        objective.update(images.at(number * batch), number * batch, minimise)
    return updates * batch / (time.perf_counter() - started)


def _noise(shape: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return stream(0, "plan").uniform(-1, 1, tuple(shape)).astype(np.float32)
