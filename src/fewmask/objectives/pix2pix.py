"""pix2pix: a translator between paired images, against a discriminator of pairs.

Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", equations 1 to 4:
D learns to tell (a, b) from (a, G(a)) by cross-entropy, its loss halved; G minimises -log D(a, G(a)) +
100 |G(a) - b|. One update: D, then G, on the same G(a).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.data.batches import Batch
from fewmask.networks.cyclegan import PatchDiscriminator, Translator
from fewmask.objectives.cyclegan import Rate
from fewmask.objectives.lazyadam import asleep, lazy_adam
from fewmask.objectives.minimise import Minimise


class Pix2PixObjective:
    """pix2pix; a batch's image holds the channels of a, then those of b.

    Args:
        translator: from a to b.
        judge: looks at a and b side by side.
        rate: of both Adams.
        weight: of the mean |G(a) - b|.
        betas: of both Adams.

    Raises:
        ConfigError: the networks do not fit one another.
    """

    def __init__(
        self,
        translator: Translator,
        judge: PatchDiscriminator,
        *,
        rate: Rate,
        weight: float = 100.0,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        self.translator, self.judge, self.rate, self.weight = translator, judge, rate, weight
        both = translator.channels_in + translator.channels_out
        if judge.channels != both:
            raise ConfigError(
                "the discriminator looks at an image and its translation",
                found=f"{judge.channels} channels",
                expected=f"{both}",
            )
        self._judged = list(judge.parameters())
        self._draws = lazy_adam(list(translator.parameters()), rate.lr, betas, 0)
        self._judges = lazy_adam(self._judged, rate.lr, betas, 0)

    def modules(self) -> Mapping[str, nn.Module]:
        """Both networks."""
        return {"translator": self.translator, "judge": self.judge}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """An Adam each."""
        return {"translator": self._draws, "judge": self._judges}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights, buffers and optimisers."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step of the discriminator, then one of the translator."""
        self._refuse(batch, minimise)
        for optimizer in (self._draws, self._judges):
            optimizer.param_groups[0]["lr"] = self.rate.at(images_seen)
        many = self.translator.channels_in
        a, b = batch.image[:, :many], batch.image[:, many:]
        fake = self.translator(a)
        false = self.judge(torch.cat([a, fake.detach()], dim=1))
        true = self.judge(torch.cat([a, b], dim=1))
        loss_d = minimise((_cross_entropy(false, 0.0) + _cross_entropy(true, 1.0)) / 2, self._judges)
        with asleep(self._judged):
            fooled = _cross_entropy(self.judge(torch.cat([a, fake], dim=1)), 1.0)
            apart = (fake - b).abs().mean()
            loss_g = minimise(fooled + self.weight * apart, self._draws)
        return {"loss_d": loss_d, "loss_g": loss_g, "fooled": fooled.detach(), "apart": apart.detach()}

    def _refuse(self, batch: Batch, minimise: Minimise) -> None:
        if minimise.parts * minimise.ranks > 1:
            raise ConfigError(
                "batch norm needs the whole batch in one place",
                found=f"{minimise.ranks} processes, {minimise.parts} micro-batches",
                expected="one process and one micro-batch",
            )
        if batch.image.shape[1] != self.judge.channels:
            raise ShapeError(
                "a pair's images must lie side by side",
                found=f"{batch.image.shape[1]} channels",
                expected=f"{self.judge.channels}",
            )


def _cross_entropy(logits: Tensor, wanted: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, wanted))
