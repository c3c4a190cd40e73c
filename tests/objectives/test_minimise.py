"""How a batch is divided, and one step on it."""

import pytest
import torch

from fewmask.core.errors import ConfigError, TrainingError
from fewmask.objectives.minimise import Alone, rows


def test_shares_are_interleaved_and_complete() -> None:
    batch = torch.arange(12)
    shares = [batch[rows(12, rank, 3)] for rank in range(3)]
    assert shares[1].tolist() == [1, 4, 7, 10]
    assert sorted(torch.cat(shares).tolist()) == batch.tolist()
    with pytest.raises(ConfigError, match="12 images, 5 shares"):
        rows(12, 0, 5)


@pytest.mark.parametrize(("ranks", "parts"), [(1, 4), (2, 2), (4, 1)])
def test_groups_of_the_minibatch_deviation_do_not_depend_on_the_division(ranks: int, parts: int) -> None:
    """A group is (n, n + N/G, n + 2N/G, ...), by Karras's reshape to (G, N/G, ...)."""

    def groups(batch: torch.Tensor, size: int = 4) -> set[tuple[int, ...]]:
        return {tuple(group) for group in batch.view(size, -1).t().tolist()}

    batch = torch.arange(16)
    divided = set()
    for rank in range(ranks):
        mine = batch[rows(16, rank, ranks)]
        for part in range(parts):
            divided |= groups(mine[rows(len(mine), part, parts)])
    assert divided == groups(batch)


def test_micro_batches_give_the_step_of_one_batch_and_free_each_graph() -> None:
    x, alive = torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), []

    def step(parts: int) -> tuple[torch.Tensor, torch.Tensor]:
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        minimise = Alone(parts)

        def losses():
            for part in range(minimise.parts):
                loss = (x[rows(len(x), part, parts)] @ weight).square().mean() / parts
                alive.append(loss)
                yield loss

        return minimise(losses(), optimizer), weight.detach()

    whole, divided = step(1), step(4)
    torch.testing.assert_close(whole, divided, rtol=1e-6, atol=0)
    assert not whole[0].requires_grad
    with pytest.raises(RuntimeError, match="second time"):
        alive[-1].backward()


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(TrainingError, match="not a finite number"):
        Alone()((weight / 0).sum() * 0, torch.optim.SGD([weight], lr=0.1))
    assert weight.tolist() == [1, 1]
    with pytest.raises(ValueError, match="no loss"):
        Alone()([], torch.optim.SGD([weight], lr=0.1))
