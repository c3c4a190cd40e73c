"""Training an encoder for a generator with a mask branch: by any image, and by the masks of a few.

Li et al., CVPR 2021, "Semantic segmentation with generative models", as released: the generator is frozen,
and steps on unlabelled and on labelled images take turns, each with an optimiser of its own.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from fewmask.data.batches import Batch, Stream
from fewmask.networks.encoder import LatentEncoder, refinements
from fewmask.networks.semanticgan import SemanticGenerator
from fewmask.objectives.minimise import Minimise, rows
from fewmask.objectives.perceptual import Distance
from fewmask.objectives.segmentation import Schedule
from fewmask.objectives.semanticgan import (
    EncoderWeights,
    labelled_dice,
    labelled_entropy,
    labelled_loss,
    pairs_at,
    unlabelled_loss,
)

LARGEST = {"unlabelled": 2.0, "labelled": 5.0}
"""A longer gradient is cut to this length, as published."""


class SemanticEncoderObjective:
    """`unlabelled_loss` and `labelled_loss` in turn; an `Objective` of the training loop.

    The encoder is `LatentEncoder` in place of the published pyramid on a ResNet-50, with the sum over its
    passes of each loss, and Adam in place of Ranger. The Dice and the cross-entropy are those of a
    micro-batch, so that they depend on the division of a batch.

    Args:
        encoder: what learns.
        generator: frozen, in evaluation mode, on the batches' device; noise constant.
        labelled: images with masks, in batches as large as the unlabelled ones.
        perceptual: the distance P, or None for pixels and masks alone. Its weight is published for LPIPS;
            a `DiscriminatorDistance` is about ten times as large, see `SumOfDistances`.
        images: length of the training in unlabelled images seen.
        passes: of the encoder over every image; 1 as published.
        weights: of the terms.
        learning_rate: of both Adams; rises over the first twentieth, then falls to 0 as a cosine.
    """

    def __init__(
        self,
        encoder: LatentEncoder,
        generator: SemanticGenerator,
        labelled: Stream,
        *,
        perceptual: Distance | None,
        images: int,
        passes: int = 3,
        weights: EncoderWeights | None = None,
        learning_rate: float = 2e-3,
    ) -> None:
        self.encoder, self.generator, self.labelled = encoder, generator, labelled
        self.perceptual, self.passes, self.weights = perceptual, passes, weights or EncoderWeights()
        self.schedule = Schedule(learning_rate, images, warm_up=0.05)
        self._optimizers = {
            name: _clipped(Adam(encoder.parameters(), learning_rate, betas=(0.9, 0.99)), most)
            for name, most in LARGEST.items()
        }

    def modules(self) -> Mapping[str, nn.Module]:
        """The encoder."""
        return {"encoder": self.encoder}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Both Adams: "unlabelled" and "labelled"."""
        return self._optimizers

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimisers."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """A step on unlabelled images, then one on labelled ones; logs the last pass of each.

        Raises:
            ConfigError: the labelled images are not as many as the others, or have no masks.
        """
        pairs = pairs_at(self.labelled, images_seen, batch, minimise)
        told: dict[str, Tensor | float] = {}
        for name, some, passes in (
            ("unlabelled", batch, self._unlabelled),
            ("labelled", pairs, self._labelled),
        ):
            optimizer = self._optimizers[name]
            optimizer.param_groups[0]["lr"] = self.schedule.at(images_seen)
            losses = _losses(some, passes, minimise.parts, name, told)
            told[f"loss_{name}"] = minimise(losses, optimizer)
        return told

    def _unlabelled(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """The loss of each pass."""
        distance = self._distance(batch.image)
        for _, drawn in refinements(self.encoder, self.generator, batch.image, self.passes):
            far = distance(drawn)
            loss = unlabelled_loss(drawn, batch.image, far, self.weights)
            yield {"loss": loss, "mse": (drawn - batch.image).square().mean(), "perceptual": far.mean()}

    def _labelled(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """The loss of each pass, for images that have masks."""
        assert batch.mask is not None
        distance = self._distance(batch.image)
        for ws, _ in refinements(self.encoder, self.generator, batch.image, self.passes):
            drawn, logits = self.generator.pair(ws, "constant")
            loss = labelled_loss(drawn, batch.image, distance(drawn), logits, batch.mask, self.weights)
            said = logits.detach()
            masks = {"entropy": labelled_entropy(said, batch.mask), "dice": labelled_dice(said, batch.mask)}
            yield {"loss": loss, **masks}

    def _distance(self, image: Tensor) -> Callable[[Tensor], Tensor]:
        if self.perceptual is None:
            return lambda drawn: drawn.new_zeros(len(drawn))
        return self.perceptual.towards(image)


def _losses(
    batch: Batch,
    passes: Callable[[Batch], Iterator[dict[str, Tensor]]],
    parts: int,
    name: str,
    told: dict[str, Tensor | float],
) -> Iterator[Tensor]:
    """The losses of every micro-batch and pass; what else the last pass tells is added to `told`."""
    for part in range(parts):
        terms: dict[str, Tensor] = {}
        for terms in passes(batch.take(rows(len(batch), part, parts))):
            yield terms.pop("loss") / parts
        for term, value in terms.items():
            told[f"{name}_{term}"] = told.get(f"{name}_{term}", 0.0) + value.detach() / parts


def _clipped(optimizer: Adam, most: float) -> Adam:
    """The same, whose gradients are cut to length `most` before every step."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def cut(optimizer: Optimizer, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        nn.utils.clip_grad_norm_(weights, most)

    optimizer.register_step_pre_hook(cut)
    return optimizer
