"""What SemanticGAN minimises beside StyleGAN2's loss, and the losses that find a real image's mask with it.

Li et al., CVPR 2021, "Semantic segmentation with generative models"; sums and weights as released with the
paper. The training is `StyleGANObjective(..., beside=MaskGame(...))`: the images of the unlabelled stream
train the discriminator of images, the labelled pairs of the game's own stream a discriminator of pairs.

One update: the discriminator of images; R1 on it when due; the discriminator of pairs; R1 on it when due;
the generator, from both; its path length when due, of the image alone; the average.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch, Stream
from fewmask.networks.generator import Noise
from fewmask.networks.semanticgan import Judged, MaskDiscriminator, SemanticGenerator
from fewmask.objectives.lazyadam import asleep, lazy_adam
from fewmask.objectives.minibatch import Fake, Part
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.regularise import Average, Regularisation, r1_penalty
from fewmask.objectives.segmentation import cross_entropy, targets_of

REGULARISATION = Regularisation(r1_gamma=10.0, r1_every=16, path_length_weight=2.0, path_length_every=4)
"""As published, for both discriminators and the generator."""

AVERAGING = Average(half_life=5000.0, ramp=None)
"""As published: 0.5^(32 / 10 000) is kept per update of 16 images."""

ENTROPY_TEMPERATURE = 0.1
"""Logits are divided by this before the softmax of the cross-entropy."""

SIGMOID_TEMPERATURE = 0.3
"""Logits are divided by this before a sigmoid: in the Dice loss, and in the entropy of one class."""


def encoded(mask: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """A real mask as the generator should draw it, (B, channels, H, W) in [-1, 1], and what was judged.

    Class numbers (B, H, W) become -1 and +1, of every class or, with one channel, of class 1. Where nobody
    judged (`IGNORE`) all channels are 0, half-way; a soft mask (B, K, H, W) lies in between. Neither network
    may learn from those zeros, so a generated mask is multiplied by the judged share (B, 1, H, W) in [0, 1]
    of the real one beside it before the discriminator sees it.
    """
    target, judged = targets_of(mask, max(channels, 2))
    if channels == 1:
        target = target[:, 1:]
    return 2 * target - judged, judged


def hinge_real(judged: Judged) -> Tensor:
    """The mean of max(0, 1 - D) over patches and pairs, then over scales (Lim & Ye 2017, "Geometric GAN")."""
    return torch.stack([F.relu(1 - one).mean() for one in judged.logits]).mean()


def hinge_fake(judged: Judged) -> Tensor:
    """The same of max(0, 1 + D)."""
    return torch.stack([F.relu(1 + one).mean() for one in judged.logits]).mean()


def hinge_generator(judged: Judged) -> Tensor:
    """The same of -D, which the generator minimises."""
    return -torch.stack([one.mean() for one in judged.logits]).mean()


def feature_matching(fake: Judged, real: Judged) -> Tensor:
    """Mean over scales of the sum over layers of mean |f(fake) - f(real)|.

    Wang et al. 2018, "pix2pixHD", equation 4; the features before the logits. Pair n of the one batch is
    compared with pair n of the other, although they show different things.
    """
    scales = [
        torch.stack([(a.float() - b.float()).abs().mean() for a, b in zip(ours, theirs, strict=True)]).sum()
        for ours, theirs in zip(fake.features, real.features, strict=True)
    ]
    return torch.stack(scales).mean()


def pairs_at(labelled: Stream, images_seen: int, batch: Batch, minimise: Minimise) -> Batch:
    """This process's labelled pairs; they follow from `images_seen`, so nothing is kept to resume.

    Raises:
        ConfigError: they are not as many as `batch` or have no masks.
    """
    if labelled.batch_size != len(batch) * minimise.ranks:
        raise ConfigError(
            "a minibatch needs as many labelled images as others",
            found=f"{labelled.batch_size} labelled, {len(batch) * minimise.ranks} others",
            expected="the same batch size of both streams",
        )
    ranks, device = minimise.ranks, batch.image.device
    pairs = labelled.at(images_seen, rank=minimise.rank, ranks=ranks, device=device)
    if pairs.mask is None:
        raise ConfigError("the labelled images have no masks", where=labelled.name)
    return pairs


class MaskGame:
    """Mask branch against the discriminator of pairs; the `Beside` of a `StyleGANObjective`.

    The discriminator judges generated images that are cut from the graph, so that its gradient reaches the
    generator through the mask alone: through the mask branch into the shared layers and styles, never
    through the pixels, lest a few labels distort the images.

    Args:
        generator: the objective's generator.
        discriminator: tells real pairs from drawn ones.
        labelled: images with masks, in batches as large as the unlabelled ones. A set smaller than a batch
            fills it by repetition; augmentation of pairs is the stream's.
        feature_weight: of `feature_matching`.
        regularisation: gives weight and interval of this discriminator's R1.
        lr: learning rate of its Adam before the correction for lazy regularisation.
        betas: Adam's betas before the same correction.

    Raises:
        ConfigError: the networks do not fit one another.
    """

    def __init__(
        self,
        generator: SemanticGenerator,
        discriminator: MaskDiscriminator,
        labelled: Stream,
        *,
        feature_weight: float = 2.0,
        regularisation: Regularisation = REGULARISATION,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.0, 0.99),
    ) -> None:
        ours = (generator.channels, generator.mask_channels)
        theirs = (discriminator.image_channels, discriminator.mask_channels)
        if ours != theirs:
            raise ConfigError(
                "generator and discriminator of masks do not fit",
                found=f"generator {ours}, discriminator {theirs}",
                expected="the same channels of (image, mask)",
                mend="Build both with the same numbers.",
            )
        self.generator, self.discriminator, self.labelled = generator, discriminator, labelled
        self.feature_weight, self.regularisation = feature_weight, regularisation
        self._parameters = list(discriminator.parameters())
        every = regularisation.r1_every if regularisation.r1_gamma else 0
        self._adam = lazy_adam(self._parameters, lr, betas, every)

    def modules(self) -> Mapping[str, nn.Module]:
        """The discriminator of pairs."""
        return {"mask_discriminator": self.discriminator}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Its Adam."""
        return {"mask_discriminator": self._adam}

    def at(self, images_seen: int, batch: Batch, minimise: Minimise) -> Batch:
        """See `pairs_at`."""
        return pairs_at(self.labelled, images_seen, batch, minimise)

    def draw(self, ws: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """From ws (B, num_ws, w_dim), an image and its mask."""
        return self.generator.pair(ws, noise)

    def learn(
        self, parts: Sequence[Part], fakes: Sequence[Fake], minibatch: int, minimise: Minimise
    ) -> dict[str, Tensor]:
        """A step of the discriminator down the mean of `hinge_real` and `hinge_fake`, and R1 when due."""
        seen: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for part, fake in zip(parts, fakes, strict=True):
                real, judged = self._real(part)
                drawn = self.discriminator(_beside(fake, judged).detach())
                true = self.discriminator(real)
                seen.append(torch.stack([one.score.detach().mean() for one in (true, drawn)]))
                yield (hinge_real(true) + hinge_fake(drawn)) / 2 / len(parts)

        loss = minimise(losses(), self._adam)
        self.discriminator.settle()
        means = torch.stack(seen).mean(dim=0)
        logged = {"loss_mask_d": loss, "logit_mask_real": means[0], "logit_mask_fake": means[1]}
        if self.regularisation.r1_gamma and minibatch % self.regularisation.r1_every == 0:
            logged["r1_mask"] = self._flatten(parts, minimise)
        return logged

    def cost(self, part: Part, fake: Fake) -> tuple[Tensor, dict[str, Tensor]]:
        """`hinge_generator` plus weighted `feature_matching`; the image is cut from the graph."""
        real, judged = self._real(part)
        with asleep(self._parameters):
            drawn = self.discriminator(_beside(fake, judged))
            with torch.no_grad():
                true = self.discriminator(real)
        fooled, matched = hinge_generator(drawn), feature_matching(drawn, true)
        numbers = {"loss_mask_g": fooled.detach(), "feature_matching": matched.detach()}
        return fooled + self.feature_weight * matched, numbers

    def _real(self, part: Part) -> tuple[Tensor, Tensor]:
        """Real images and masks side by side, and what was judged."""
        assert part.pairs is not None
        assert part.pairs.mask is not None
        mask, judged = encoded(part.pairs.mask, self.generator.mask_channels)
        return torch.cat([part.pairs.image, mask.to(part.pairs.image)], dim=1), judged

    def _flatten(self, parts: Sequence[Part], minimise: Minimise) -> Tensor:
        """R1 at image and mask together, for all the minibatches since the last time.

        As released with the paper: what is differentiated is not one number per pair, as for images, but the
        sum over scales of the mean over patches and pairs. The slope at one of B pairs is thus that of
        `Judged.score` times scales / B, and the penalty, a mean over pairs, (scales / B)^2 times as large:
        at 3 scales and 16 pairs a published gamma of 10 acts like 0.35 would on `Judged.score`.
        """
        lazy = self.regularisation
        weight = lazy.r1_gamma / 2 * lazy.r1_every
        share = len(self.discriminator.scales) / self.labelled.batch_size

        def score(pair: Tensor) -> Tensor:
            judged: Judged = self.discriminator(pair)
            return judged.score * share

        def losses() -> Iterator[Tensor]:
            for part in parts:
                yield r1_penalty(score, self._real(part)[0]) * (weight / len(parts))

        found = minimise(losses(), self._adam) / weight
        self.discriminator.settle()
        return found


def _beside(fake: Fake, judged: Tensor) -> Tensor:
    """A drawn image, cut from the graph, and its mask, hidden where the real one is unjudged."""
    assert fake.mask is not None
    return torch.cat([fake.image.detach(), fake.mask * judged.to(fake.mask)], dim=1)


def log_probabilities(logits: Tensor, temperature: float | None = None) -> Tensor:
    """The logarithms of the classes' probabilities (B, max(K, 2), H, W) in a drawn mask (B, K, H, W).

    Softmax of logits / temperature; for one channel the sigmoid, whose complement is the background's.
    `temperature`: None for the published 0.1, for one channel 0.3.
    """
    logits = logits.float()
    if logits.shape[1] > 1:
        return F.log_softmax(logits / (temperature or ENTROPY_TEMPERATURE), dim=1)
    sharp = logits / (temperature or SIGMOID_TEMPERATURE)
    return torch.cat([F.logsigmoid(-sharp), F.logsigmoid(sharp)], dim=1)


def labelled_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of drawn masks (B, K, H, W), averaged over judged pixels; masks as in `targets_of`.

    Softmax of logits / 0.1; for one channel the sigmoid of logits / 0.3.
    """
    target, _ = targets_of(mask, max(logits.shape[1], 2))
    return cross_entropy(log_probabilities(logits), target)


def labelled_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - mean_c 2 sum(p q) / (sum p^2 + sum q^2), over the judged pixels of the whole batch.

    Milletari et al. 2016, "V-Net", section 3, with p = sigmoid(logits / 0.3) of every class but the
    background, or of the one channel; masks as in `targets_of`. Of a class that is neither drawn nor marked
    anywhere nothing is asked.
    """
    target, judged = targets_of(mask, max(logits.shape[1], 2))
    p = torch.sigmoid(logits.float() / SIGMOID_TEMPERATURE) * judged
    p, q = p[:, -(target.shape[1] - 1) :], target[:, 1:]
    over = (0, 2, 3)
    tiny = 1e-7
    both, either = (p * q).sum(dim=over), (p.square() + q.square()).sum(dim=over)
    return 1 - ((2 * both + tiny) / (either + tiny)).mean()


@dataclass(frozen=True)
class EncoderWeights:
    """Of the terms that the encoder learns from while the generator is frozen, as published."""

    entropy: float = 1.0
    dice: float = 1.0
    pixels: float = 1.0
    perceptual: float = 10.0


def unlabelled_loss(
    drawn: Tensor, image: Tensor, distance: Tensor, weights: EncoderWeights | None = None
) -> Tensor:
    """Mean square error plus 10 perceptual distances: what an encoder is taught by any image.

    Args:
        drawn: G(E(image)), (B, C, H, W).
        image: (B, C, H, W) in [-1, 1].
        distance: perceptual distances between them, (B,); published LPIPS with VGG.
        weights: of the terms.
    """
    how = weights or EncoderWeights()
    return how.pixels * (drawn - image).square().mean() + how.perceptual * distance.mean()


def labelled_loss(
    drawn: Tensor,
    image: Tensor,
    distance: Tensor,
    logits: Tensor,
    mask: Tensor,
    weights: EncoderWeights | None = None,
) -> Tensor:
    """`unlabelled_loss` plus `labelled_entropy` and `labelled_dice` of the drawn mask (B, K, H, W)."""
    how = weights or EncoderWeights()
    masks = how.entropy * labelled_entropy(logits, mask) + how.dice * labelled_dice(logits, mask)
    return unlabelled_loss(drawn, image, distance, how) + masks


@dataclass(frozen=True)
class SearchWeights:
    """Of the terms that the search for an image's latents minimises; as published, from an encoder's."""

    perceptual: float = 1.0
    pixels: float = 0.1
    noise: float = 100.0
    encoder: float = 1e-3
    """How far the latents may go from what the encoder says of the drawn image."""
    start: float = 0.0
    """How far from where they began."""
    mean: float = 0.0
    """How far from the mean latent."""


FROM_MEAN = SearchWeights(encoder=0.0, mean=0.01)
"""As published, for a search that begins at the mean latent."""


@dataclass(frozen=True)
class Anchors:
    """Where latents (B, num_ws, w_dim) should stay near: each of that shape or one that broadcasts to it.

    encode: what the encoder says of drawn images; start: where the search began; mean: w_avg.
    """

    encode: Callable[[Tensor], Tensor] | None = None
    start: Tensor | None = None
    mean: Tensor | None = None


def search_terms(
    drawn: Tensor, image: Tensor, distance: Tensor, maps: Sequence[Tensor], ws: Tensor, anchors: Anchors
) -> dict[str, Tensor]:
    """The terms of the optimisation at test time, unweighted, by the names of `SearchWeights`; each (B,).

    Args:
        drawn: G(ws), (B, C, H, W).
        image: the real ones, (B, C, H, W).
        distance: perceptual distances between them, (B,).
        maps: noise maps (B, 1, s, s), if they are optimised too.
        ws: (B, num_ws, w_dim).
        anchors: a squared distance to each that is given, a mean over layers and entries; what the encoder
            says is taken as given, without a gradient through it. Both as released with the paper.
    """
    terms = {"perceptual": distance, "pixels": (drawn - image).square().mean(dim=(1, 2, 3))}
    if maps:
        terms["noise"] = noise_correlation(maps)
    encoded = None if anchors.encode is None else anchors.encode(drawn).detach()
    for name, anchor in (("encoder", encoded), ("start", anchors.start), ("mean", anchors.mean)):
        if anchor is not None:
            terms[name] = (ws - anchor).square().mean(dim=(1, 2))
    return terms


def search_loss(terms: Mapping[str, Tensor], weights: SearchWeights) -> Tensor:
    """The weighted sum of `search_terms`, (B,)."""
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum(dim=0)


def noise_correlation(maps: Sequence[Tensor], *, smallest: int = 8) -> Tensor:
    """How far from white noise maps (B, 1, s, s) are, (B,): Karras et al. 2020, "StyleGAN2", appendix D.

    As released with SemanticGAN, a halving averages 2 x 2 pixels and does not restore the variance, so that
    coarse correlations count less than in the paper (`inversion/noise.py` does as the paper says).
    """
    terms = []
    for noise in maps:
        while True:
            terms += [(noise * noise.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square() for axis in (2, 3)]
            if noise.shape[2] <= smallest:
                break
            noise = F.avg_pool2d(noise, 2)
    return torch.stack(terms).sum(dim=0)
