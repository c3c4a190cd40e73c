"""How good are generated images? Measured during training with an encoder that the cohort itself has taught.

No downloaded weights: an encoder learns from the unlabelled training slices alone (`fit_embedding`), and a
`Judge` compares generated with real images by their embeddings. Every figure of one `Quality` is made with
the same number of images on both sides, and `Judge.floor` gives the same figures for real against real images
at that number: a generator is as good as this cohort can tell when it reaches the floor.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.run import Step
from fewmask.core.seed import integer, stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.metrics.fidelity import nearest, nearest_other, overlap, spread, texture
from fewmask.metrics.frechet import Whitening, frechet, kernel, whitening
from fewmask.metrics.memorisation import too_near
from fewmask.networks.embedding import ImageEncoder
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.embedding import EmbeddingObjective, Expander
from fewmask.synthesis.slices import fingerprint
from fewmask.training.launch import Fabric
from fewmask.training.loop import fit

FEWEST = 8
"""Fewer images on a side have no distribution to compare."""

DRAWS = 4
"""Every figure is a mean over so many draws of which images are compared."""

DIRECTIONS, TEXTURES = 24, 8
"""Coordinates kept of the embedding and of the texture; fewer when there are few images."""

TOO_NEAR = 0.5
"""Copies are nearer than this part of what 19 of 20 unseen real images keep: these plain distances allow for
no shift or brightness, and false alarms must not end a training. `metrics.memorisation` looks closer."""

Vectors = NDArray[np.float64]


def fit_embedding(
    images: NDArray[np.floating],
    step: Step,
    *,
    images_seen: int = 9_600,
    seed: int,
    fabric: Fabric,
    batch: int = 32,
    dim: int = 64,
    label: str = "embedding",
) -> ImageEncoder:
    """Teach an encoder on unlabelled slices; the same call resumes, or loads what is finished.

    Args:
        images: (N, C, R, R) in [-1, 1], of training patients only; R at least 8.
        step: folder of the training.
        images_seen: length of the training.
        seed: fixes weights, order and views.
        fabric: where to compute.
        batch: images per update, with as many faulty twins; halved until no image is twice in a batch, but
            at least 16.
        dim: length of the embedding.
        label: names the progress bar and the streams of chance.

    Returns:
        The encoder in evaluation mode, frozen, on the fabric's device.
    """
    while batch > max(len(images), 16):
        batch //= 2
    told = {"images": images_seen, "seed": seed, "batch": batch, "dim": dim, "label": label}
    step.claim({**told, "slices": fingerprint(images)})
    encoder = ImageEncoder(images.shape[1], images.shape[2], dim=dim)
    expander = Expander(dim, 4 * dim)
    for name, network in (("encoder", encoder), ("expander", expander)):
        network.initialise(torch.Generator().manual_seed(integer(seed, label, name)))
    fit(
        EmbeddingObjective(encoder, expander, images=images_seen),
        Stream(ArraySource(images), batch, seed=seed, name=label),
        step,
        images=images_seen,
        seed=seed,
        fabric=fabric,
        checkpoint_every=max(images_seen // 4, 1),
        report_every=max(images_seen // 20, 1),
        label=label,
    )
    return encoder.requires_grad_(False).eval()


@dataclass(frozen=True)
class Quality:
    """Figures of a set of generated images against the training images; see `Judge`."""

    count: int
    """Images on each side of every comparison."""
    frechet: float
    """Frechet distance of whitened embeddings and textures; read it against the floor, it is never 0."""
    kernel: float
    """Kernel distance, unbiased: around 0 for images of the same kind."""
    kernel_error: float
    """Its standard error."""
    precision: float
    """Share of generated images that look like real ones, 0-1."""
    recall: float
    """Share of real images that the generated ones cover, 0-1."""
    diversity: float
    """Mean embedding distance of two generated images over that of two real ones: near 0 is a collapse."""
    copying: float
    """Distance to the nearest training image over that of unseen real images, medians, by embedding; far
    below 1 when training images are repeated."""
    copying_pixels: float
    """The same by pixels."""
    copies: float
    """Share of generated images that are nearer to a training image, by pixels or by embedding, than half of
    what 19 of 20 unseen real images keep."""

    @property
    def score(self) -> float:
        """Higher is better: minus the Frechet distance."""
        return -self.frechet

    def numbers(self) -> dict[str, float]:
        """All figures by name, for a log."""
        return {name: float(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Seer:
    """Images to vectors: what the encoder sees and their texture, both whitened by the training images."""

    encoder: ImageEncoder
    seen: Whitening
    texture: Whitening

    @classmethod
    def of(cls, encoder: ImageEncoder, training: NDArray[np.floating]) -> "Seer":
        """Whiten by (N, C, R, R); one direction for five images, and one of texture for fifteen, at most."""
        most = min(DIRECTIONS, len(training) // 5), min(TEXTURES, len(training) // 15)
        seen = whitening(embed(encoder, training), max(most[0], 1))
        return cls(encoder, seen, whitening(texture(training), max(most[1], 1)))

    def __call__(self, images: NDArray[np.floating]) -> Vectors:
        """(N, C, R, R) in [-1, 1] -> (N, K); N may be 0."""
        return np.concatenate([self.seen(embed(self.encoder, images)), self.texture(texture(images))], axis=1)


@dataclass(frozen=True, eq=False)
class Judge:
    """Real images, and what an encoder makes of them. Made by `Judge.of`; the rest are figures."""

    seer: Seer
    vectors: Vectors
    """(N, D) vectors of the training images."""
    pixels: Vectors
    """(N, P) their pixels, averaged to at most 64 pixels a side."""
    held_out: Vectors
    """(H, D) those of real images of other patients; H may be 0."""
    new: Vectors
    """Distances of unseen real images to the nearest training image, by embedding."""
    new_pixels: Vectors
    """The same by pixels."""

    @classmethod
    def of(
        cls,
        encoder: ImageEncoder,
        training: NDArray[np.floating],
        held_out: NDArray[np.floating] | None = None,
        *,
        most: int = 2_000,
        seed: int = 0,
    ) -> "Judge":
        """Look at the real images once.

        Args:
            encoder: from `fit_embedding`; stays on its device.
            training: (N, C, R, R) in [-1, 1], what the generator learns from; at least 16 images.
            held_out: images of patients it does not learn from, H of them. Without any, "unseen" is every
                training image to the others, which is too near where a patient has many slices.
            most: of more images than these a random choice is taken.
            seed: of that choice.

        Raises:
            ShapeError: too few images, or images that do not fit the encoder.
        """
        training = _some(training, most, seed, "training")
        unseen = training[:0] if held_out is None else _some(held_out, most, seed, "held out")
        for images, least in ((training, 2 * FEWEST), (unseen, 0)):
            _refuse_images(images, encoder, least)
        seer = Seer.of(encoder, training)
        vectors, pixels, other = seer(training), small(training), seer(unseen)
        if len(unseen):
            new, new_pixels = nearest(other, vectors), nearest(small(unseen), pixels)
        else:
            new, new_pixels = nearest_other(vectors), nearest_other(pixels)
        return cls(seer, vectors, pixels, other, new, new_pixels)

    @property
    def most(self) -> int:
        """The largest number of images that real can be compared with real at."""
        return min(len(self.vectors), (len(self.vectors) + len(self.held_out)) // 2)

    def judge(
        self, generator: ImageGenerator, *, count: int = 256, seed: int = 0, labels: Tensor | None = None
    ) -> Quality:
        """Judge images of `generator` from fixed latents.

        Args:
            generator: in evaluation mode, on any device.
            count: how many images to draw; comparisons use min(count, `most`) at a time.
            seed: of the latents; the same seed for every judgement of a training gives a smooth curve.
            labels: (M, classes), for a conditional generator: each image gets one of these rows.
        """
        return self._judge(draw_batches(generator, count, seed=seed, labels=labels), seed)

    def judge_images(self, images: NDArray[np.floating], *, seed: int = 0) -> Quality:
        """The same for images (n, C, R, R) in [-1, 1] from anywhere, at least 8."""
        return self._judge([images], seed)

    def _judge(self, batches: Iterable[NDArray[np.floating]], seed: int) -> Quality:
        looked = []
        for images in batches:
            _refuse_images(images, self.seer.encoder, 1)
            looked.append((self.seer(images), small(images)))
        made, pixels = (np.concatenate(each) for each in zip(*looked, strict=True))
        if len(made) < FEWEST:
            _refuse_few(len(made))
        count = min(self.most, len(made))

        def choose(chance: np.random.Generator) -> tuple[Vectors, Vectors]:
            return _choice(self.vectors, count, chance), _choice(made, count, chance)

        near, near_pixels = nearest(made, self.vectors), nearest(pixels, self.pixels)
        copied = (near < too_near(self.new, TOO_NEAR)) | (near_pixels < too_near(self.new_pixels, TOO_NEAR))
        return _mean_quality(
            choose,
            seed,
            copying=float(np.median(near) / max(np.median(self.new), 1e-12)),
            copying_pixels=float(np.median(near_pixels) / max(np.median(self.new_pixels), 1e-12)),
            copies=float(copied.mean()),
        )

    def floor(self, count: int = 256, *, seed: int = 0) -> Quality:
        """Real against other real images, min(count, `most`) on each side: what a perfect generator gets."""
        pool = np.concatenate([self.vectors, self.held_out])
        count = min(count, self.most)

        def choose(chance: np.random.Generator) -> tuple[Vectors, Vectors]:
            both = _choice(pool, 2 * count, chance)
            return both[:count], both[count:]

        copied = (self.new < too_near(self.new, TOO_NEAR)).mean()
        return _mean_quality(choose, seed, copying=1.0, copying_pixels=1.0, copies=float(copied))


def draw_batches(
    generator: ImageGenerator, count: int, *, seed: int, labels: Tensor | None = None, batch: int = 32
) -> Iterator[NDArray[np.float32]]:
    """`count` images (C, R, R) in [-1, 1], a batch at a time, from latents fixed by `seed`, no new noise.

    Raises `ConfigError` when a conditional generator gets no `labels` (M, classes) to choose from.
    """
    chance = torch.Generator().manual_seed(integer(seed, "quality", "latents"))
    device = next(generator.parameters()).device
    z = torch.randn(count, generator.z_dim, generator=chance)
    if generator.classes and (labels is None or not len(labels)):
        raise ConfigError(
            "a generator with classes can only be judged with labels",
            found="no label",
            expected=f"rows of {generator.classes} numbers, as in the training",
        )
    chosen = None
    if generator.classes and labels is not None:
        chosen = labels.cpu()[torch.randint(len(labels), (count,), generator=chance)]
    for first in range(0, count, batch):
        some = slice(first, first + batch)
        label = None if chosen is None else chosen[some].to(device)
        with torch.no_grad():
            image = generator(z[some].to(device), label, noise="constant")
        yield image.float().clamp(-1, 1).cpu().numpy()


def draw_images(
    generator: ImageGenerator, count: int, *, seed: int, labels: Tensor | None = None
) -> NDArray[np.float32]:
    """The images of `draw_batches` as one array (count, C, R, R)."""
    return np.concatenate(list(draw_batches(generator, count, seed=seed, labels=labels)))


def embed(encoder: ImageEncoder, images: NDArray[np.floating], *, batch: int = 32) -> Vectors:
    """Embeddings (N, D) in float64 of images (N, C, R, R) in [-1, 1]; N may be 0."""
    device = next(encoder.parameters()).device
    found = [np.empty((0, encoder.dim))]
    with torch.no_grad():
        for first in range(0, len(images), batch):
            some = torch.from_numpy(np.array(images[first : first + batch], dtype=np.float32))
            found.append(encoder(some.to(device)).double().cpu().numpy())
    return np.concatenate(found)


def _mean_quality(
    choose: Callable[[np.random.Generator], tuple[Vectors, Vectors]],
    seed: int,
    *,
    copying: float,
    copying_pixels: float,
    copies: float,
) -> Quality:
    """Means over draws of (real, generated) vectors, as many of each."""
    parts, count = [], 0
    for number in range(DRAWS):
        real, made = choose(stream(seed, "quality", "draw", number))
        count = len(real)
        apart, shared = kernel(real, made), overlap(real, made)
        ratio = spread(made) / max(spread(real), 1e-12)
        parts.append((frechet(real, made), apart.value, apart.error, shared.precision, shared.recall, ratio))
    distance, value, error, precision, recall, diversity = np.mean(parts, axis=0).tolist()
    return Quality(
        count=count,
        frechet=distance,
        kernel=value,
        kernel_error=error,
        precision=precision,
        recall=recall,
        diversity=diversity,
        copying=copying,
        copying_pixels=copying_pixels,
        copies=copies,
    )


def _choice(values: Vectors, count: int, chance: np.random.Generator) -> Vectors:
    return values[chance.choice(len(values), count, replace=False)]


def _some(images: NDArray[np.floating], most: int, seed: int, name: str) -> NDArray[np.float32]:
    """All images, or `most` of them, in float32."""
    if len(images) > most:
        images = images[np.sort(stream(seed, "quality", name).choice(len(images), most, replace=False))]
    return np.asarray(images, dtype=np.float32)


def small(images: NDArray[np.floating]) -> Vectors:
    """Pixels (N, P) of images (N, C, R, R), averaged over blocks until a side has at most 64 pixels."""
    size = images.shape[2]
    block = -(-size // 64)
    kept = size // block * block
    cut = np.asarray(images[:, :, :kept, :kept], dtype=np.float32)
    blocks = cut.reshape(*cut.shape[:2], kept // block, block, kept // block, block)
    return np.asarray(blocks.mean(axis=(3, 5), dtype=np.float64)).reshape(
        len(images), cut.shape[1] * (kept // block) ** 2
    )


def _refuse_images(images: NDArray[np.floating], encoder: ImageEncoder, least: int) -> None:
    wanted = (encoder.channels, encoder.resolution, encoder.resolution)
    if images.shape[1:] != wanted:
        raise ShapeError(
            "images cannot be judged by this encoder",
            found=f"{images.shape}",
            expected=f"{wanted} each",
            mend="Train the encoder on images of this size.",
        )
    if len(images) < least:
        _refuse_few(len(images), least)


def _refuse_few(found: int, least: int = FEWEST) -> None:
    raise ShapeError("too few images to judge", found=f"{found}", expected=f"at least {least}")
