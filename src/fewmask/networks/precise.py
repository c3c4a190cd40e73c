"""What stays float32 when a network computes in bfloat16.

bfloat16 keeps 8 bits of a number: enough for a convolution, whose rounding errors average out, too few for
latents and styles, for variances, and for sums that become an image or a logit. Weights are float32 always;
autocast makes a bfloat16 copy for each convolution.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def in_float32(forward: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Let a function of tensors compute in float32 within autocast; without autocast it is unchanged."""

    @functools.wraps(forward)
    def precise(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        kind = next((arg.device.type for arg in args if isinstance(arg, Tensor)), "cpu")
        if not torch.is_autocast_enabled(kind):
            return forward(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return forward(*[_widened(arg) for arg in args], **kwargs)  # type: ignore[arg-type]

    return precise


def _widened(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def exact_slopes(kind: str) -> AbstractContextManager[object]:
    """Where gradients are differentiated once more: float32 on a CPU, as configured elsewhere.

    With the tile instructions of newer processors (AMX) the second derivative of a bfloat16 convolution came
    out wrong, off by half in a small discriminator; first derivatives are as exact as bfloat16 is.
    """
    return torch.autocast(kind, enabled=False) if kind == "cpu" else nullcontext()
