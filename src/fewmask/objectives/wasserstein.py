"""Training a critic of healthy images by the Wasserstein distance, with a penalty on its slope.

Gulrajani et al. 2017, "Improved training of Wasserstein GANs", equation 3.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch, Stream
from fewmask.networks.critic import Critic
from fewmask.networks.precise import exact_slopes
from fewmask.objectives.lazyadam import lazy_adam
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.unpaired import batch_at, own_rows, shares


def gradient_penalty(judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Mean over images of (|grad D(x)| - 1)^2 at x = share real + (1 - share) fake (equation 3).

    Args:
        judge: (B, C, H, W) -> (B,).
        real: (B, C, H, W).
        fake: the same shape.
        share: (B,), uniform in 0..1.
    """
    share = share[:, None, None, None]
    between = (share * real + (1 - share) * fake).detach().float().requires_grad_(True)
    with exact_slopes(between.device.type):
        (slope,) = torch.autograd.grad(judge(between).sum(), between, create_graph=True)
    length: Tensor = torch.linalg.vector_norm(slope.flatten(1), dim=1)
    return (length - 1).square().mean()


@dataclass(frozen=True)
class CriticSteps:
    """How often the critic learns before each step of the generator."""

    usual: int = 5
    many: int = 100
    """For the first steps and once in a while (as Arjovsky et al. 2017, "Wasserstein GAN", did)."""
    first: int = 25
    """Steps of the generator that get many."""
    every: int = 100
    """And every so manieth after them."""

    def __post_init__(self) -> None:
        """Raises `ConfigError` for numbers that cannot be counted with."""
        if min(self.usual, self.many, self.every) < 1 or self.first < 0 or self.many < self.usual:
            raise ConfigError(
                "the critic's steps are out of range",
                found=f"usual {self.usual}, many {self.many}, first {self.first}, every {self.every}",
                expected="1 or more usual ones, many not fewer than usual, first 0 or more, every 1 or more",
            )

    def before(self, updates: int) -> int:
        """Steps of the critic before update number `updates` of the generator, from 0 on."""
        early = min(updates, self.first)
        multiples = -(-updates // self.every) - -(-early // self.every)
        return self.usual * updates + (self.many - self.usual) * (early + multiples)


class HealthyCritic:
    """The critic's side of a game in which diseased images are made healthy.

    Args:
        critic: high for healthy images.
        diseased: images to be made healthy for the critic's steps; its batches are numbered by those steps.
        healthy: real images, in batches of the same size.
        steps: how many steps an update has.
        penalty: weight of `gradient_penalty`.
        lr: of Adam.
        betas: of Adam.
    """

    def __init__(
        self,
        critic: Critic,
        diseased: Stream,
        healthy: Stream,
        *,
        steps: CriticSteps,
        penalty: float,
        lr: float,
        betas: tuple[float, float],
    ) -> None:
        self.critic, self.diseased, self.healthy = critic, diseased, healthy
        self.steps, self.penalty = steps, penalty
        self.parameters = list(critic.parameters())
        self.adam: Optimizer = lazy_adam(self.parameters, lr, betas, 0)

    def learn(
        self, heal: Callable[[Tensor], Tensor], batch: Batch, images_seen: int, minimise: Minimise
    ) -> dict[str, Tensor]:
        """All steps of the update at `images_seen`; returns the means of what they measured.

        heal: diseased images (B, C, H, W) made healthy.
        """
        size = len(batch) * minimise.ranks
        update = images_seen // size
        told = []
        for number in range(self.steps.before(update), self.steps.before(update + 1)):
            sick = batch_at(self.diseased, number * size, batch, minimise).image
            well = batch_at(self.healthy, number * size, batch, minimise).image
            share = own_rows(torch.rand(size).to(well.device), minimise)
            with torch.no_grad():
                made = heal(sick)
            told.append(self._step(well, made, share, minimise))
        distance, penalty = torch.stack(told).mean(dim=0)
        return {"distance": distance, "penalty": penalty}

    def _step(self, real: Tensor, fake: Tensor, share: Tensor, minimise: Minimise) -> Tensor:
        seen: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for well, made, mixed in shares(minimise, real, fake, share):
                distance = self.critic(well).mean() - self.critic(made).mean()
                penalty = gradient_penalty(self.critic, well, made, mixed)
                seen.append(torch.stack([distance.detach(), penalty.detach()]))
                yield (self.penalty * penalty - distance) / minimise.parts

        minimise(losses(), self.adam)
        return torch.stack(seen).mean(dim=0)
