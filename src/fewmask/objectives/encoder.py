"""Training an encoder to find the latents of images, against a frozen generator."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from fewmask.data.batches import Batch
from fewmask.networks.encoder import LatentEncoder
from fewmask.networks.stylegan2 import Generator
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.perceptual import Distance
from fewmask.objectives.segmentation import Schedule


class EncoderObjective:
    """Half of every batch is generated, with known latents; the other half is real, known by its pixels.

    latent_weight |E(G(w)) - w|^2 / spread^2 + pixel_weight MSE(G(E(x)), x) + perceptual_weight P(G(E(x)), x),
    the first as in Zhu et al. 2016 (equation 4 in latents), the others as in Richardson et al. 2021
    (equations 1-2). Real images may be augmented: the head will ask for augmented ones.

    Args:
        encoder: what learns.
        generator: frozen, in evaluation mode; noise constant.
        perceptual: the distance P, or None for pixels alone.
        images: length of the training in images seen.
        spread: root mean squared distance of latents to their mean.
        latent_weight: of the known latents.
        pixel_weight: of the mean squared error.
        perceptual_weight: of P.
        learning_rate: of Adam at the start; falls to 0 as a cosine.
    """

    def __init__(
        self,
        encoder: LatentEncoder,
        generator: Generator,
        *,
        perceptual: Distance | None,
        images: int,
        spread: float,
        latent_weight: float = 0.1,
        pixel_weight: float = 1.0,
        perceptual_weight: float = 0.1,
        learning_rate: float = 2e-3,
    ) -> None:
        self.encoder, self.generator, self.perceptual = encoder, generator.requires_grad_(False), perceptual
        self.spread, self.latent_weight = spread, latent_weight
        self.pixel_weight, self.perceptual_weight = pixel_weight, perceptual_weight
        self.schedule = Schedule(learning_rate, images)
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
        """One step on real images and as many generated ones."""
        self._optimizer.param_groups[0]["lr"] = self.schedule.at(images_seen)
        image = batch.image
        with torch.no_grad():
            z = torch.randn(len(image), self.generator.z_dim, device=image.device)
            known = self.generator.mapping(z)
            drawn = self.generator.synthesis(known, noise="constant")
        ws = self.encoder(torch.cat([drawn, image]))
        found, mine = ws.split(len(image))
        latent = (found - known).square().sum(dim=2).mean() / self.spread**2
        again: Tensor = self.generator.synthesis(mine, noise="constant")
        error = (again - image).square().mean()
        loss = self.latent_weight * latent + self.pixel_weight * error
        logged: dict[str, Tensor | float] = {"latent": latent.detach(), "mse": error.detach()}
        if self.perceptual is not None:
            far = self.perceptual.towards(image)(again).mean()
            loss = loss + self.perceptual_weight * far
            logged["perceptual"] = far.detach()
        minimise(loss, self._optimizer)
        return logged
