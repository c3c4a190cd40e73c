"""Training pixel heads on frozen features of a few labelled images."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.core.volume import IGNORE
from fewmask.data.augment_spatial import SpatialRanges, Warp, apply_warp, draw_warp, sampling_grid
from fewmask.data.batches import Batch, rows
from fewmask.networks.pixelhead import PixelHead
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.segmentation import Schedule, cross_entropy, soft_dice_loss, targets_of

Maps = Callable[[Tensor, Tensor | None], list[Tensor]]
"""Feature maps of images (B, C, H, W) and their latents (B, num_ws, w_dim) or None; without gradient."""

FLOATS_AT_ONCE = 2**23
"""Values of the first layer's output in a training step; beyond them the members go in turns."""


class FrozenMaps:
    """The features of a batch's images; those of numbered images are remembered while there is room.

    Numbered images never change, so each is read alone, once: what comes out has the same bits whether it
    was remembered or not, and whatever batch it was in.
    """

    def __init__(self, maps: Maps, latents: Tensor | None, *, remember: int, numbered: bool) -> None:
        """Up to `remember` bytes are held; `numbered`: an image is fixed by its index (no augmentation)."""
        self.maps, self.latents, self.numbered = maps, latents, numbered
        self.room = remember
        self._known: dict[int, list[Tensor]] = {}

    def of(self, batch: Batch) -> list[Tensor]:
        """Feature maps (B, c_i, h_i, w_i)."""
        if not self.numbered:
            return self._read(batch)
        each = [self._one(batch, row, int(number)) for row, number in enumerate(batch.index.tolist())]
        return [torch.cat(same) for same in zip(*each, strict=True)] if each[1:] else each[0]

    def _one(self, batch: Batch, row: int, number: int) -> list[Tensor]:
        if number not in self._known:
            found = self._read(batch.take(slice(row, row + 1)))
            size = sum(one.numel() * one.element_size() for one in found)
            if size > self.room:
                return found
            self.room -= size
            self._known[number] = found
        return self._known[number]

    def _read(self, batch: Batch) -> list[Tensor]:
        latents = None
        if self.latents is not None:
            latents = self.latents[batch.index.cpu()].to(batch.image.device)
        return self.maps(batch.image, latents)


def warp_maps(maps: Sequence[Tensor], warp: Warp, spacing: Sequence[float] = ()) -> list[Tensor]:
    """Every map (B, c_i, h_i, w_i) resampled by the same warp at its own size; borders go on outwards."""
    warped = []
    for one in maps:
        grid = sampling_grid(warp, one.shape[2:], spacing).to(one.device)
        warped.append(F.grid_sample(one, grid, padding_mode="border", align_corners=False))
    return warped


class PixelHeadObjective:
    """Cross-entropy plus soft Dice of pixel heads; Adam, lr 1e-3, weight decay 1e-3 (Tritrong et al. 2021).

    The rate falls to zero as a cosine (the original multiplied it by 0.9 every 50 epochs, which ties it to
    the number of labelled images). The losses of an ensemble's members are added, so that every member
    learns as it would alone.
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
        augment_features: SpatialRanges | None = None,
        remember: int = 2**30,
        numbered: bool = True,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-3,
    ) -> None:
        """`head` learns to read `maps`.

        Args:
            head: what learns, all members at once.
            maps: the frozen features it reads.
            images: length of the training in images seen.
            latents: (N, num_ws, w_dim) of the source's images, by their index; None when `maps` needs none.
            class_weights: (classes,) weights of the cross-entropy, background first; all 1 when empty.
            dice_weight: weight of the soft Dice term beside the cross-entropy; 0 leaves it out.
            augment_features: warps of the features, of all maps and the mask alike; None for none.
            remember: bytes for the features of images seen before, so that they are computed once.
            numbered: an index always means the same image; False when images are augmented on the way.
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
        self.head = head
        self.maps = FrozenMaps(maps, latents, remember=remember, numbered=numbered)
        self.augment_features, self.dice_weight = augment_features, dice_weight
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
        """One step on a batch with masks (see `targets_of`); returns the members' mean losses and lr."""
        if batch.mask is None:
            raise ConfigError("a pixel head learns from masks, and this batch has none")
        lr = self.schedule.at(images_seen)
        self._optimizer.param_groups[0]["lr"] = lr
        maps, mask = self.maps.of(batch), batch.mask
        if self.augment_features is not None:
            maps, mask = self._warped(maps, mask, self.augment_features, minimise)
        told = {"cross_entropy": 0.0, "dice_loss": 0.0}
        minimise(self._losses(maps, mask, told), self._optimizer)
        return {name: value / self.head.members for name, value in told.items()} | {"lr": lr}

    def _losses(self, maps: Sequence[Tensor], mask: Tensor, told: dict[str, float]) -> Iterator[Tensor]:
        """The summed loss of as many members as fit at once; `told` gathers its terms."""
        size = (int(mask.shape[-2]), int(mask.shape[-1]))
        target, judged = targets_of(mask, self.head.classes)
        weights = None if self._weights is None else self._weights.to(target.device)
        together = max(1, FLOATS_AT_ONCE // (self.head.width * len(mask) * size[0] * size[1]))
        for first in range(0, self.head.members, together):
            last = min(first + together, self.head.members)
            log_p = F.log_softmax(self.head.some(maps, size, first, last), dim=2)
            entropies = torch.stack([cross_entropy(one, target, weights) for one in log_p])
            dices = torch.stack([soft_dice_loss(one.exp(), target, judged) for one in log_p])
            told["cross_entropy"] += float(entropies.detach().sum())
            told["dice_loss"] += float(dices.detach().sum())
            yield (entropies + self.dice_weight * dices).sum()

    def _warped(
        self, maps: list[Tensor], mask: Tensor, ranges: SpatialRanges, minimise: Minimise
    ) -> tuple[list[Tensor], Tensor]:
        """Maps and mask by one warp per image; what comes from beyond the border is unjudged.

        The draw is that of the whole batch, by the update's global generator; every process takes its rows.
        """
        mine = rows(len(mask) * minimise.ranks, minimise.rank, minimise.ranks)
        whole = draw_warp(len(mask) * minimise.ranks, 2, ranges, torch.default_generator)
        control = None if whole.control is None else whole.control[mine]
        warp = Warp(whole.matrix[mine], whole.shift[mine], control)
        nothing = torch.zeros(len(mask), 1, *mask.shape[-2:], device=mask.device)
        _, warped = apply_warp(nothing, mask, warp, spacing=ranges.spacing, outside=IGNORE)
        assert warped is not None
        return warp_maps(maps, warp, ranges.spacing), warped
