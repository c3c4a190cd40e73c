"""Training a pixel head on frozen features of a few labelled images."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks.pixelhead import PixelHead
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.segmentation import Schedule, cross_entropy, soft_dice_loss, targets_of

Maps = Callable[[Tensor, Tensor | None], list[Tensor]]
"""Feature maps of images (B, C, H, W) and their latents (B, num_ws, w_dim) or None; without gradient."""


class PixelHeadObjective:
    """Cross-entropy plus soft Dice of a pixel head; Adam, lr 1e-3, weight decay 1e-3 (Tritrong et al. 2021).

    The rate falls to zero as a cosine (the original multiplied it by 0.9 every 50 epochs, which ties it to
    the number of labelled images).
    """

    def __init__(
        self,
        head: PixelHead,
        maps: Maps,
        *,
        images: int,
        latents: Tensor | None = None,
        class_weights: Sequence[float] = (),
        dice_weight: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-3,
    ) -> None:
        """`head` learns to read `maps`.

        Args:
            head: what learns.
            maps: the frozen features it reads.
            images: length of the training in images seen.
            latents: (N, num_ws, w_dim) of the source's images, by their index; None when `maps` needs none.
            class_weights: (classes,) weights of the cross-entropy, background first; all 1 when empty.
            dice_weight: weight of the soft Dice term beside the cross-entropy; 0 leaves it out.
            learning_rate: of Adam at the start.
            weight_decay: of Adam.

        Raises:
            ConfigError: another number of class weights than classes.
        """
        if class_weights and len(class_weights) != head.classes:
            raise ConfigError(
                "there must be one class weight per class, the background first",
                found=f"{len(class_weights)} weights",
                expected=f"{head.classes}",
            )
        self.head, self.maps, self.latents = head, maps, latents
        self.dice_weight = dice_weight
        self.schedule = Schedule(learning_rate, images)
        self._weights = torch.tensor(class_weights) if class_weights else None
        self._optimizer = torch.optim.Adam(head.parameters(), learning_rate, weight_decay=weight_decay)

    def modules(self) -> Mapping[str, nn.Module]:
        """The head."""
        return {"head": self.head}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Its Adam."""
        return {"head": self._optimizer}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimiser: the schedule follows from the images seen."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step on a batch with masks (see `targets_of`); returns the losses and the learning rate."""
        if batch.mask is None:
            raise ConfigError("a pixel head learns from masks, and this batch has none")
        lr = self.schedule.at(images_seen)
        self._optimizer.param_groups[0]["lr"] = lr
        latents = None
        if self.latents is not None:
            latents = self.latents[batch.index.cpu()].to(batch.image.device)
        size = (int(batch.mask.shape[-2]), int(batch.mask.shape[-1]))
        log_p = F.log_softmax(self.head(self.maps(batch.image, latents), size), dim=1)
        target, judged = targets_of(batch.mask, self.head.classes)
        weights = None if self._weights is None else self._weights.to(log_p.device)
        entropy = cross_entropy(log_p, target, weights)
        dice = soft_dice_loss(log_p.exp(), target, judged)
        minimise(entropy + self.dice_weight * dice, self._optimizer)
        return {"cross_entropy": entropy.detach(), "dice_loss": dice.detach(), "lr": lr}
