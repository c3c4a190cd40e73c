"""Training a network that makes images healthy, and using it: what `synthesis.ladder` is made of."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmask.core.errors import DataError, ShapeError
from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.data.augment import StrongAugment
from fewmask.data.batches import ArraySource, Stream
from fewmask.synthesis.generator import read_stats
from fewmask.synthesis.healthy import Domains, Floats, Healthy
from fewmask.synthesis.slices import ROUNDING, fingerprint
from fewmask.training.launch import Fabric
from fewmask.training.loop import Fitted, Objective, fit


class Heals(Protocol):
    """A network that makes images healthy."""

    def heal(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [-1, 1] -> healthy ones and how much each pixel changed, (B, H, W)."""


@dataclass(frozen=True, eq=False)
class Healer:
    """A trained method, see `ToHealthy`. Its networks are on the CPU, frozen, in evaluation mode."""

    generator: Heals
    """What makes images healthy."""
    networks: Mapping[str, nn.Module]
    """All that was trained, the generator too."""
    fitted: Fitted
    history: tuple[Mapping[str, float], ...]
    """The reports of the training, oldest first."""
    key: Mapping[str, Any]
    """What it was trained from (JSON values): what builds on it depends on this."""

    def __call__(self, images: Floats) -> Healthy:
        """Make images (N, C, H, W) in [-1, 1] healthy; every image by itself, N may be 0.

        By itself, since the last digits of a convolution depend on the batch. Healthy images are cut to
        [-1, 1].

        Raises:
            ShapeError: images of another number of channels or axes.
        """
        channels = self.key["shape"][0]
        if images.ndim != 4 or images.shape[1] != channels:
            raise ShapeError(
                "images do not fit this method",
                found=f"{images.shape}",
                expected=f"(N, {channels}, H, W)",
                mend="Prepare them as the images it was trained on.",
            )
        healthy = np.empty(images.shape, np.float32)
        delta = np.empty((len(images), *images.shape[2:]), np.float32)
        with torch.no_grad():
            for number, image in enumerate(images):
                one = torch.from_numpy(np.array(image[None], dtype=np.float32))
                made, changed = self.generator.heal(one)
                healthy[number], delta[number] = made.clamp(-1, 1)[0].numpy(), changed[0].numpy()
        return Healthy(healthy, delta)


def image_scores(healthy: Healthy) -> NDArray[np.float32]:
    """How diseased each image is, (N,): its largest delta (Fixed-Point GAN, section 4)."""
    return np.asarray(healthy.delta.max(axis=(1, 2)), np.float32)


def refuse_domains(domains: Domains) -> None:
    """Look at both domains before a training begins.

    Raises:
        ShapeError: not (N, C, H, W), an empty domain, or slices of two shapes.
        DataError: values that are not finite or outside [-1, 1].
    """
    for name, images in (("diseased", domains.diseased), ("healthy", domains.healthy)):
        if images.ndim != 4 or len(images) == 0:
            raise ShapeError(
                "a domain must hold at least one slice",
                where=name,
                found=f"{images.shape}",
                expected="(N, C, H, W)",
                mend="Both domains are needed: slices with the disease and slices without.",
            )
        low, high = float(np.min(images)), float(np.max(images))
        if not (low >= -1 - ROUNDING and high <= 1 + ROUNDING):
            raise DataError(
                "the intensities are not scaled",
                where=name,
                found=f"values from {low:g} to {high:g}",
                expected="finite values in [-1, 1]",
                mend="Prepare the slices (data/prepare).",
            )
    if domains.diseased.shape[1:] != domains.healthy.shape[1:]:
        raise ShapeError(
            "the domains differ in more than the disease",
            found=f"diseased {domains.diseased.shape[1:]}, healthy {domains.healthy.shape[1:]}",
            expected="the same channels, height and width",
            mend="Prepare both in the same way.",
        )


@dataclass(frozen=True)
class Showing:
    """How the images of a training are shown, and what names its chance."""

    batch: int
    seed: int
    label: str
    augment: StrongAugment | None

    def stream(self, images: Floats, name: str, labels: NDArray[np.floating] | None = None) -> Stream:
        """Batches of (N, C, H, W); of labelled images (labels (N, K), one-hot) as many of each label.

        A domain that is smaller than a batch fills it by repetition.
        """
        weights = None if labels is None else (labels / labels.sum(axis=0)).sum(axis=1)
        source = ArraySource(np.asarray(images, np.float32), labels=labels)
        return Stream(
            source,
            self.batch,
            seed=self.seed,
            name=f"{self.label} {name}",
            augment=self.augment,
            weights=weights,
        )

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Networks that are built within have weights drawn from (seed, label)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer(self.seed, self.label, "weights"))
            yield


def claimed(domains: Domains, settings: Any, step: Step, how: Showing, **more: Any) -> dict[str, Any]:
    """What a training is made from (JSON values), after a look at the domains, and the step claimed for it.

    Raises:
        ShapeError, DataError: see `refuse_domains`.
        RunError: `step` holds another training.
    """
    refuse_domains(domains)
    inputs = {
        "diseased": fingerprint(domains.diseased),
        "healthy": fingerprint(domains.healthy),
        "shape": list(domains.diseased.shape[1:]),
        "method": type(settings).__name__,
        "settings": asdict(settings),
        "augment": None if how.augment is None else asdict(how.augment),
        "seed": how.seed,
        "label": how.label,
        **more,
    }
    step.claim(inputs)
    return inputs


def train_healer(
    objective: Objective,
    generator: Heals,
    stream: Stream,
    step: Step,
    inputs: Mapping[str, Any],
    *,
    images: int,
    fabric: Fabric,
    parts: int,
) -> Healer:
    """Run the training of `objective`, or take up what is finished, and freeze its networks.

    `inputs` are from `claimed`; `images`: how many of `stream` to see.
    """
    fitted = fit(
        objective,
        stream,
        step,
        images=images,
        seed=inputs["seed"],
        fabric=fabric,
        checkpoint_every=max(images // 20, 1),
        report_every=max(images // 50, 1),
        parts=parts,
        label=inputs["label"],
    )
    networks = objective.modules()
    for network in networks.values():
        network.cpu().requires_grad_(False).eval()
    return Healer(generator, networks, fitted, tuple(read_stats(step.stats_jsonl)), dict(inputs))
