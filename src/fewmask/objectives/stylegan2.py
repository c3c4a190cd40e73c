"""What StyleGAN2 minimises: the non-saturating logistic loss with lazy regularisation.

Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN"; adaptive augmentation as in
Karras et al. 2020, "Training GANs with limited data". Every interval is counted from the images seen, so that
nothing but weights, optimisers and `state()` is needed to resume.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from fewmask.core.errors import ConfigError
from fewmask.core.seed import integer
from fewmask.data.batches import Batch
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.average import follow, share_kept
from fewmask.objectives.minimise import Minimise


@dataclass(frozen=True)
class Regularisation:
    """R1 on the discriminator, path length on the generator, each once in a while ("lazy", section 3.1)."""

    r1_gamma: float = 1.0
    """Weight of R1 (Mescheder et al. 2018, equation 9); about 0.0002 resolution^2 / batch, more is safer."""
    r1_every: int = 16
    """Minibatches from one R1 step to the next."""
    path_length_weight: float = 0.0
    """Weight of the path length penalty (equation 4): 0 to leave it out, 2 as published."""
    path_length_every: int = 4
    """Minibatches from one path length step to the next."""
    path_length_decay: float = 0.01
    """Share of the newest lengths in their running mean."""


@dataclass(frozen=True)
class Average:
    """The exponential average of the generator's weights, from which images are drawn afterwards."""

    half_life: float = 10_000.0
    """Images after which a weight's share has halved."""
    ramp: float = 0.05
    """The half-life is at most this share of the images seen, so that early weights are soon forgotten."""

    def decay(self, images_seen: int, batch: int) -> float:
        """The old average's share in the new one."""
        return share_kept(batch, min(self.half_life, images_seen * self.ramp))


def r1_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """Mean over images of |grad D(x)|^2 (Mescheder et al. 2018, equation 9, without gamma / 2)."""
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(image: Tensor, ws: Tensor) -> Tensor:
    """|J^T y| per image with y ~ N(0, I) / sqrt(pixels), root mean square over layers (equation 4); (B,)."""
    y = torch.randn_like(image) / (image.shape[2] * image.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((image * y).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def spread(image: Tensor) -> Tensor:
    """Root mean square difference of two images of a batch, averaged over pairs; near 0 when collapsed."""
    flat = image.detach().flatten(1)
    distance: Tensor = torch.pdist(flat)
    return distance.mean() / math.sqrt(flat.shape[1])


class StyleGAN2Objective:
    """Generator against discriminator; implements the training loop's `Objective`.

    Args:
        generator: learns to draw.
        discriminator: learns to tell drawn from real.
        average: a copy of the generator; becomes its exponential average.
        batch: images in a minibatch, over all processes; at least 2.
        augment: adaptive augmentation of what the discriminator sees; None for none.
        regularisation: R1 and path length.
        averaging: half-life of the average.
        mixing: probability that two styles are mixed in an image (Karras et al. 2019, section 3.1).
        lr: learning rate of both Adams before the correction for lazy regularisation.
        betas: Adam's betas before the same correction.
        pictures: how many images `samples` draws.

    Raises:
        ConfigError: the networks do not fit one another, or a setting is out of range.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        average: Generator,
        *,
        batch: int,
        augment: AdaptiveAugmentation | None = None,
        regularisation: Regularisation | None = None,
        averaging: Average | None = None,
        mixing: float = 0.9,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.0, 0.99),
        pictures: int = 16,
    ) -> None:
        _refuse_networks(generator, discriminator, batch)
        self.generator, self.discriminator, self.average = generator, discriminator, average
        self.batch, self.augment, self.mixing, self.pictures = batch, augment, mixing, pictures
        self.regularisation = regularisation or Regularisation()
        self.averaging = averaging or Average()
        average.load_state_dict(generator.state_dict())
        average.requires_grad_(False).eval()
        lazy = self.regularisation
        self._adam_g = _adam(generator, lr, betas, lazy.path_length_every if lazy.path_length_weight else 0)
        self._adam_d = _adam(discriminator, lr, betas, lazy.r1_every if lazy.r1_gamma else 0)
        self._path_mean = 0.0

    def modules(self) -> dict[str, nn.Module]:
        """The networks, by name."""
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average}

    def optimizers(self) -> dict[str, Optimizer]:
        """Both Adams, by name."""
        return {"generator": self._adam_g, "discriminator": self._adam_d}

    def state(self) -> dict[str, float]:
        """ADA's p and sums, and the running mean of path lengths."""
        ada = self.augment.state() if self.augment is not None else {}
        return {"path_length_mean": self._path_mean, **ada}

    def load_state(self, state: Mapping[str, float]) -> None:
        """The inverse of `state`."""
        self._path_mean = float(state["path_length_mean"])
        if self.augment is not None:
            self.augment.load_state(state)

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> dict[str, Tensor | float]:
        """One minibatch: discriminator, R1 when due, generator, path length when due, average, ADA."""
        minibatch, lazy = images_seen // self.batch, self.regularisation
        # One drawing serves both networks: the generator learns from the images just told from real ones.
        ws = self._styles(len(batch), batch.image, update_average=True)
        fake = self.generator.synthesis(ws)
        logged, logits_real = self._learn_discriminator(batch.image, fake.detach(), minimise)
        if lazy.r1_gamma and minibatch % lazy.r1_every == 0:
            penalty = r1_penalty(self.discriminator, self._seen(batch.image))
            minimise(penalty * (lazy.r1_gamma / 2 * lazy.r1_every), self._adam_d)
            logged["r1"] = penalty.detach()
        logged["loss_g"] = self._learn_generator(fake, minimise)
        if lazy.path_length_weight and minibatch % lazy.path_length_every == 0:
            logged["path_length"] = self._shorten_paths(max(1, len(batch) // 2), minimise)
        follow(self.average, self.generator, self.averaging.decay(images_seen + self.batch, self.batch))
        if self.augment is not None:
            logged["ada_p"] = self.augment.p
            self.augment.observe(logits_real, minibatch)
        return logged

    @torch.no_grad()
    def samples(self) -> Tensor:
        """The averaged generator's images of fixed latents, (pictures, C, H, W) in [-1, 1]."""
        like = next(self.average.parameters())
        chance = torch.Generator().manual_seed(integer(0, "stylegan2", "samples"))
        z = torch.randn(self.pictures, self.average.z_dim, generator=chance).to(like)
        image: Tensor = self.average(z, noise="constant")
        return image.clamp(-1, 1)

    def _learn_discriminator(
        self, real: Tensor, fake: Tensor, minimise: Minimise
    ) -> tuple[dict[str, Tensor | float], Tensor]:
        """softplus(D(G(z))) + softplus(-D(x)): Goodfellow et al. 2014, equation 1, in logits."""
        logits_fake = self.discriminator(self._seen(fake))
        logits_real = self.discriminator(self._seen(real))
        loss = F.softplus(logits_fake).mean() + F.softplus(-logits_real).mean()
        minimise(loss, self._adam_d)
        logged: dict[str, Tensor | float] = {
            "loss_d": loss.detach(),
            "sign_real": logits_real.detach().sign().mean(),
            "sign_fake": logits_fake.detach().sign().mean(),
            "spread_real": spread(real),
            "spread_fake": spread(fake),
        }
        return logged, logits_real

    def _learn_generator(self, fake: Tensor, minimise: Minimise) -> Tensor:
        """softplus(-D(G(z))), the non-saturating loss (Goodfellow et al. 2014, section 3)."""
        self.discriminator.requires_grad_(False)
        loss = F.softplus(-self.discriminator(self._seen(fake))).mean()
        minimise(loss, self._adam_g)
        self.discriminator.requires_grad_(True)
        return loss.detach()

    def _shorten_paths(self, count: int, minimise: Minimise) -> Tensor:
        """(|J^T y| - a)^2 with a the running mean of |J^T y| (equation 4)."""
        lazy = self.regularisation
        ws = self._styles(count, next(self.generator.parameters()))
        lengths = path_lengths(self.generator.synthesis(ws), ws)
        mean = float(lengths.detach().mean())
        self._path_mean += lazy.path_length_decay * (mean - self._path_mean)
        penalty = (lengths - self._path_mean).square().mean()
        minimise(penalty * (lazy.path_length_weight * lazy.path_length_every), self._adam_g)
        return lengths.detach().mean()

    def _styles(self, count: int, like: Tensor, *, update_average: bool = False) -> Tensor:
        """Styles (count, num_ws, w_dim); from a random layer on, with probability `mixing`, of a second z."""
        mapping, num_ws = self.generator.mapping, self.generator.num_ws
        z = torch.randn(2, count, self.generator.z_dim, dtype=like.dtype, device=like.device)
        ws: Tensor = mapping(z[0], update_average=update_average)
        if float(torch.rand(())) < self.mixing:
            cut = int(torch.randint(1, num_ws, ()))
            ws = torch.cat([ws[:, :cut], mapping(z[1])[:, cut:]], dim=1)
        return ws

    def _seen(self, image: Tensor) -> Tensor:
        return image if self.augment is None else self.augment(image)


def _adam(module: nn.Module, lr: float, betas: tuple[float, float], every: int) -> Adam:
    """Adam, slowed by c = k / (k + 1) when every k-th minibatch takes a second step (section 3.1)."""
    c = every / (every + 1) if every else 1.0
    return Adam(module.parameters(), lr=lr * c, betas=(betas[0] ** c, betas[1] ** c), eps=1e-8, fused=True)


def _refuse_networks(generator: Generator, discriminator: Discriminator, batch: int) -> None:
    ours = (generator.resolution, generator.channels)
    theirs = (discriminator.resolution, discriminator.channels)
    if ours != theirs:
        raise ConfigError(
            "generator and discriminator do not fit",
            found=f"generator {ours}, discriminator {theirs}",
            expected="the same (resolution, channels)",
            mend="Build both with the same numbers.",
        )
    if generator.classes or discriminator.classes:
        raise ConfigError(
            "training on class labels is not built yet",
            found=f"classes={max(generator.classes, discriminator.classes)}",
            expected="classes=0",
            mend="Train without classes.",
        )
    if batch < 2:
        raise ConfigError(
            "a minibatch of one image cannot train this objective",
            where="batch",
            found=str(batch),
            expected="2 or more",
            mend="Raise the batch size; 8 or 16 works well.",
        )
