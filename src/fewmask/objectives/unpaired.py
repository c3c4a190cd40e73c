"""What methods that learn from unpaired domains share: the other domain's batch, shares of it, rates."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch, Stream
from fewmask.objectives.minimise import Minimise, rows


@dataclass(frozen=True)
class Falling:
    """A learning rate that is constant, then falls linearly to 0 (Zhu et al. 2017, "CycleGAN", section 4)."""

    lr: float
    """At the beginning."""
    images: int
    """Images of the whole training."""
    falls_from: float = 0.5
    """Share of the training after which the rate falls; 1 to stay."""

    def at(self, images_seen: int) -> float:
        """The learning rate after `images_seen` images."""
        left = 1 - min(images_seen / max(self.images, 1), 1.0)
        share = 1 - self.falls_from
        return self.lr * min(left / share, 1.0) if share > 0 else self.lr

    def slow(self, images_seen: int, *optimizers: Optimizer) -> None:
        """Set the rate of every parameter."""
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.at(images_seen)


def batch_at(stream: Stream, first: int, like: Batch, minimise: Minimise) -> Batch:
    """This process's rows of the batch of `stream` that starts at image `first`, beside the batch `like`.

    Nothing is kept to resume: which images they are follows from `first`.

    Raises:
        ConfigError: `stream` has batches of another size.
    """
    wanted = len(like) * minimise.ranks
    if stream.batch_size != wanted:
        raise ConfigError(
            "domains must come in batches of one size",
            where=stream.name,
            found=f"{stream.batch_size} images",
            expected=f"{wanted}",
        )
    return stream.at(first, rank=minimise.rank, ranks=minimise.ranks, device=like.image.device)


def shares(minimise: Minimise, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of B rows, one micro-batch after the other: each with its rows of all of them."""
    for part in range(minimise.parts):
        mine = rows(len(tensors[0]), part, minimise.parts)
        yield tuple(tensor[mine] for tensor in tensors)


def own_rows(drawn: Tensor, minimise: Minimise) -> Tensor:
    """The rows of this process of what was drawn for the whole batch."""
    return drawn[rows(len(drawn), minimise.rank, minimise.ranks)]
