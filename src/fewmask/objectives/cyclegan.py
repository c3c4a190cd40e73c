"""CycleGAN: two translators between unpaired domains A and B, and a discriminator of each domain.

Zhu et al. 2017, "CycleGAN", equations 1 to 3 with the least squares of section 4 and the identity of section
5.2. With G: A -> B, F: B -> A and lambda = 10, the translators minimise
    (D_B(G(a)) - 1)^2 + (D_A(F(b)) - 1)^2 + lambda (|F(G(a)) - a| + |G(F(b)) - b|)
    + lambda / 2 (|G(b) - b| + |F(a) - a|),
the discriminators half of (D(real) - 1)^2 + D(older fake)^2; every term is a mean. One update: both
translators, then both discriminators on the images just drawn, exchanged with older ones (`History`).

Equal sums in fewer passes: what enters one network together goes through it as one batch, where no image
depends on its neighbours; the two ways A -> B -> A and B -> A -> B are sent backward one after the other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch, Stream
from fewmask.networks.cyclegan import Translator
from fewmask.objectives.cyclealarms import saturation
from fewmask.objectives.history import History
from fewmask.objectives.lazyadam import asleep, lazy_adam
from fewmask.objectives.minimise import Minimise, rows
from fewmask.objectives.unpaired import batch_at

COLUMNS = 6
"""Pictures in a row of a sample sheet."""


@dataclass(frozen=True)
class CycleWeights:
    """Of the terms beside the discriminators', as published."""

    cycle: float = 10.0
    identity: float = 0.5
    """Times `cycle`; 0 to leave it out."""


@dataclass(frozen=True)
class Rate:
    """A learning rate that stays, then falls linearly; published: to 0 over the second half of the epochs."""

    lr: float
    """At the beginning."""
    images: int
    """Images of the whole training."""
    stays: float = 0.5
    """Share of the training before it falls; 1 for a constant rate."""
    step: int = 1
    """Images after which it falls a step; published: an epoch."""

    def at(self, images_seen: int) -> float:
        """The rate after `images_seen` images: with steps e, lr (1 - max(0, e + 1 - stay) / (fall + 1))."""
        if self.stays >= 1:
            return self.lr
        steps, stay = self.images // self.step, int(self.images * self.stays) // self.step
        gone = max(0, images_seen // self.step + 1 - stay)
        return self.lr * max(0.0, 1 - gone / (steps - stay + 1))


@dataclass(frozen=True, eq=False)
class Players:
    """The networks: translators `ab` and `ba`, discriminators `judge_a` and `judge_b` of their domain.

    A discriminator is (B, C, H, W) -> (B, 1, h, w) and tells, as a translator does, whether it is
    `independent`: whether no image's answer depends on its neighbours in the batch.
    """

    ab: Translator
    ba: Translator
    judge_a: nn.Module
    judge_b: nn.Module

    @property
    def independent(self) -> bool:
        """Whether all are: none has batch norm."""
        return all(bool(one.independent) for one in (self.ab, self.ba, self.judge_a, self.judge_b))

    def named(self) -> dict[str, nn.Module]:
        """By name."""
        return {"ab": self.ab, "ba": self.ba, "judge_a": self.judge_a, "judge_b": self.judge_b}


def least_squares(answer: Tensor, wanted: float) -> Tensor:
    """Mean of (D - wanted)^2 over patches and images (Mao et al. 2017, "LSGAN", equation 9)."""
    return (answer.float() - wanted).square().mean()


class CycleGANObjective:
    """CycleGAN; the training's stream gives images of domain A.

    Args:
        players: the networks.
        other: images of domain B, in batches as large as those of A and of their size in pixels.
        size: height and width of the images.
        rate: of the translators.
        judge_rate: of the discriminators.
        weights: of the terms.
        history: older fakes kept of each domain.
        betas: of both Adams.
        shown: images (n, C, H, W) of A and of B for sample sheets; None for no sheets.

    Raises:
        ConfigError: an identity term between domains of different channels.
    """

    def __init__(
        self,
        players: Players,
        other: Stream,
        *,
        size: tuple[int, int],
        rate: Rate,
        judge_rate: Rate,
        weights: CycleWeights | None = None,
        history: int = 50,
        betas: tuple[float, float] = (0.5, 0.999),
        shown: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.players, self.other, self.weights = players, other, weights or CycleWeights()
        self.rate, self.judge_rate, self.shown = rate, judge_rate, shown
        channels = players.ab.channels_in, players.ba.channels_in
        if channels[0] != channels[1] and self.weights.identity:
            raise ConfigError(
                "domains of different channels have no identity",
                found=f"{channels[0]} and {channels[1]} channels",
                mend="Set the weight of the identity to 0.",
            )
        self.histories = History(history, (channels[0], *size)), History(history, (channels[1], *size))
        self._judged = [*players.judge_a.parameters(), *players.judge_b.parameters()]
        drawing = [*players.ab.parameters(), *players.ba.parameters()]
        self._draws = lazy_adam(drawing, rate.lr, betas, 0)
        self._judges = lazy_adam(self._judged, judge_rate.lr, betas, 0)

    def modules(self) -> Mapping[str, nn.Module]:
        """The four networks and the two histories."""
        a, b = self.histories
        return {**self.players.named(), "history_a": a, "history_b": b}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """One Adam for both translators, one for both discriminators."""
        return {"translators": self._draws, "judges": self._judges}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights, buffers and optimisers: rates and chance follow from the images seen."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step of both translators, then one of both discriminators."""
        self._refuse_division(minimise)
        for optimizer, rate in ((self._draws, self.rate), (self._judges, self.judge_rate)):
            optimizer.param_groups[0]["lr"] = rate.at(images_seen)
        a, b = batch.image, batch_at(self.other, images_seen, batch, minimise).image
        # drawn first and for all processes, so that nothing else's chance comes between
        chance = [history.draw(len(a) * minimise.ranks) for history in self.histories]
        parts = [rows(len(a), part, minimise.parts) for part in range(minimise.parts)]
        ways = (_Way(*self._way("ab"), a, b), _Way(*self._way("ba"), b, a))
        told: list[dict[str, Tensor]] = []

        def drawn() -> Iterator[Tensor]:
            for mine in parts:
                numbers: dict[str, Tensor] = {}
                for way in ways:
                    yield way.cost(mine, self.weights, numbers) / len(parts)
                told.append(numbers)

        with asleep(self._judged):
            loss = minimise(drawn(), self._draws)
        older = [
            history.exchange(everyone(way.fakes(parts), minimise), *how)[_own(way.real, minimise)]
            for history, way, how in zip(self.histories, reversed(ways), chance, strict=True)
        ]

        def judged() -> Iterator[Tensor]:
            for mine in parts:
                for way, fake in zip(reversed(ways), older, strict=True):
                    yield judgement(way.judge, way.target[mine], fake[mine]) / len(parts)

        means = {name: torch.stack([one[name] for one in told]).mean() for name in told[0]}
        return {"loss_g": loss, "loss_d": minimise(judged(), self._judges), **means}

    def _way(self, name: str) -> tuple[str, Translator, Translator, nn.Module]:
        players = self.players
        if name == "ab":
            return name, players.ab, players.ba, players.judge_b
        return name, players.ba, players.ab, players.judge_a

    def samples(self) -> Tensor | None:
        """Six columns: images of A, as B, and back; then images of B, as A, and back."""
        if self.shown is None:
            return None
        device = next(self.players.ab.parameters()).device
        rows_of: list[Tensor] = []
        for images, there, back in zip(
            self.shown, (self.players.ab, self.players.ba), (self.players.ba, self.players.ab), strict=True
        ):
            chosen = images[torch.arange(COLUMNS) % len(images)].to(device)
            seen = there(chosen)
            rows_of += [chosen, seen, back(seen)]
        most = min(one.shape[1] for one in rows_of)
        return torch.cat([one[:, :most] for one in rows_of])

    def _refuse_division(self, minimise: Minimise) -> None:
        if minimise.parts * minimise.ranks > 1 and not self.players.independent:
            raise ConfigError(
                "batch norm needs the whole batch in one place",
                found=f"{minimise.ranks} processes, {minimise.parts} micro-batches",
                expected="one process and one micro-batch",
                mend="Use networks with instance norm (profile reference), or do not divide the batch.",
            )


class _Way:
    """From one domain to the other and back: real -> fake -> real again, in one update."""

    def __init__(
        self,
        name: str,
        there: Translator,
        back: Translator,
        judge: nn.Module,
        real: Tensor,
        target: Tensor,
    ) -> None:
        self.name, self.there, self.back, self.judge = name, there, back, judge
        self.real, self.target = real, target
        self._fakes: list[Tensor] = []

    def cost(self, mine: slice, weights: CycleWeights, told: dict[str, Tensor]) -> Tensor:
        """What the translators minimise on the way; `told` gets the terms, the fake is remembered."""
        real, target = self.real[mine], self.target[mine]
        together = bool(weights.identity) and self.there.independent
        both: Tensor = self.there(torch.cat([real, target]) if together else real)
        fake, same = (both[: len(real)], both[len(real) :]) if together else (both, None)
        if weights.identity and not together:
            same = self.there(target)
        self._fakes.append(fake.detach())
        fooled = least_squares(self.judge(fake), 1.0)
        cycle: Tensor = (self.back(fake) - real).abs().mean()
        loss = fooled + weights.cycle * cycle
        told |= {f"fooled_{self.name}": fooled.detach(), f"cycle_{self.name}": cycle.detach()}
        told[f"saturated_{self.name}"] = saturation(fake.detach(), target)
        if same is not None:
            identity = (same - target).abs().mean()
            loss = loss + weights.cycle * weights.identity * identity
            told[f"identity_{self.name}"] = identity.detach()
        return loss

    def fakes(self, parts: list[slice]) -> Tensor:
        """What was drawn, in the order of the images."""
        count = sum(len(one) for one in self._fakes)
        found = self._fakes[0].new_empty(count, *self._fakes[0].shape[1:])
        for mine, one in zip(parts, self._fakes, strict=True):
            found[mine] = one
        return found


def judgement(judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator minimises: half of each term, so that it learns half as fast."""
    if judge.independent:
        true, false = judge(torch.cat([real, fake])).chunk(2)
    else:
        true, false = judge(real), judge(fake)
    loss: Tensor = (least_squares(true, 1.0) + least_squares(false, 0.0)) / 2
    return loss


def everyone(mine: Tensor, minimise: Minimise) -> Tensor:
    """The images (B, C, H, W) of all processes, in the order of the whole batch."""
    if minimise.ranks == 1:
        return mine
    count = len(mine) * minimise.ranks
    whole = mine.new_zeros(count, *mine.shape[1:])
    whole[rows(count, minimise.rank, minimise.ranks)] = mine * minimise.ranks
    return minimise.mean(whole)


def _own(real: Tensor, minimise: Minimise) -> slice:
    return rows(len(real) * minimise.ranks, minimise.rank, minimise.ranks)
