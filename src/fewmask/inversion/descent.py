"""One batch of images on its way down to its latents; it can be stopped after any step and taken up again."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.inversion.noise import draw_maps, noise_correlation, renormalised
from fewmask.inversion.place import on_device, without_gradients
from fewmask.inversion.result import Inversion, joined, reconstruct
from fewmask.inversion.resume import Part, part_name
from fewmask.networks.generator import ImageGenerator, Noise
from fewmask.objectives.perceptual import ToTarget
from fewmask.training.checkpoint import State, gather, restore

Space = Literal["w", "w+"]
NoiseMaps = Literal["constant", "optimised"]
Frame = Literal["frozen", "free"]


@dataclass(frozen=True)
class Projection:
    """How a projection is made; `project` says what each number means."""

    space: Space
    noise: NoiseMaps
    frame: Frame
    steps: int
    learning_rate: float
    pixel_weight: float
    perceptual_weight: float
    mean_penalty: float
    noise_factor: float
    noise_weight: float

    @property
    def walk(self) -> "Walk":
        """How the latents move."""
        return Walk(self.noise, self.frame, self.steps, self.learning_rate, self.noise_factor)


@dataclass(frozen=True)
class Walk:
    """How a descent moves, whatever it minimises; `project` says what each number means."""

    noise: NoiseMaps
    frame: Frame
    steps: int
    learning_rate: float
    noise_factor: float = 0.0


@dataclass(frozen=True, eq=False)
class Goal:
    """What a descent heads for: images (B, C, H, W) and the distance P to them, on the generator's device.

    centre (w_dim,) and spread are the mean of the generator's latents and their root mean squared distance
    to it; `seed` names the streams of chance.
    """

    images: Tensor
    distance: ToTarget
    centre: Tensor
    spread: float
    seed: int


Loss = Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]
"""(drawn images (B, C, H, W), latents (B, num_ws, w_dim), noise maps (B, 1, s, s)) -> (B,)."""


def projection_loss(how: Projection, goal: Goal) -> Loss:
    """What `project` minimises."""

    def loss(image: Tensor, ws: Tensor, maps: Sequence[Tensor]) -> Tensor:
        total: Tensor = how.pixel_weight * (image - goal.images).square().mean(dim=(1, 2, 3))
        if how.perceptual_weight:
            total = total + how.perceptual_weight * goal.distance(image)
        if how.mean_penalty:
            far = (ws - goal.centre).square().sum(dim=2).mean(dim=1) / goal.spread**2
            total = total + how.mean_penalty * far
        if maps:
            total = total + how.noise_weight * noise_correlation(maps)
        return total

    return loss


def framed(ws: Tensor, num_ws: int, frozen: int, centre: Tensor) -> Tensor:
    """Latents (B, 1 or num_ws, w_dim) for all layers, the first `frozen` of them at `centre` (w_dim,)."""
    ws = ws.expand(-1, num_ws, -1)
    if not frozen:
        return ws
    return torch.cat([centre.expand(len(ws), frozen, -1), ws[:, frozen:]], dim=1)


def frozen_styles(generator: ImageGenerator, frame: Frame) -> int:
    """How many of the first styles stay at the mean latent."""
    return generator.synthesis.frame_ws if frame == "frozen" else 0


class Descent:
    """Latents (B, 1 or num_ws, w_dim), and noise maps if asked for, under Adam (betas 0.9, 0.999).

    Schedule of Karras et al. 2020, appendix D: the rate rises over the first 5 % of the steps and falls as a
    cosine over the last 25 %; at the fraction t of the steps the latents are tried with noise of deviation
    noise_factor * spread * max(0, 1 - t / 0.75)^2. What is minimised is `loss`.
    """

    def __init__(self, how: Walk, generator: ImageGenerator, begin: Tensor, goal: Goal, loss: Loss) -> None:
        self._how, self._generator, self._goal, self._loss_of = how, generator, goal, loss
        self._frozen = frozen_styles(generator, how.frame)
        self._names = [_name(image) for image in goal.images]
        self.step, self.steps = 0, how.steps
        self._ws = begin.detach().clone(memory_format=torch.contiguous_format)
        sizes = generator.synthesis.noise_sizes if how.noise == "optimised" else ()
        maps = draw_maps(sizes, self._chances("maps"))
        self._maps = [noise.to(begin.device) for noise in maps]
        self._optimizer = torch.optim.Adam([self._ws, *self._maps], lr=how.learning_rate)

    @property
    def ws(self) -> Tensor:
        """The latents of every layer, (B, num_ws, w_dim)."""
        return framed(self._ws, self._generator.num_ws, self._frozen, self._goal.centre)

    @property
    def inversion(self) -> Inversion:
        """What the latents give now, beside the images."""
        return reconstruct(self._generator, self.ws, self._goal.images, self._goal.distance, maps=self.maps)

    @property
    def maps(self) -> list[Tensor]:
        """The noise maps, (B, 1, s, s) for every layer; empty when the noise is constant."""
        return self._maps

    def advance(self) -> None:
        """One step of Adam."""
        how = self._how
        t = self.step / how.steps
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - t) / 0.25))
        rise = min(1.0, (self.step + 1) / max(1.0, 0.05 * how.steps))
        self._optimizer.param_groups[0]["lr"] = how.learning_rate * fall * rise
        width = how.noise_factor * self._goal.spread * max(0.0, 1.0 - t / 0.75) ** 2
        tried = self._ws.clone()
        if width > 0:
            shaken = [torch.randn(self._ws.shape[1:], generator=c) for c in self._chances(self.step)]
            tried += width * torch.stack(shaken).to(tried.device)
        unknowns = [tried.requires_grad_(), *(noise.detach().requires_grad_() for noise in self._maps)]
        gradients = torch.autograd.grad(self._loss(tried, unknowns[1:]), unknowns)
        for unknown, gradient in zip([self._ws, *self._maps], gradients, strict=True):
            unknown.grad = gradient
        self._optimizer.step()
        for noise in self._maps:
            noise.copy_(renormalised(noise))
        self.step += 1

    def state(self) -> State:
        """All that the next steps depend on, besides what the descent was made from."""
        kept = gather({}, {"latents": self._optimizer})
        maps = {f"noise/{n:02d}": noise for n, noise in enumerate(self._maps)}
        return State({**kept.tensors, "ws": self._ws, **maps}, {**kept.numbers, "step": self.step})

    def load_state(self, state: State, where: Path) -> None:
        """Go on where `state` was taken."""
        restore({}, {"latents": self._optimizer}, state, where)
        self._ws.copy_(state.tensors["ws"])
        for n, noise in enumerate(self._maps):
            noise.copy_(state.tensors[f"noise/{n:02d}"])
        self.step = int(state.numbers["step"])

    def _loss(self, tried: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """The sum over the images, so that each has the gradient it would have alone."""
        ws = framed(tried, self._generator.num_ws, self._frozen, self._goal.centre)
        noise: Noise = maps or "constant"
        image: Tensor = self._generator.synthesis(ws, noise=noise)
        return self._loss_of(image, ws, maps).sum()

    def _chances(self, what: str | int) -> list[torch.Generator]:
        """A stream per image that follows from its pixels, so that its neighbours do not matter."""
        return [
            torch.Generator().manual_seed(integer(self._goal.seed, "project", "noise", name, what))
            for name in self._names
        ]


def descend_each(
    generator: ImageGenerator,
    images: NDArray[np.floating],
    begin: Callable[[Tensor, slice], Descent],
    made_from: Callable[[slice], dict[str, Any]],
    *,
    steps: int,
    batch_size: int,
    step: Step | None,
    save_every: int,
    on_progress: Callable[[int, int], None] | None,
) -> Inversion:
    """All steps for images (N, C, H, W), batch after batch; what was kept in `step` is not done again.

    Args:
        generator: what is inverted.
        images: the images.
        begin: the descent of a batch, from its images on the generator's device and which ones they are.
        made_from: what its result follows from (JSON values).
        steps: of each descent.
        batch_size: images at once.
        step: where to keep finished batches and the state of the one at work, or None.
        save_every: steps between two states.
        on_progress: called with (image-steps done, image-steps in total).
    """
    total, parts = len(images) * steps, list[Inversion]()
    tell = on_progress or (lambda done, total: None)
    for first in range(0, len(images), batch_size):
        which = slice(first, first + batch_size)
        some, inputs = images[which], made_from(which)
        part = Part(step, part_name(first), inputs, every=save_every)
        finished = part.finished()
        if finished is None:
            descent = begin(on_device(some, generator), which)
            for done in _descend(generator, descent, part):
                tell(first * steps + done * len(some), total)
            finished = part.finish(descent.inversion, inputs)
        parts.append(finished[0])
        tell((first + len(some)) * steps, total)
    return joined(parts)


def _descend(generator: ImageGenerator, descent: Descent, part: Part) -> Iterator[int]:
    """All steps, from where an earlier process stood if one died here; says how many are done."""
    begun = part.begun()
    if begun is not None:
        descent.load_state(begun[1], begun[0])
    with without_gradients(generator.synthesis):
        while descent.step < descent.steps:
            descent.advance()
            part.save(descent.step, descent.state)
            yield descent.step


def _name(image: Tensor) -> str:
    return hashlib.sha256(image.cpu().numpy().tobytes()).hexdigest()
