"""Where a generator works, and working there without gradients of its weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def device_of(network: nn.Module) -> torch.device:
    """The device that the network's weights are on."""
    return next(network.parameters()).device


def on_device(array: NDArray[np.floating], network: nn.Module) -> Tensor:
    """A 32-bit copy of `array` beside the network's weights."""
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C")).to(device_of(network))


@contextmanager
def without_gradients(network: nn.Module) -> Iterator[None]:
    """While the block runs no weight asks for a gradient, which spares the memory of one."""
    asking = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
