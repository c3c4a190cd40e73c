"""What methods that learn from unpaired domains share: the other domain's batch, shares of it, rates."""

from collections.abc import Iterator

from torch import Tensor
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch, Stream
from fewmask.objectives.minimise import Minimise, rows


def set_rate(lr: float, *optimizers: Optimizer) -> None:
    """Set the learning rate of every parameter."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


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
