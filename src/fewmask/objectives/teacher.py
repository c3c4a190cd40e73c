"""A mean teacher: a segmenter that also learns from images which nobody has labelled.

The teacher is the running average of the student's weights (Tarvainen & Valpola, NeurIPS 2017). It looks at
an image as it is and says what it sees; image and answer then go through the strong augmentation together,
and the student has to say the same of the varied image (weak and strong views: Sohn et al., "FixMatch",
NeurIPS 2020, here with soft answers and with a mask that moves along with its image).
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.augment import StrongAugment
from fewmask.data.batches import Batch
from fewmask.objectives.average import follow, share_kept
from fewmask.objectives.faults import take_rows
from fewmask.objectives.minimise import Minimise, rows
from fewmask.objectives.segmentation import SegmentationObjective, targets_of


@dataclass(frozen=True)
class TeacherSettings:
    """How the student is taught where nobody judged. Raises `ConfigError` for a number out of range."""

    average: int = 1000
    """Half-life in images of the teacher's weights; at first at most a tenth of the images seen, for a
    student improves quickly then (Tarvainen & Valpola, section 3)."""
    weight: float = 1.0
    """Of the loss on unlabelled images, beside 1 for the labelled ones."""
    ramp: float = 0.3
    """Share of the training over which that weight rises as exp(-5 (1 - t)^2), t from 0 to 1 (Laine & Aila,
    ICLR 2017)."""
    confidence: float = 0.0
    """Voxels whose most probable class has less than this probability teach nothing (FixMatch: 0.95)."""
    temperature: float = 1.0
    """Of the teacher's softmax; below 1 its answers are sharper."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        fine = self.average >= 1 and self.weight >= 0 and 0 < self.ramp <= 1
        if not (fine and 0 <= self.confidence <= 1 and self.temperature > 0):
            raise ConfigError(
                "a setting of the teacher is out of range",
                found=f"{self}",
                expected="average >= 1, weight >= 0, ramp in (0, 1], confidence in [0, 1], temperature > 0",
            )

    def weight_at(self, share: float) -> float:
        """The weight of unlabelled images after `share` (0..1) of the training."""
        return self.weight * math.exp(-5 * (1 - min(share / self.ramp, 1.0)) ** 2)

    def half_life(self, images_seen: int) -> float:
        """Half-life in images of the teacher's weights."""
        return min(self.average, images_seen / 10)


class MeanTeacherObjective:
    """Labelled and unlabelled images in one batch; an `Objective` of the training loop.

    Batches come as they are, without augmentation. An image is labelled when any of its voxels is judged;
    the others (`IGNORE` everywhere, or soft masks of 0) are the teacher's. The loss is that of the labelled
    images plus the growing weight times that of the unlabelled ones, each soft Dice plus cross-entropy over
    the voxels that count. What is kept in the end is the teacher.

    Args:
        student: what is trained, without a moving average of its own.
        augment: how image and mask are varied, drawn from torch's global generator; None: not at all.
        settings: how it is taught.
    """

    def __init__(
        self, student: SegmentationObjective, augment: StrongAugment | None, settings: TeacherSettings
    ) -> None:
        self.student, self.augment, self.settings = student, augment, settings
        self.teacher = copy.deepcopy(student.network).requires_grad_(False).eval()

    def modules(self) -> Mapping[str, nn.Module]:
        """The student's network and the teacher."""
        return {**self.student.modules(), "teacher": self.teacher}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """The student's optimiser."""
        return self.student.optimizers()

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimiser: ramps follow from the images seen."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    @property
    def result(self) -> nn.Module:
        """The network to validate and to keep: the teacher."""
        return self.teacher

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step of the student, and the teacher follows; returns the losses of both kinds of images."""
        if batch.mask is None:
            raise ConfigError("a segmenter learns from masks, and this batch has none")
        target, labelled = self.targets(batch.image, batch.mask)
        told = (target * (1 - labelled)).sum() / (1 - labelled).expand_as(target[:, :1]).sum().clamp(min=1)
        image, target = self.varied(batch.image, target, minimise.rank, minimise.ranks)
        student = self.student
        student.network.train()
        logits = student.network(image)
        drawn = not batch.mask.is_floating_point()  # by a person, see SegmentationObjective.loss
        real_dice, real_entropy = student.judge(logits, target * labelled, weighted=drawn)
        dice, entropy = student.judge(logits, target * (1 - labelled), weighted=False)
        weight = self.settings.weight_at(images_seen / max(student.schedule.images, 1))
        lr = student.step(real_dice + real_entropy + weight * (dice + entropy), images_seen, minimise)
        half_life = self.settings.half_life(images_seen)
        follow(self.teacher, student.network, share_kept(len(image) * minimise.ranks, half_life))
        return {
            "labelled_dice_loss": real_dice.detach(),
            "labelled_cross_entropy": real_entropy.detach(),
            "unlabelled_dice_loss": dice.detach(),
            "unlabelled_cross_entropy": entropy.detach(),
            "unlabelled_weight": weight,
            "confident": told,
            "lr": lr,
        }

    @torch.no_grad()
    def targets(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What each image shows, soft (B, K, *S), and whether it is labelled, (B, 1, ...) of 1 and 0.

        Unlabelled images get the teacher's probabilities, 0 in every class where it is not confident.
        """
        target, judged = targets_of(mask, self.student.classes)
        known = judged.flatten(1).amax(dim=1) > 0
        if not bool(known.all()):
            logits = self.teacher.eval()(image[~known]).float()
            soft = torch.softmax(logits / self.settings.temperature, dim=1)
            sure = logits.softmax(dim=1).amax(dim=1, keepdim=True) >= self.settings.confidence
            target = target.clone()
            target[~known] = soft * sure
        return target, known.to(target.dtype).view(-1, *(1,) * (target.ndim - 1))

    def varied(self, image: Tensor, target: Tensor, rank: int, ranks: int) -> tuple[Tensor, Tensor]:
        """Images and soft masks after the strong augmentation.

        Drawn for all B x ranks images of the batch; this process takes the rows that are its own.
        """
        if self.augment is None:
            return image, target
        count = len(image) * ranks
        mine = rows(count, rank, ranks)
        warp, tone = self.augment.draw((count, *image.shape[1:]), torch.default_generator)
        with torch.autocast(image.device.type, enabled=False):
            new_image, new_target = self.augment.apply(
                image, target, take_rows(warp, mine), take_rows(tone, mine)
            )
        assert new_target is not None
        return new_image, new_target
