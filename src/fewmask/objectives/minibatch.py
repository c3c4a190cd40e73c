"""How a GAN's minibatch is divided, and what a generator may learn beside its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks.generator import Noise
from fewmask.objectives.minimise import Minimise, rows


@dataclass(frozen=True)
class Part:
    """One micro-batch of one process: real images with labels, and which rows of the minibatch they are.

    pairs: as many real images with masks, where masks are learned.
    """

    real: Batch
    rows: slice
    pairs: Batch | None = None


@dataclass(frozen=True)
class Fake:
    """Generated images of one part, with the labels they were drawn for, and masks if any are drawn."""

    image: Tensor
    label: Tensor | None
    mask: Tensor | None = None


class Beside(Protocol):
    """What a generator learns beside its images, such as their masks (`objectives/semanticgan.py`)."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Its networks but for the generator, by name."""

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Their optimisers, by name."""

    def at(self, images_seen: int, batch: Batch, minimise: Minimise) -> Batch:
        """This process's labelled pairs of the minibatch that starts at image `images_seen`.

        Raises:
            ConfigError: they are not as many as `batch` or have no masks.
        """

    def draw(self, ws: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """From ws (B, num_ws, w_dim), an image and its mask."""

    def learn(
        self, parts: Sequence[Part], fakes: Sequence[Fake], minibatch: int, minimise: Minimise
    ) -> dict[str, Tensor]:
        """What comes between the discriminator's steps and the generator's; gives numbers to log."""

    def cost(self, part: Part, fake: Fake) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added to the generator's loss, a mean over the part, and detached numbers to log."""


def divide(batch: Batch, group: int, minimise: Minimise, pairs: Batch | None = None) -> list[Part]:
    """The micro-batches of this process.

    Args:
        batch: this process's rows of the minibatch.
        group: images that share one minibatch standard deviation; 0 for none.
        minimise: how many processes and micro-batches there are.
        pairs: as many labelled images, divided alike.

    Raises:
        ConfigError: the parts are no multiple of the group.
    """
    count, shares = len(batch) * minimise.ranks, minimise.ranks * minimise.parts
    whole = next((g for g in range(min(group, count), 0, -1) if count % g == 0), 1)
    if len(batch) % minimise.parts or (count // shares) % whole:
        raise ConfigError(
            "a part of the minibatch is no multiple of the discriminator's group",
            where="batch (gan.batch)",
            found=f"{count} images in {minimise.ranks} processes x {minimise.parts} micro-batches",
            expected=f"parts of a multiple of {whole} images",
            mend="Change the batch size (gan.batch), or use fewer micro-batches (gan.parts).",
        )
    found = []
    for number in range(minimise.parts):
        which = rows(len(batch), number, minimise.parts)
        mine = slice(minimise.rank + minimise.ranks * number, count, shares)
        found.append(Part(batch.take(which), mine, None if pairs is None else pairs.take(which)))
    return found
