"""What two masked translators minimise: CycleGAN's loss, with masks that are small and smooth.

Zhu et al. 2017, "CycleGAN", equations 1 to 3, with the least squares of its section 4 and the identity of
section 5.2; masks as in Pumarola et al. 2018, "GANimation", equation 2. X diseased, Y healthy, G: X -> Y and
F: Y -> X with masks a and b:
L_G = |D_Y(G(x)) - 1|^2 + |D_X(F(y)) - 1|^2 + 10 (|F(G(x)) - x| + |G(F(y)) - y|) + 5 (|G(y) - y| + |F(x) - x|)
    + area (a + b) + variation (TV(a) + TV(b)), every |.| a mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.data.batches import Batch, Stream
from fewmask.networks.attentionmask import MaskedTranslator
from fewmask.networks.critic import Critic
from fewmask.objectives.cyclegan import Rate, everyone, least_squares
from fewmask.objectives.history import History
from fewmask.objectives.lazyadam import asleep, lazy_adam
from fewmask.objectives.minimise import Minimise, rows
from fewmask.objectives.unpaired import batch_at, own_rows, set_rate, shares


@dataclass(frozen=True)
class MaskWeights:
    """Of the terms beside the discriminators'."""

    cycle: float = 10.0
    identity: float = 5.0
    area: float = 0.3
    """Of the masks' mean; 0.1 to 1."""
    variation: float = 1e-3
    """Of `total_variation`."""


def total_variation(mask: Tensor) -> Tensor:
    """Mean |difference to the next pixel|, down plus right; mask (B, 1, H, W)."""
    return mask.diff(dim=2).abs().mean() + mask.diff(dim=3).abs().mean()


class MaskHeadObjective:
    """One update: both generators, then both discriminators, as released for CycleGAN.

    Args:
        heal: G, from diseased to healthy.
        harm: F, from healthy to diseased.
        judge_healthy: D_Y; its patches are asked.
        judge_diseased: D_X.
        healthy: images of the other domain, in batches as large as the diseased ones.
        size: height and width of the images.
        rate: the learning rate of all.
        history: older fakes kept of each domain for the discriminators.
        weights: of the terms.
        betas: of both Adams.
    """

    def __init__(
        self,
        heal: MaskedTranslator,
        harm: MaskedTranslator,
        judge_healthy: Critic,
        judge_diseased: Critic,
        healthy: Stream,
        *,
        size: tuple[int, int],
        rate: Rate,
        history: int = 50,
        weights: MaskWeights | None = None,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        self.heal, self.harm, self.healthy, self.rate = heal, harm, healthy, rate
        self.judge_healthy, self.judge_diseased = judge_healthy, judge_diseased
        self.weights = weights or MaskWeights()
        shape = (heal.channels, *size)
        self.histories = History(history, shape), History(history, shape)
        self._judges = [*judge_healthy.parameters(), *judge_diseased.parameters()]
        self._adams = {
            "generators": lazy_adam([*heal.parameters(), *harm.parameters()], rate.lr, betas, 0),
            "discriminators": lazy_adam(self._judges, rate.lr, betas, 0),
        }

    def modules(self) -> Mapping[str, nn.Module]:
        """Both generators, both discriminators and the two histories, which a checkpoint must hold."""
        of_healthy, of_diseased = self.histories
        return {
            "generator": self.heal,
            "harm": self.harm,
            "history_healthy": of_healthy,
            "history_diseased": of_diseased,
            "judge_healthy": self.judge_healthy,
            "judge_diseased": self.judge_diseased,
        }

    def optimizers(self) -> Mapping[str, Optimizer]:
        """An Adam for the generators, one for the discriminators."""
        return self._adams

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimisers."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """Learn from a batch of diseased images and as many healthy ones."""
        set_rate(self.rate.at(images_seen), *self._adams.values())
        sick, well = batch.image, batch_at(self.healthy, images_seen, batch, minimise).image
        # drawn first and for all processes, as in `CycleGANObjective`
        chance = [history.draw(len(sick) * minimise.ranks) for history in self.histories]
        made: list[tuple[Tensor, Tensor]] = []
        seen: list[Tensor] = []

        def translations() -> Iterator[Tensor]:
            for x, y in shares(minimise, sick, well):
                loss, fakes, numbers = self.cost(x, y)
                made.append(fakes)
                seen.append(numbers)
                yield loss / minimise.parts

        with asleep(self._judges):
            loss = minimise(translations(), self._adams["generators"])
        older = [
            own_rows(history.exchange(everyone(_joined(fakes, sick), minimise), *how), minimise)
            for history, fakes, how in zip(self.histories, zip(*made, strict=True), chance, strict=True)
        ]

        def judgements() -> Iterator[Tensor]:
            for x, y, healed, harmed in shares(minimise, sick, well, *older):
                healthy = self._told_apart(self.judge_healthy, y, healed)
                yield (healthy + self._told_apart(self.judge_diseased, x, harmed)) / minimise.parts

        judged = minimise(judgements(), self._adams["discriminators"])
        cycle, identity, area = torch.stack(seen).mean(dim=0)
        return {"loss": loss, "loss_d": judged, "cycle": cycle, "identity": identity, "area": area}

    def cost(self, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """L_G of diseased x and healthy y, (B, C, H, W) each.

        Returns:
            The loss; G(x) and F(y), detached; cycle and identity error and mean of a, (3,).
        """
        how = self.weights
        (healed, a), (harmed, b) = self.heal(x), self.harm(y)
        fooled = least_squares(self.judge_healthy.patches(healed), 1.0)
        fooled = fooled + least_squares(self.judge_diseased.patches(harmed), 1.0)
        cycle = (self.harm(healed)[0] - x).abs().mean() + (self.heal(harmed)[0] - y).abs().mean()
        identity = (self.heal(y)[0] - y).abs().mean() + (self.harm(x)[0] - x).abs().mean()
        masks = how.area * (a.mean() + b.mean())
        masks = masks + how.variation * (total_variation(a) + total_variation(b))
        loss = fooled + how.cycle * cycle + how.identity * identity + masks
        numbers = torch.stack([cycle, identity, a.mean()]).detach()
        return loss, (healed.detach(), harmed.detach()), numbers

    @staticmethod
    def _told_apart(judge: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum, as released, so that a discriminator learns half as fast."""
        return (least_squares(judge.patches(real), 1.0) + least_squares(judge.patches(fake), 0.0)) / 2


def _joined(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """Images of micro-batches in the order of the batch `like`."""
    found = torch.empty_like(like)
    for number, one in enumerate(parts):
        found[rows(len(like), number, len(parts))] = one
    return found
