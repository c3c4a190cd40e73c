"""What a segmenter minimises: soft Dice plus cross-entropy over the voxels that somebody has judged."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer

from fewmask.core.errors import ConfigError
from fewmask.core.volume import IGNORE
from fewmask.data.batches import Batch
from fewmask.objectives.average import follow, share_kept
from fewmask.objectives.minimise import Minimise


def targets_of(mask: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Class weights (B, K, *S) and the judged share (B, 1, *S) of each voxel, both float 0..1.

    An integer mask (B, *S) holds class numbers and IGNORE (255), whose voxels are 0 in every class. A soft
    mask (B, K, *S) is taken as it is: a voxel counts as much as its classes add up to.
    """
    if mask.is_floating_point():
        return mask, mask.sum(dim=1, keepdim=True)
    judged = (mask != IGNORE).unsqueeze(1)
    labels = torch.where(judged.squeeze(1), mask, 0)
    hot = functional.one_hot(labels, classes).movedim(-1, 1)
    return (hot * judged).float(), judged.float()


def soft_dice_loss(probabilities: Tensor, target: Tensor, judged: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """One minus the soft Dice of every foreground class over the whole batch, averaged over classes.

    1 - (2 sum(min(j p, t)) + e) / (sum(j p) + sum(t) + e) with p, t (B, K, *S) and the judged share j
    (B, 1, *S). For hard targets that is the 2 sum(p t) of Milletari et al., "V-Net", 3DV 2016, section 3, in
    the form of nnU-Net (plain sums, batch Dice, no background; Isensee et al., Nature Methods 2021). For soft
    ones the minimum makes p = t the best answer (Wang et al., "Dice semimetric losses", MICCAI 2023, with
    2 min(a, b) = a + b - |a - b|), where the product draws every voxel with t > Dice / 2 to 1.
    """
    over = (0, *range(2, probabilities.ndim))
    p, t = probabilities[:, 1:] * judged, target[:, 1:]
    both = torch.minimum(p, t).sum(dim=over)
    either = p.sum(dim=over) + t.sum(dim=over)
    return 1 - ((2 * both + smooth) / (either + smooth)).mean()


def cross_entropy(log_p: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of -sum_k w_k t_k log p_k over judged voxels, 0 without any; (B, K, *S) twice, weights (K,)."""
    if weights is not None:
        target = target * weights.view(1, -1, *(1,) * (target.ndim - 2))
    return -(target * log_p).sum() / target.sum().clamp(min=1e-6)


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of images seen, so that nothing has to be saved to resume."""

    lr: float
    """The highest learning rate."""
    images: int
    """Images of the whole training; the rate ends near 0 there."""
    kind: Literal["cosine", "polynomial", "constant"] = "cosine"
    warm_up: float = 0.0
    """Share of the training over which the rate rises from 0."""

    def at(self, images_seen: int) -> float:
        """The learning rate after `images_seen` images; polynomial is (1 - t)^0.9 as in nnU-Net."""
        t = min(images_seen / max(self.images, 1), 1.0)
        rise = min(1.0, (t + 1e-3) / (self.warm_up + 1e-3))
        if self.kind == "constant":
            return self.lr * rise
        if self.kind == "polynomial":
            return float(self.lr * rise * (1 - t) ** 0.9)
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * t))


class SegmentationObjective:
    """Trains a network (B, C, *S) -> logits (B, K, *S) on masks; an `Objective` of the training loop.

    Without `average` the trained network is the result; with it an exponential moving average of its weights
    is, half of which is renewed every `average` images.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        *,
        classes: int,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        weight_decay: float = 1e-2,
        class_weights: Sequence[float] = (),
        average: int = 0,
    ) -> None:
        """`classes` counts the background.

        `class_weights` (K,) weigh the cross-entropy of integer masks; all 1 when empty.
        """
        if class_weights and len(class_weights) != classes:
            raise ConfigError(
                "there must be one class weight per class, the background first",
                found=f"{len(class_weights)} weights",
                expected=f"{classes}",
            )
        self.network = network
        self.schedule = schedule
        self.classes = classes
        self.average = average
        self._weights = torch.tensor(class_weights) if class_weights else None
        self._mean = copy.deepcopy(network).requires_grad_(False).eval() if average else None
        parameters = [p for p in network.parameters() if p.requires_grad]
        if optimizer == "sgd":
            self._optimizer: Optimizer = SGD(
                parameters, schedule.lr, momentum=0.99, nesterov=True, weight_decay=weight_decay
            )
        else:
            self._optimizer = AdamW(parameters, schedule.lr, weight_decay=weight_decay)

    def modules(self) -> Mapping[str, nn.Module]:
        """Everything with weights: the network and, if kept, its moving average."""
        return {"network": self.network} | ({} if self._mean is None else {"average": self._mean})

    def optimizers(self) -> Mapping[str, Optimizer]:
        """The one optimiser."""
        return {"network": self._optimizer}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimiser: the schedule follows from the images seen."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def loss(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Dice loss and cross-entropy of a batch; images (B, C, *S), masks as in `targets_of`.

        The class weights count for integer masks alone: soft ones may hold a network's answers (see `judge`)
        beside one-hot rows that a person drew, which nothing tells apart.
        """
        return self.judge(self.network(image), mask, weighted=not mask.is_floating_point())

    def judge(self, logits: Tensor, mask: Tensor, *, weighted: bool = True) -> tuple[Tensor, Tensor]:
        """Dice loss and cross-entropy of the network's answers (B, K, *S), masks as in `targets_of`.

        weighted: by the class weights. Where the mask is a network's own answer they must not count: the best
        answer to a weighted entropy shows more of a rare class than the mask, and would feed on itself.
        """
        target, judged = targets_of(mask, self.classes)
        log_p = functional.log_softmax(logits.float(), dim=1)
        weights = self._weights.to(logits.device) if weighted and self._weights is not None else None
        return soft_dice_loss(log_p.exp(), target, judged), cross_entropy(log_p, target, weights)

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step on a batch with masks; returns the losses and the learning rate."""
        if batch.mask is None:
            raise ConfigError("a segmenter learns from masks, and this batch has none")
        self.network.train()
        dice, entropy = self.loss(batch.image, batch.mask)
        lr = self.step(dice + entropy, images_seen, minimise)
        if self._mean is not None:
            follow(self._mean, self.network, share_kept(len(batch.image) * minimise.ranks, self.average))
        return {"dice_loss": dice.detach(), "cross_entropy": entropy.detach(), "lr": lr}

    def step(self, loss: Tensor, images_seen: int, minimise: Minimise) -> float:
        """One step of the optimiser down a loss, at the learning rate of the schedule, which it returns."""
        lr = self.schedule.at(images_seen)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        minimise(loss, self._optimizer)
        return lr

    @property
    def result(self) -> nn.Module:
        """The network to validate and to keep: the moving average if there is one."""
        return self.network if self._mean is None else self._mean
