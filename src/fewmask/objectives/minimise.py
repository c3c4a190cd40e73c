"""What the training loop hands to an objective's update."""

from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer

Minimise = Callable[[Tensor, Optimizer], None]
"""(loss, optimizer): zero the gradients, backward, average over processes, step."""
