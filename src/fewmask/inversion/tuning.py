"""One tuning of a generator's weights on its way; it can be stopped after any update and taken up again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from fewmask.core.seed import integer
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.perceptual import Distance, ToTarget
from fewmask.training.checkpoint import State, gather, restore

SYNTHESIS = "synthesis"
"""The name of the tuned weights in checkpoints."""

LPIPS_ENOUGH = 0.06
"""Published: LPIPS (AlexNet) at which a tuning ends."""

PATIENCE = 50
"""Updates over which the loss must fall, by `LEAST_GAIN` of its value, for a tuning to go on."""

LEAST_GAIN = 0.01

_FRAME = "input.affine."
"""Weights of a synthesis that move the image in its frame (StyleGAN3)."""


@dataclass(frozen=True)
class Locality:
    """Keep the generator as it was around the pivot (Roich et al. 2022, section 3.3).

    Each update draws one latent, truncated by `truncation`, and goes from the pivot towards it, `distance`
    far (published: 30, for latents of length 512). There the tuned generator must draw what the original one
    does: pixel_weight * MSE + perceptual_weight * P.
    """

    distance: float = 30.0
    truncation: float = 0.5
    pixel_weight: float = 0.1
    perceptual_weight: float = 0.1


@dataclass(frozen=True)
class TuningRates:
    """How a tuning is made; `pti.tune_each` says what each number means."""

    steps: int
    learning_rate: float
    perceptual_weight: float
    pixel_weight: float
    locality: Locality | None


class Tuning:
    """A generator whose synthesis descends under Adam (betas 0.9, 0.999) to draw images at their pivots.

    Args:
        tuned: changes; a copy of the original.
        original: does not change.
        rates: how.
        perceptual: the distance P.
        images: (N, C, R, R), on the generator's device.
        pivots: (N, num_ws, w_dim), there too.
        seed: names the streams of chance.
        lpips: whether P is LPIPS, so that the published stop rule holds.
    """

    def __init__(
        self,
        tuned: ImageGenerator,
        original: ImageGenerator,
        rates: TuningRates,
        perceptual: Distance,
        images: Tensor,
        pivots: Tensor,
        *,
        seed: int,
        lpips: bool,
    ) -> None:
        self.tuned, self.step = tuned, 0
        self._original, self._rates, self._perceptual = original, rates, perceptual
        self.images, self.pivots = images, pivots
        self._seed, self._lpips = seed, lpips
        self._losses: list[float] = []
        self._last = torch.full((2, len(images)), torch.nan)  # of every image: P and loss when last seen
        self._weights = [
            weight.requires_grad_()
            for name, weight in tuned.synthesis.named_parameters()
            if not (tuned.synthesis.frame_ws and name.startswith(_FRAME))
        ]
        self._optimizer = torch.optim.Adam(self._weights, lr=rates.learning_rate)

    @property
    def ended(self) -> bool:
        """Whether all updates are made, or further ones gain too little."""
        return self.step >= self._rates.steps or self._enough()

    def advance(self, rows: Sequence[int]) -> None:
        """One update on these images."""
        rates, chosen = self._rates, list(rows)
        image = self.tuned.synthesis(self.pivots[chosen], noise="constant")
        target = self.images[chosen]
        far = self._distance(chosen)(image)
        loss = rates.perceptual_weight * far
        loss = loss + rates.pixel_weight * (image - target).square().mean(dim=(1, 2, 3))
        total = loss.mean()
        if rates.locality is not None:
            total = total + self._drift(rates.locality, chosen)
        gradients = torch.autograd.grad(total, self._weights)
        for weight, gradient in zip(self._weights, gradients, strict=True):
            weight.grad = gradient
        self._optimizer.step()
        self._last[:, chosen] = torch.stack([far, loss]).detach().cpu()
        if not self._last.isnan().any():
            self._losses.append(float(self._last[1].mean()))
        self.step += 1

    def state(self) -> State:
        """All that the next updates depend on, besides what the tuning was made from."""
        kept = gather({SYNTHESIS: self.tuned.synthesis}, {SYNTHESIS: self._optimizer})
        return State(
            {**kept.tensors, "last": self._last},
            {**kept.numbers, "step": self.step, "losses": list(self._losses)},
        )

    def load_state(self, state: State, where: Path) -> None:
        """Go on where `state` was taken."""
        restore({SYNTHESIS: self.tuned.synthesis}, {SYNTHESIS: self._optimizer}, state, where)
        self._last.copy_(state.tensors["last"])
        self._losses = list(state.numbers["losses"])
        self.step = int(state.numbers["step"])

    def _distance(self, rows: list[int]) -> ToTarget:
        """P to some images; looked at once where every update sees them all."""
        if rows != list(range(len(self.images))):
            return self._perceptual.towards(self.images[rows])
        return self._whole

    @cached_property
    def _whole(self) -> ToTarget:
        return self._perceptual.towards(self.images)

    def _enough(self) -> bool:
        """LPIPS: every image is met as well as published (0.06). Else: under 1 % gained in 50 updates.

        The loss is the mean over all images, each as it was last seen; the best of the last 50 updates is
        compared with the best before them.
        """
        if self._lpips:
            return bool((self._last[0] <= LPIPS_ENOUGH).all())
        if len(self._losses) <= PATIENCE:
            return False
        before, now = min(self._losses[:-PATIENCE]), min(self._losses[-PATIENCE:])
        return before - now < LEAST_GAIN * before

    def _drift(self, how: Locality, rows: Sequence[int]) -> Tensor:
        """How much the tuned generator differs from the original one at a latent near a pivot."""
        chance = torch.Generator().manual_seed(integer(self._seed, "pti", "locality", self.step))
        z = torch.randn(1, self._original.z_dim, generator=chance).to(self.pivots.device)
        label = None
        if self._original.classes:
            label = torch.zeros(1, self._original.classes, device=z.device)
            label[0, int(torch.randint(self._original.classes, (1,), generator=chance))] = 1.0
        pivot = self.pivots[rows[0]][None]
        with torch.no_grad():
            away = self._original.mapping(z, label, how.truncation) - pivot
            frozen = self._original.synthesis.frame_ws
            away[:, :frozen] = 0.0
            ws = pivot + how.distance * away / away.norm(dim=2, keepdim=True).clamp_min(1e-8)
            wanted = self._original.synthesis(ws, noise="constant")
        image = self.tuned.synthesis(ws, noise="constant")
        pixels = (image - wanted).square().mean()
        far = self._perceptual.towards(wanted)(image).mean()
        drift: Tensor = how.pixel_weight * pixels + how.perceptual_weight * far
        return drift
