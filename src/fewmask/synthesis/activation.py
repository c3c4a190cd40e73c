"""Where a classifier of whole images sees the disease: class activation maps, from image labels alone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fewmask.core.run import Step
from fewmask.data.augment import StrongAugment
from fewmask.networks.classifier import Classifier
from fewmask.objectives.classifier import ClassifierObjective
from fewmask.synthesis.healer import Healer, Showing, claimed, train_healer
from fewmask.synthesis.healthy import Domains, Floats
from fewmask.synthesis.imagelabels import CLASSES, DISEASED, labelled
from fewmask.training.launch import Fabric

STRONG = StrongAugment()
"""How a classifier's images are varied; nothing is mirrored."""


@dataclass(frozen=True)
class ClassifierSettings:
    """Of `train_classifier`."""

    images: int = 20_000
    """Images to see, as many of either kind on average."""
    batch: int = 16
    widths: tuple[int, ...] = (16, 32, 64)
    """Channels of the stages; three stages see one position per 4 pixels, four one per 8."""
    blocks: int = 1
    """Residual blocks per stage."""
    lr: float = 1e-3
    weight_decay: float = 1e-2


@dataclass(frozen=True, eq=False)
class ActivationMap:
    """How a classifier is read, as the generator of a `Healer`; it makes nothing healthy.

    delta is the map of the diseased class, its negative part cut, brought to the image's size bilinearly. Its
    unit is the class's logit, the mean over positions of the uncut map of kind "cam" plus a bias.
    `dataclasses.replace(healer, generator=...)` reads a trained classifier in another way.
    """

    network: Classifier
    kind: Literal["cam", "gradcam"] = "cam"
    """`activation_map`, or `gradient_map`."""
    stages: int | None = None
    """For "gradcam": look at the maps after so many stages; None for the last ones."""

    def heal(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image (B, C, H, W) as it was given, and the map (B, H, W)."""
        if self.kind == "cam":
            found = activation_map(self.network.maps(image), self.network.out.weight[DISEASED])
            scale = self.network.stride
        else:
            found = gradient_map(self.network, image, DISEASED, self.stages)
            scale = int(2 ** ((self.stages or len(self.network.stages)) - 1))
        fine = F.interpolate(found[:, None], scale_factor=float(scale), mode="bilinear")
        return image, fine[:, 0, : image.shape[2], : image.shape[3]]


def activation_map(maps: Tensor, weights: Tensor) -> Tensor:
    """max(0, M_c), M_c(x, y) = sum_k w_k^c f_k(x, y).

    Zhou et al. 2016, "Learning deep features for discriminative localization", equations 1 and 2.

    Args:
        maps: f, (B, K, h, w).
        weights: w^c, (K,).
    """
    return F.relu(torch.einsum("bkhw,k->bhw", maps, weights))


def gradient_map(network: Classifier, image: Tensor, number: int, stages: int | None = None) -> Tensor:
    """max(0, sum_k alpha_k A_k), alpha_k the mean over positions of the slope of class c's logit at A_k.

    Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2. At this network's last maps it is `activation_map`
    divided by the number of positions; at earlier ones it is finer.

    Args:
        network: in evaluation mode; its weights may be frozen.
        image: (B, C, H, W).
        number: c.
        stages: A are the maps after so many stages; None for the last ones.
    """
    count = stages or len(network.stages)
    with torch.enable_grad():
        maps = network.maps(image, count).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(network.decide(maps, count)[:, number].sum(), maps)
    return F.relu((slope.mean(dim=(2, 3), keepdim=True) * maps.detach()).sum(dim=1))


def image_scores(network: Classifier, images: Floats) -> NDArray[np.float32]:
    """The probability (N,) that images (N, C, H, W) in [-1, 1] are diseased, each looked at by itself."""
    scores = np.empty(len(images), np.float32)
    with torch.no_grad():
        for number, image in enumerate(images):
            one = torch.from_numpy(np.array(image[None], dtype=np.float32))
            scores[number] = float(network(one).softmax(dim=1)[0, DISEASED])
    return scores


def train_classifier(
    domains: Domains,
    settings: ClassifierSettings,
    step: Step,
    *,
    seed: int,
    fabric: Fabric,
    label: str = "classifier",
    augment: StrongAugment | None = STRONG,
    parts: int = 1,
) -> Healer:
    """Teach a classifier to tell diseased from healthy slices; delta is its `ActivationMap`.

    The same call resumes, or loads what is finished. `networks["network"]` is the `Classifier`, for
    `image_scores` or another reading.

    Args:
        domains: unpaired slices, (N, C, H, W) and (M, C, H, W) in [-1, 1].
        settings: sizes and rates.
        step: folder of the training.
        seed: fixes weights, order and augmentation.
        fabric: where to compute.
        label: names the progress bar and the streams of chance.
        augment: changes every image whenever it is shown; None for not at all.
        parts: micro-batches computed one after the other, to save memory.

    Raises:
        ShapeError, DataError: see `refuse_domains`.
        ConfigError: settings out of range.
        RunError: `step` holds another training.
        TrainingError, StoppedError: see `training.loop.fit`.
    """
    how = Showing(settings.batch, seed, label, augment)
    inputs, (images, labels) = claimed(domains, settings, step, how), labelled(domains)
    with how.weights():
        network = Classifier(
            domains.healthy.shape[1], CLASSES, widths=settings.widths, blocks=settings.blocks
        )
    # laid out for convolutions on a CPU: a third sooner
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = ClassifierObjective(
        network, images=settings.images, lr=settings.lr, weight_decay=settings.weight_decay
    )
    return train_healer(
        objective,
        ActivationMap(network),
        how.stream(images, "slices", labels),
        step,
        inputs,
        images=settings.images,
        fabric=fabric,
        parts=parts,
    )
