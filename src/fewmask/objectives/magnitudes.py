"""The running magnitudes of StyleGAN3's activations, measured over a whole minibatch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewmask.networks.generator import ImageGenerator
from fewmask.networks.stylegan3 import AliasFreeLayer
from fewmask.objectives.minimise import Minimise


@contextmanager
def measured(generator: ImageGenerator, minimise: Minimise) -> Iterator[None]:
    """Measure the magnitudes of what is drawn inside, and move the running ones once at the end.

    Published, a layer moves its magnitude before it uses it. Here that happens after all micro-batches, by
    the mean over them and over the processes, so that the division of the minibatch does not matter. Does
    nothing for a generator without magnitudes (StyleGAN2).
    """
    layers = [module for module in generator.modules() if isinstance(module, AliasFreeLayer)]
    if not layers:
        yield
        return
    sums: list[Tensor | None] = [None] * len(layers)
    counts = [0] * len(layers)

    def watch(number: int) -> Any:
        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            now = inputs[0].detach().float().square().mean()
            last = sums[number]
            sums[number] = now if last is None else last + now
            counts[number] += 1

        return before

    handles = [layer.register_forward_pre_hook(watch(n)) for n, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    means = torch.stack([s / n for s, n in zip(sums, counts, strict=True) if s is not None])
    for layer, now in zip(layers, minimise.mean(means).unbind(), strict=True):
        layer.magnitude_ema.lerp_(now, 1 - layer.beta)
