"""The arm that registers: labelled slices take on other patients' shapes, and their masks label the pool."""

import time
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource
from fewmask.data.slices import SliceRef
from fewmask.data.softmasks import soft_targets
from fewmask.metrics.score import Row
from fewmask.recipes.arms import Mixed, class_numbers, class_weights, plain_unet, unet_arm
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.plan import Work
from fewmask.recipes.pool import Slices
from fewmask.recipes.stage import Few, Labelled, Stage
from fewmask.segmenter.windows import slide
from fewmask.synthesis.pixelhead import Labeller, without_class_weights
from fewmask.synthesis.registration import Demons, agreed, register, voted, warped

PROPAGATION = "propagation"


class Atlas:
    """Registrations of labelled slices with unlabelled ones, each computed once in a run."""

    def __init__(self, targets: NDArray[np.float32], how: Demons) -> None:
        """`targets`: the unlabelled slices (N, C, H, W) in [-1, 1]."""
        self.targets, self.how = targets, how
        self._known: dict[SliceRef, NDArray[np.float32]] = {}

    def displacements(self, ref: SliceRef, image: Slices) -> NDArray[np.float32]:
        """Those (N, 2, h, w) of a labelled slice (C, H, W) onto every target."""
        if ref not in self._known:
            self._known[ref] = np.stack([register(target, image, self.how) for target in self.targets])
        return self._known[ref]


def propagation_arm(
    stage: Stage, settings: FewshotSettings, atlas: Atlas, few: Few, items: Labelled
) -> list[Row]:
    """The plain U-Net goes on, with the labelled slices, their warps onto the targets, and the targets.

    Two label the targets that err differently: the plain U-Net of the same masks, and the vote of these masks
    where registration carries them.
    """
    how = settings.propagation

    def mixed() -> Mixed:
        images, masks = class_numbers(stage, items)
        shares = soft_targets(masks, len(stage.labels))
        fields = [atlas.displacements(ref, image) for ref, image in zip(items.refs, images, strict=True)]
        answers = voter(stage, few, items)(torch.from_numpy(atlas.targets), None).numpy()
        labels = agreed(voted(shares, fields), answers)
        bent, with_them = warped(images, shares, fields)
        weights = (
            [how.real / len(images)] * len(images)
            + [how.warped / len(bent)] * len(bent)
            + [(1 - how.real - how.warped) / len(labels)] * len(labels)
        )
        everything = np.concatenate([images, bent, atlas.targets])
        return ArraySource(everything, np.concatenate([shares, with_them, labels], dtype=np.float16)), weights

    told = {
        "targets": len(atlas.targets),
        "slices_per_patient": settings.gan.slices_per_patient,
        **settings.model_dump(mode="json", include={"propagation"}),
    }
    return unet_arm(
        stage,
        items,
        arm=PROPAGATION,
        shots=few.count,
        draw=few.draw,
        mixed=mixed,
        start=lambda: plain_unet(stage, few, items),
        made_from=told,
    )


def voter(stage: Stage, few: Few, items: Labelled) -> Labeller:
    """The plain U-Net of the same masks, as it votes on unlabelled slices."""
    unet = plain_unet(stage, few, items).to("cpu")
    weights = class_weights(stage, items) if stage.settings.unet.class_weights else ()

    def label(image: Tensor, ws: Tensor | None) -> Tensor:
        soft = slide(unet.network, image, unet.design.patch, classes=len(unet.design.labels))
        return without_class_weights(soft, weights)

    return label


def registration_work(settings: FewshotSettings) -> Work:
    """All registrations, to be timed.

    A draw's shots are nested, so those of its largest k are registered; a patient counts as one slice.
    """
    slices = settings.shots.draws * max(settings.shots.counts) * settings.propagation.targets
    return Work("registration of labelled slices", 1, slices, partial(_registration_rate, settings))


def _registration_rate(settings: FewshotSettings) -> float:
    """Registrations per second; what the slices show hardly changes it."""
    how, count = settings.propagation, 3
    shape = (count + 1, 1, *settings.prepare.size)
    noise = stream(0, "plan").uniform(-1, 1, shape).astype(np.float32)
    started = time.perf_counter()
    demons = Demons(side=how.side, smoothness=how.smoothness)
    Atlas(noise[1:], demons).displacements(SliceRef("plan", 0), noise[0])
    return count / (time.perf_counter() - started)
