"""What StyleGAN2 and StyleGAN3 minimise: the non-saturating logistic loss with lazy regularisation.

Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN"; Karras et al. 2021, "Alias-Free
Generative Adversarial Networks", which leaves out path lengths and mixed styles; adaptive augmentation as in
Karras et al. 2020, "Training GANs with limited data". Every interval is counted from the images seen, so
that nothing but weights, optimisers and `state()` is needed to resume. All chance is drawn for the whole
minibatch, and processes and micro-batches take their rows: its division changes nothing but rounding.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.precise import exact_slopes
from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.ada import AdaptiveAugmentation, Draw
from fewmask.objectives.alarms import spread
from fewmask.objectives.average import follow
from fewmask.objectives.latents import (
    Latents,
    draw_latents,
    noises,
    normal_rows,
    show_latents,
    styles,
)
from fewmask.objectives.lazyadam import asleep, lazy_adam
from fewmask.objectives.magnitudes import measured
from fewmask.objectives.minibatch import Beside, Fake, Part, divide
from fewmask.objectives.minimise import Minimise, rows
from fewmask.objectives.regularise import Average, FadingBlur, Regularisation, path_lengths, r1_penalty
from fewmask.objectives.sight import Sight

W_AVERAGE_KEEPS = 0.998
"""The old share in the mapping's running mean of w, once per minibatch, as published."""


FIRST = ("loss_d", "loss_g", "ada_p", "sign_real", "spread_fake", "spread_real")
"""What is shown while it trains."""


class StyleGANObjective:
    """Generator against discriminator; implements the training loop's `Objective`.

    Args:
        generator: learns to draw; StyleGAN2 or StyleGAN3.
        discriminator: learns to tell drawn from real.
        average: a copy of the generator; becomes its exponential average.
        batch: images in a minibatch, over all processes; at least 2.
        augment: adaptive augmentation of what the discriminator sees; None for none.
        regularisation: R1 and path length.
        averaging: half-life of the average.
        mixing: probability that two styles are mixed in an image (Karras et al. 2019, section 3.1).
        lr: learning rate of both Adams before the correction for lazy regularisation.
        lr_discriminator: the discriminator's, if it is another.
        betas: Adam's betas before the same correction.
        labels: (N, classes), labels of the training images, from which generated images take theirs.
        held_out: real images that are not trained on; the discriminator is asked about them whenever R1 is
            due, to tell whether it learns by heart.
        fading: blur of all that the discriminator sees, for StyleGAN3-R.
        freeze: blocks of the discriminator, from the image on, that do not learn (Mo et al. 2020, "Freeze the
            discriminator").
        reuse_fakes: the generator learns from the images that the discriminator was just shown, instead of
            from its own as published: cheaper, but the graphs of all micro-batches are kept.
        pictures: how many images `samples` draws.
        beside: what the generator learns beside its images, such as their masks.

    Raises:
        ConfigError: the networks do not fit one another, or a setting is out of range.
    """

    def __init__(
        self,
        generator: ImageGenerator,
        discriminator: Discriminator,
        average: ImageGenerator,
        *,
        batch: int,
        augment: AdaptiveAugmentation | None = None,
        regularisation: Regularisation | None = None,
        averaging: Average | None = None,
        mixing: float = 0.9,
        lr: float = 2e-3,
        lr_discriminator: float | None = None,
        betas: tuple[float, float] = (0.0, 0.99),
        labels: Tensor | None = None,
        held_out: Batch | None = None,
        fading: FadingBlur | None = None,
        freeze: int = 0,
        reuse_fakes: bool = False,
        pictures: int = 16,
        beside: Beside | None = None,
    ) -> None:
        _refuse_networks(generator, discriminator, batch, labels)
        self.generator, self.discriminator, self.average = generator, discriminator, average
        self.batch, self.augment, self.mixing, self.pictures = batch, augment, mixing, pictures
        self.regularisation, self.averaging = regularisation or Regularisation(), averaging or Average()
        self.labels, self.held_out, self.fading, self.reuse_fakes = labels, held_out, fading, reuse_fakes
        self.beside = beside
        average.load_state_dict(generator.state_dict())
        average.requires_grad_(False).eval()
        lazy = self.regularisation
        self._judging = _learning(discriminator, freeze)
        every_g = lazy.path_length_every if lazy.path_length_weight else 0
        every_d = lazy.r1_every if lazy.r1_gamma else 0
        self._adam_g = lazy_adam(list(generator.parameters()), lr, betas, every_g)
        self._adam_d = lazy_adam(self._judging, lr_discriminator or lr, betas, every_d)
        self._path_mean = 0.0

    def modules(self) -> dict[str, nn.Module]:
        """The networks, by name."""
        more = self.beside.modules() if self.beside is not None else {}
        ours = {"generator": self.generator, "discriminator": self.discriminator, "average": self.average}
        return {**ours, **more}

    def optimizers(self) -> dict[str, Optimizer]:
        """Both Adams, by name, and what is learned beside has its own."""
        more = self.beside.optimizers() if self.beside is not None else {}
        return {"generator": self._adam_g, "discriminator": self._adam_d, **more}

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
        """One minibatch: discriminator, R1 when due, generator, path length when due, average, ADA.

        Raises:
            ConfigError: the parts are no multiple of the discriminator's group, or labelled pairs do not fit.
        """
        minibatch, lazy = images_seen // self.batch, self.regularisation
        pairs = self.beside.at(images_seen, batch, minimise) if self.beside is not None else None
        parts = divide(batch, self.discriminator.group, minimise, pairs)
        sight = Sight(self.discriminator, self.augment, self.fading.at(images_seen) if self.fading else 0.0)
        fakes = self._draw_fakes(parts, batch.image, minimise)
        logged = self._learn_discriminator(parts, fakes, sight, minimise)
        if lazy.r1_gamma and minibatch % lazy.r1_every == 0:
            logged["r1"] = self._flatten(parts, sight, minimise)
            if self.held_out is not None:
                logged |= self._ask_about_unseen(parts, self.held_out, minibatch, sight)
        if self.beside is not None:
            logged |= self.beside.learn(parts, fakes, minibatch, minimise)
        logged |= self._learn_generator(parts, fakes, sight, minimise)
        if lazy.path_length_weight and minibatch % lazy.path_length_every == 0:
            logged["path_length"] = self._shorten_paths(batch.image, minimise)
        follow(self.average, self.generator, self.averaging.decay(images_seen + self.batch, self.batch))
        if self.augment is not None:
            logged["ada_p"] = self.augment.p
            sign = logged["sign_real"]
            assert isinstance(sign, Tensor)
            self.augment.observe(float(sign), self.batch, minibatch)
        return {name: logged[name] for name in FIRST if name in logged} | logged

    @torch.no_grad()
    def samples(self) -> Tensor:
        """The averaged generator's images of fixed latents, (pictures, C, H, W) in [-1, 1].

        With classes, picture n shows class n modulo their number.
        """
        latents = show_latents(self.average, self.pictures, 0)
        image: Tensor = self.average(latents.z[0], latents.label, noise="constant")
        return image.clamp(-1, 1)

    def _latents(self, count: int, like: Tensor) -> Latents:
        return draw_latents(self.generator, count, mixing=self.mixing, labels=self.labels, like=like)

    def _draw(self, latents: Latents) -> Fake:
        ws, noise = styles(self.generator, latents), noises(self.generator, latents)
        if self.beside is None:
            return Fake(self.generator.synthesis(ws, noise), latents.label)
        image, mask = self.beside.draw(ws, noise)
        return Fake(image, latents.label, mask)

    def _draw_fakes(self, parts: list[Part], like: Tensor, minimise: Minimise) -> list[Fake]:
        """Images for the discriminator; moves the running means of w and of magnitudes."""
        latents = self._latents(self.batch, like)
        with torch.no_grad():
            mine = latents.rows(rows(self.batch, minimise.rank, minimise.ranks))
            w = self.generator.mapping(mine.z[0], mine.label)[:, 0].mean(dim=0)
            average = self.generator.mapping.w_avg
            average.lerp_(minimise.mean(w.to(average)), 1 - W_AVERAGE_KEEPS)
        with measured(self.generator, minimise), torch.set_grad_enabled(self.reuse_fakes):
            return [self._draw(latents.rows(part.rows)) for part in parts]

    def _learn_discriminator(
        self, parts: list[Part], fakes: list[Fake], sight: Sight, minimise: Minimise
    ) -> dict[str, Tensor | float]:
        """softplus(D(G(z))) + softplus(-D(x)): Goodfellow et al. 2014, equation 1, in logits."""
        like = fakes[0].image.detach()
        of_fake, of_real = (sight.chance(self.batch, like) for _ in range(2))
        seen: list[dict[str, Tensor]] = []

        def losses() -> Iterator[Tensor]:
            for part, fake in zip(parts, fakes, strict=True):
                logits = sight(fake.image.detach(), fake.label, _rows(of_fake, part))
                seen.append(_told("fake", logits) | {"spread_fake": spread(fake.image)})
                yield F.softplus(logits).mean() / len(parts)
                logits = sight(part.real.image, part.real.label, _rows(of_real, part))
                seen.append(_told("real", logits) | {"spread_real": spread(part.real.image)})
                yield F.softplus(-logits).mean() / len(parts)

        loss = minimise(losses(), self._adam_d)
        means = _means(seen)
        return {"loss_d": loss, **means, "sign_real": minimise.mean(means["sign_real"])}

    def _flatten(self, parts: list[Part], sight: Sight, minimise: Minimise) -> Tensor:
        """R1, for all the minibatches since the last time."""
        lazy = self.regularisation
        record = sight.chance(self.batch, parts[0].real.image)
        weight = lazy.r1_gamma / 2 * lazy.r1_every

        def losses() -> Iterator[Tensor]:
            for part in parts:
                mine, label = _rows(record, part), part.real.label
                judge = partial(sight, label=label, record=mine)
                yield r1_penalty(judge, part.real.image) * (weight / len(parts))

        return minimise(losses(), self._adam_d) / weight

    @torch.no_grad()
    def _ask_about_unseen(
        self, parts: list[Part], unseen: Batch, minibatch: int, sight: Sight
    ) -> dict[str, Tensor]:
        """What the discriminator says of real images that it does not learn from."""
        first = minibatch // self.regularisation.r1_every * self.batch
        chosen = (first + torch.arange(self.batch)) % len(unseen)
        record = sight.chance(self.batch, parts[0].real.image)
        told = []
        for part in parts:
            mine = chosen[part.rows].to(unseen.image.device)
            image = unseen.image[mine].to(part.real.image)
            label = None if unseen.label is None else unseen.label[mine].to(image)
            told.append(_told("held_out", sight(image, label, _rows(record, part))))
        return _means(told)

    def _learn_generator(
        self, parts: list[Part], fakes: list[Fake], sight: Sight, minimise: Minimise
    ) -> dict[str, Tensor | float]:
        """softplus(-D(G(z))), the non-saturating loss (Goodfellow et al. 2014, section 3), and more."""
        like = fakes[0].image.detach()
        latents = None if self.reuse_fakes else self._latents(self.batch, like)
        record = sight.chance(self.batch, like)
        told: list[dict[str, Tensor]] = []

        def losses() -> Iterator[Tensor]:
            for number, part in enumerate(parts):
                fake = fakes[number] if latents is None else self._draw(latents.rows(part.rows))
                loss = F.softplus(-sight(fake.image, fake.label, _rows(record, part))).mean()
                if self.beside is not None:
                    more, numbers = self.beside.cost(part, fake)
                    loss = loss + more
                    told.append(numbers)
                yield loss / len(parts)

        with asleep(self._judging):
            loss = minimise(losses(), self._adam_g)
        return {"loss_g": loss, **_means(told)}

    def _shorten_paths(self, like: Tensor, minimise: Minimise) -> Tensor:
        """(|J^T y| - a)^2 with a the running mean of |J^T y| so far (equation 4), on half a minibatch."""
        lazy = self.regularisation
        count = max(1, self.batch // 2)
        parts = next((m for m in range(minimise.parts, 0, -1) if count % (m * minimise.ranks) == 0), None)
        if parts is None:
            raise _odd_half(self.batch, minimise.ranks)
        latents, found = self._latents(count, like), []

        def losses(shares: int) -> Iterator[Tensor]:
            for number in range(shares):
                every = minimise.ranks * shares
                some = latents.rows(slice(minimise.rank + minimise.ranks * number, count, every))
                ws = styles(self.generator, some)
                with exact_slopes(ws.device.type):
                    image = self.generator.synthesis(ws, noises(self.generator, some))
                noise = normal_rows(some.seeds, "path length", image[0].numel(), image.detach())
                lengths = path_lengths(image, ws, noise.view_as(image))
                found.append(lengths.detach().mean())
                weight = lazy.path_length_weight * lazy.path_length_every / shares
                yield (lengths - self._path_mean).square().mean() * weight

        minimise(losses(parts), self._adam_g)
        mean = minimise.mean(torch.stack(found).mean())
        self._path_mean += lazy.path_length_decay * (float(mean) - self._path_mean)
        return mean


def _rows(record: Draw | None, part: Part) -> Draw | None:
    return None if record is None else record.rows(part.rows)


def _means(told: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every number over the dictionaries that hold it."""
    names = dict.fromkeys(name for one in told for name in one)
    return {name: torch.stack([one[name] for one in told if name in one]).mean() for name in names}


def _told(name: str, logits: Tensor) -> dict[str, Tensor]:
    """The mean logit, and the mean of its sign."""
    logits = logits.detach().float()
    return {f"sign_{name}": logits.sign().mean(), f"logit_{name}": logits.mean()}


def _learning(discriminator: Discriminator, freeze: int) -> list[nn.Parameter]:
    """The discriminator's parameters that learn: all but those of the first `freeze` blocks."""
    blocks = list(discriminator.blocks)
    if not 0 <= freeze <= len(blocks):
        raise ConfigError(
            "the discriminator has not so many blocks to freeze",
            where="freeze (gan.freeze_d)",
            found=str(freeze),
            expected=f"0 to {len(blocks)}",
            mend="Lower it; 0 freezes none.",
        )
    discriminator.requires_grad_(True)
    for module in [discriminator.from_image, *blocks[:freeze]] if freeze else []:
        module.requires_grad_(False)
    return [parameter for parameter in discriminator.parameters() if parameter.requires_grad]


def _odd_half(batch: int, ranks: int) -> ConfigError:
    return ConfigError(
        "half a minibatch, for path lengths, cannot be divided among the processes",
        where="batch (gan.batch)",
        found=f"{batch} images, {ranks} processes",
        expected=f"a multiple of {2 * ranks}",
        mend="Change the batch size, or set the path length's weight (gan.path_length) to 0.",
    )


def _refuse_networks(
    generator: ImageGenerator, discriminator: Discriminator, batch: int, labels: Tensor | None
) -> None:
    ours = (generator.resolution, generator.channels, generator.classes)
    theirs = (discriminator.resolution, discriminator.channels, discriminator.classes)
    if ours != theirs:
        raise ConfigError(
            "generator and discriminator do not fit",
            found=f"generator {ours}, discriminator {theirs}",
            expected="the same (resolution, channels, classes)",
            mend="Build both with the same numbers.",
        )
    found = 0 if labels is None else labels.shape[1]
    if found != generator.classes:
        raise ConfigError(
            "the class labels do not fit the networks",
            where="labels",
            found=f"{found} classes",
            expected=f"{generator.classes} classes",
            mend="Give labels (N, classes), one-hot, exactly when the networks have classes.",
        )
    if batch < 2:
        raise ConfigError(
            "a minibatch of one image cannot train this objective",
            where="batch (gan.batch)",
            found=str(batch),
            expected="2 or more",
            mend="Raise the batch size; 8 or 16 works well.",
        )
