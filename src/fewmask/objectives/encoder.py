"""Training an encoder to find the latents of images, against a frozen generator."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from fewmask.data.batches import Batch
from fewmask.networks.encoder import LatentEncoder, refinements
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.minimise import Minimise, rows
from fewmask.objectives.perceptual import Distance
from fewmask.objectives.segmentation import Schedule


@dataclass(frozen=True)
class EncoderWeights:
    """What the terms of `EncoderObjective` weigh."""

    latent: float = 0.1
    """Of the known latents of generated images."""
    pixel: float = 1.0
    """Of the mean squared error, of real and of generated images."""
    perceptual: float = 0.1
    """Of P, of real images."""


class EncoderObjective:
    """Half of every batch is generated, with known latents; the other half is real, known by its pixels.

    Each pass has latent |E(G(w)) - w|^2 / spread^2 + pixel MSE(G(E(x)), x), the last one also perceptual
    P(G(E(x)), x): the first as in Zhu et al. 2016, the others as in Richardson et al. 2021 (equations 1-2).
    All passes weigh the same, as in Alaluf et al. 2021. The known latents change at a random layer from one
    random latent to another: latents in W+ rather than in W, as real images need them.

    Args:
        encoder: what learns.
        generator: frozen, in evaluation mode, on the batches' device; noise constant.
        perceptual: the distance P, or None for pixels alone.
        images: length of the training in real images seen.
        passes: of the encoder over every image.
        weights: of the terms.
        learning_rate: of Adam; rises over the first twentieth, then falls to 0 as a cosine.
    """

    def __init__(
        self,
        encoder: LatentEncoder,
        generator: ImageGenerator,
        *,
        perceptual: Distance | None,
        images: int,
        passes: int = 3,
        weights: EncoderWeights | None = None,
        learning_rate: float = 2e-3,
    ) -> None:
        self.encoder, self.generator, self.perceptual = encoder, generator, perceptual
        self.passes, self.weights = passes, weights or EncoderWeights()
        self.schedule = Schedule(learning_rate, images, warm_up=0.05)
        self._optimizer = Adam(encoder.parameters(), learning_rate, betas=(0.9, 0.99))

    def modules(self) -> Mapping[str, nn.Module]:
        """The encoder."""
        return {"encoder": self.encoder}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Its Adam."""
        return {"encoder": self._optimizer}

    def state(self) -> Mapping[str, float]:
        """Nothing besides weights and optimiser."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Take back what `state` gave: nothing."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """One step on real images and as many generated ones, over all passes; logs the last pass."""
        self._optimizer.param_groups[0]["lr"] = self.schedule.at(images_seen)
        count, ranks, parts = len(batch), minimise.ranks, minimise.parts
        known = self._draw(count * ranks, batch.image)[rows(count * ranks, minimise.rank, ranks)]
        told: dict[str, Tensor | float] = {}

        def losses() -> Iterator[Tensor]:
            for part in range(parts):
                mine = rows(count, part, parts)
                terms: dict[str, Tensor] = {}
                for terms in self._passes(batch.image[mine], known[mine]):
                    yield terms.pop("loss") / parts
                for name, value in terms.items():
                    told[name] = told.get(name, 0.0) + value.detach() / parts

        told["loss"] = minimise(losses(), self._optimizer)
        return told

    def _passes(self, image: Tensor, known: Tensor) -> Iterator[dict[str, Tensor]]:
        """Each pass's terms and loss: real images (B, C, R, R), known latents (B, num_ws, w_dim)."""
        count, weights = len(image), self.weights
        with torch.no_grad():
            target = torch.cat([self.generator.synthesis(known, noise="constant"), image])
        distance = None if self.perceptual is None else self.perceptual.towards(image)
        unit = self.encoder.unit**2 * self.encoder.w_dim
        found = refinements(self.encoder, self.generator, target, self.passes)
        for number, (ws, seen) in enumerate(found, start=1):
            error = (seen - target).square().mean(dim=(1, 2, 3))
            latent = (ws[:count] - known).square().sum(dim=2).mean() / unit
            loss = weights.latent * latent + weights.pixel * error.mean()
            terms = {"latent": latent, "generated_mse": error[:count].mean(), "mse": error[count:].mean()}
            if distance is not None and number == self.passes:
                terms["perceptual"] = distance(seen[count:]).mean()
                loss = loss + weights.perceptual * terms["perceptual"]
            yield {**terms, "loss": loss}

    def _draw(self, count: int, like: Tensor) -> Tensor:
        """Random latents (count, num_ws, w_dim), of one z up to a random layer and of another beyond it."""
        generator, device = self.generator, like.device
        z = torch.randn(2 * count, generator.z_dim, device=device)
        cut = torch.randint(1, generator.num_ws + 1, (count, 1, 1)).to(device)
        label = None
        if generator.classes:
            drawn = torch.randint(generator.classes, (count,)).repeat(2)
            label = F.one_hot(drawn, generator.classes).to(like)
        with torch.no_grad():
            first, second = generator.mapping(z, label).split(count)
            layer = torch.arange(generator.num_ws, device=device)[:, None]
            mixed = torch.where(layer < cut, first, second)
            frame = self.encoder.frame_ws
            return torch.cat([self.encoder.centre.expand(count, frame, -1), mixed[:, frame:]], dim=1)
