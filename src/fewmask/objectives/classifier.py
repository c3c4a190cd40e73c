"""What a classifier of whole images minimises: cross-entropy."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks.classifier import Classifier
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.segmentation import Schedule
from fewmask.objectives.unpaired import shares


class ClassifierObjective:
    """Cross-entropy of the labels of a batch.

    Args:
        network: learns.
        images: length of the training in images seen.
        lr: of AdamW; rises over the first twentieth, then falls to 0 as a cosine.
        weight_decay: of AdamW.
    """

    def __init__(
        self,
        network: Classifier,
        *,
        images: int,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        self.network = network
        self.schedule = Schedule(lr, images, warm_up=0.05)
        self._optimizer = AdamW(network.parameters(), lr, weight_decay=weight_decay)

    def modules(self) -> Mapping[str, Classifier]:
        """The network."""
        return {"network": self.network}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Its AdamW."""
        return {"network": self._optimizer}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimiser."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step; logs the loss, and the share of images whose class is the likeliest.

        Raises:
            ConfigError: the images have no labels.
        """
        truth = batch.label
        if truth is None:
            raise ConfigError("a classifier learns from labels, and this batch has none")
        self._optimizer.param_groups[0]["lr"] = self.schedule.at(images_seen)
        right: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for image, label in shares(minimise, batch.image, truth):
                logits = self.network(image)
                right.append((logits.detach().argmax(dim=1) == label.argmax(dim=1)).float().mean())
                yield F.cross_entropy(logits, label) / minimise.parts

        self.network.train()
        return {"loss": minimise(losses(), self._optimizer), "accuracy": torch.stack(right).mean()}
