"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with limited data").

What the discriminator sees, real or generated, is changed by random operations, each with probability p. p
follows the discriminator: it rises while the sign of D(real) says that the real images are learned by heart.
Chance makes a plain record (`draw`), applying it is a pure function (`apply`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import Tensor

from fewmask.core.errors import ConfigError
from fewmask.objectives.ada_filter import BANDS, amplify
from fewmask.objectives.ada_geometry import move, rotation, scaling, translation

Operation = Literal[
    "xflip",
    "rotate90",
    "xint",
    "scale",
    "rotate",
    "aniso",
    "xfrac",
    "brightness",
    "contrast",
    "lumaflip",
    "hue",
    "saturation",
    "imgfilter",
    "cutout",
]

KNOWN: tuple[Operation, ...] = get_args(Operation)
"""Every operation that can be asked for."""

PUBLISHED: tuple[Operation, ...] = KNOWN[:12]
"""The twelve operations of the paper's configuration "bgc", which did best."""

ANATOMY: tuple[Operation, ...] = (
    "xint",
    "scale",
    "rotate",
    "aniso",
    "xfrac",
    "brightness",
    "contrast",
    "hue",
    "saturation",
)
"""Without mirroring, quarter turns and negatives: a chest has two sides, a film a black and a white."""

SEQUENCES: tuple[Operation, ...] = ANATOMY[:-2]
"""For channels that are sequences or windows, not colours: without hue and saturation, which mix them."""


@dataclass(frozen=True)
class Draw:
    """What happens to each of B images; all zeros is no change. Every field is (B,) float unless noted."""

    xflip: Tensor
    """0 or 1: mirror left and right."""
    rotate90: Tensor
    """Quarter turns, 0-3."""
    xint: Tensor
    """(B, 2): shift by this share of the width and height, rounded to whole pixels; +-0.125."""
    scale: Tensor
    """log2 of the magnification; standard deviation 0.2."""
    rotate: Tensor
    """Turn before stretching, radians; +-pi."""
    aniso: Tensor
    """log2 of the stretch along x and the shrinking along y; standard deviation 0.2."""
    rotate_after: Tensor
    """Turn after stretching, radians; +-pi."""
    xfrac: Tensor
    """(B, 2): shift by this share of the width and height; standard deviation 0.125."""
    brightness: Tensor
    """Added to the intensity; standard deviation 0.2."""
    contrast: Tensor
    """log2 of the intensity's factor; standard deviation 0.5."""
    lumaflip: Tensor
    """0 or 1: negate the mean over channels."""
    hue: Tensor
    """Turn of three channels about their mean, radians; +-pi."""
    saturation: Tensor
    """log2 of the factor on the channels' difference from their mean; standard deviation 1."""
    imgfilter: Tensor
    """(B, 4): log2 amplification of each frequency band; standard deviation 1."""
    cutout: Tensor
    """Side of a grey rectangle as a share of the width and height: 0 or 0.5."""
    cutout_centre: Tensor
    """(B, 2): where its middle lies, as a share of the width and height."""
    whole: "Draw | None" = None
    """The record of the whole minibatch when this is a part of it: images are padded alike in every part."""

    def rows(self, which: slice) -> "Draw":
        """The record of some of the images."""
        part = {name: getattr(self, name)[which] for name in _TENSORS}
        return Draw(**part, whole=self.whole or self)


_TENSORS = tuple(field.name for field in fields(Draw) if field.name != "whole")


def unchanged(count: int, like: Tensor) -> Draw:
    """A record that changes none of `count` images."""
    width = {"xint": 2, "xfrac": 2, "cutout_centre": 2, "imgfilter": BANDS}
    shape = {name: (count, width[name]) if name in width else (count,) for name in _TENSORS}
    return Draw(**{name: like.new_zeros(size) for name, size in shape.items()}, whole=None)


def draw(count: int, p: float, operations: Sequence[Operation], like: Tensor) -> Draw:
    """Draw for `count` images from torch's global generator.

    Args:
        count: how many images.
        p: probability of each operation, 0-1. The two turns happen with 1 - sqrt(1 - p) each, so that a turn
            happens with p (the paper's equation in appendix B).
        operations: which operations may happen.
        like: gives the numbers' type and device.
    """
    p_turn = 1 - math.sqrt(1 - p)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, dtype=like.dtype, device=like.device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, dtype=like.dtype, device=like.device)

    def sometimes(value: Tensor, probability: float) -> Tensor:
        happens = uniform() < probability
        return torch.where(happens if value.ndim == 1 else happens[:, None], value, 0.0)

    def bands() -> Tensor:
        return torch.stack([sometimes(normal(), p) for _ in range(BANDS)], dim=1)

    drawn = {
        "xflip": lambda: {"xflip": sometimes((uniform() * 2).floor(), p)},
        "rotate90": lambda: {"rotate90": sometimes((uniform() * 4).floor(), p)},
        "xint": lambda: {"xint": sometimes((uniform(2) * 2 - 1) * 0.125, p)},
        "scale": lambda: {"scale": sometimes(normal() * 0.2, p)},
        "rotate": lambda: {
            "rotate": sometimes((uniform() * 2 - 1) * math.pi, p_turn),
            "rotate_after": sometimes((uniform() * 2 - 1) * math.pi, p_turn),
        },
        "aniso": lambda: {"aniso": sometimes(normal() * 0.2, p)},
        "xfrac": lambda: {"xfrac": sometimes(normal(2) * 0.125, p)},
        "brightness": lambda: {"brightness": sometimes(normal() * 0.2, p)},
        "contrast": lambda: {"contrast": sometimes(normal() * 0.5, p)},
        "lumaflip": lambda: {"lumaflip": sometimes((uniform() * 2).floor(), p)},
        "hue": lambda: {"hue": sometimes((uniform() * 2 - 1) * math.pi, p)},
        "saturation": lambda: {"saturation": sometimes(normal(), p)},
        "imgfilter": lambda: {"imgfilter": bands()},
        "cutout": lambda: {"cutout": sometimes(uniform() * 0 + 0.5, p), "cutout_centre": uniform(2)},
    }
    values = dict(vars(unchanged(count, like)))
    for operation in operations:
        values.update(drawn[operation]())
    return Draw(**values)


def inverse_map(record: Draw, height: int, width: int) -> Tensor:
    """The geometric part as one map (B, 3, 3) from output to input, in pixels from the centre."""
    one = torch.ones_like(record.scale)
    grow, stretch = record.scale.exp2(), record.aniso.exp2()
    whole = record.xint
    steps = [
        scaling(1 - 2 * record.xflip, one),
        rotation(record.rotate90 * (math.pi / 2)),
        translation(-(whole[:, 0] * width).round(), -(whole[:, 1] * height).round()),
        scaling(1 / grow, 1 / grow),
        rotation(record.rotate),
        scaling(1 / stretch, stretch),
        rotation(record.rotate_after),
        translation(-record.xfrac[:, 0] * width, -record.xfrac[:, 1] * height),
    ]
    matrix = steps[0]
    for step in steps[1:]:
        matrix = matrix @ step
    return matrix


def colour_map(record: Draw, channels: int) -> tuple[Tensor, Tensor]:
    """The intensity part: matrix (B, C, C) and offset (B, C), y = matrix x + offset.

    The paper's axis of grey (1, 1, 1) / sqrt(3) becomes (1, ..., 1) / sqrt(C); hue needs three channels.
    """
    like = record.contrast
    eye = torch.eye(channels, dtype=like.dtype, device=like.device)
    grey = torch.full_like(eye, 1 / channels)
    factor = record.contrast.exp2()[:, None, None]
    matrix = factor * (eye - 2 * grey * record.lumaflip[:, None, None])
    if channels == 3:
        matrix = _turn_about_grey(record.hue) @ matrix
    if channels > 1:
        matrix = (grey + (eye - grey) * record.saturation.exp2()[:, None, None]) @ matrix
    return matrix, matrix.sum(dim=2) * record.brightness[:, None]


def apply(image: Tensor, record: Draw) -> Tensor:
    """Apply `record` to (B, C, H, W); pure, linear in the image up to the brightness, twice differentiable.

    Hue needs three channels and is left out for any other number, saturation needs two or more. What happens
    to an image does not depend on the others.
    """
    channels, height, width = image.shape[1:]
    if bool(_moved(record).any()):
        # An image that is not moved stays as it is, whether or not another one is.
        reached = None if record.whole is None else inverse_map(record.whole, height, width)
        moved = move(image, inverse_map(record, height, width), reached)
        image = torch.where(_moved(record)[:, None, None, None], moved, image)
    matrix, offset = colour_map(record, channels)
    if channels == 1:
        image = torch.addcmul(offset[:, :, None, None], image, matrix[..., None])
    else:
        image = torch.baddbmm(offset[:, :, None], matrix, image.flatten(2)).view_as(image)
    if bool(record.imgfilter.any()):
        image = amplify(image, record.imgfilter)
    return _cut_out(image, record) if bool(record.cutout.any()) else image


def _moved(record: Draw) -> Tensor:
    """Which images are moved at all; (B,) bool."""
    alone = ("xflip", "rotate90", "scale", "rotate", "aniso", "rotate_after")
    single = torch.stack([getattr(record, name) for name in alone], dim=1)
    return torch.cat([single, record.xint, record.xfrac], dim=1).ne(0).any(dim=1)


def _cut_out(image: Tensor, record: Draw) -> Tensor:
    """Zero, the middle grey, in a rectangle."""

    def away(size: int, axis: int) -> Tensor:
        place = (torch.arange(size, device=image.device) + 0.5) / size
        return (place - record.cutout_centre[:, axis, None]).abs() >= record.cutout[:, None] / 2

    keep = away(image.shape[3], 0)[:, None, :] | away(image.shape[2], 1)[:, :, None]
    return image * keep[:, None]


def _turn_about_grey(angle: Tensor) -> Tensor:
    """Rodrigues' rotation about (1, 1, 1) / sqrt(3), (B,) -> (B, 3, 3)."""
    v = 1 / math.sqrt(3)
    cross = angle.new_tensor([[0, -v, v], [v, 0, -v], [-v, v, 0]])
    grey, eye = angle.new_full((3, 3), 1 / 3), torch.eye(3, dtype=angle.dtype, device=angle.device)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return grey + (eye - grey) * cosine + cross * sine


class AdaptiveAugmentation:
    """The operations, and the probability p that follows the discriminator.

    Args:
        operations: which operations may happen, by name.
        target: the mean sign of D(real) that p is steered to (0.6 in the paper).
        images: p needs this many images to go from 0 to 1 (500 000 in the paper; less for short trainings).
        every: minibatches between two steps of p.
        p: where to begin.
        p_max: p never exceeds this. Above about 0.85 operations leak into generated images (figure 4).

    Raises:
        ConfigError: an operation, a probability or an interval that cannot be.
    """

    def __init__(
        self,
        operations: Sequence[Operation] = ANATOMY,
        *,
        target: float = 0.6,
        images: int = 500_000,
        every: int = 4,
        p: float = 0.0,
        p_max: float = 0.85,
    ) -> None:
        unknown = [name for name in operations if name not in KNOWN]
        if unknown:
            raise ConfigError(
                "unknown augmentation",
                where="operations",
                found=", ".join(unknown),
                expected=", ".join(KNOWN),
                mend="Correct the name or leave it out.",
            )
        if not (0 <= p <= p_max <= 1) or images < 1 or every < 1:
            raise ConfigError(
                "the augmentation's settings are out of range",
                where="ada (gan.ada_images, gan.ada_target)",
                found=f"p={p}, p_max={p_max}, images={images}, every={every}",
                expected="0 <= p <= p_max <= 1, images and every at least 1",
                mend="Correct the setting.",
            )
        self.operations = tuple(operations)
        self.target, self.images, self.every, self.p_max = target, images, every, p_max
        self.p = p
        self._signs = 0.0
        self._count = 0

    def draw(self, count: int, like: Tensor) -> Draw | None:
        """Draw for `count` images, each operation with probability p; None when nothing can happen."""
        if self.p == 0.0 or not self.operations:
            return None
        return draw(count, self.p, self.operations, like)

    def observe(self, sign: float, count: int, minibatch: int) -> None:
        """Learn from the mean sign of D(real), over all `count` images of minibatch number `minibatch`.

        With several processes or parts, `sign` is the mean over all of them, so that p is the same in each.
        Every few minibatches p takes a step.
        """
        self._signs += sign * count
        self._count += count
        if (minibatch + 1) % self.every == 0:
            up = 1.0 if self._signs / self._count > self.target else -1.0
            self.p = min(max(self.p + up * self._count / self.images, 0.0), self.p_max)
            self._signs, self._count = 0.0, 0

    def state(self) -> dict[str, float]:
        """The probability p and the sums since its last step."""
        return {"ada_p": self.p, "ada_signs": self._signs, "ada_count": float(self._count)}

    def load_state(self, state: Mapping[str, float]) -> None:
        """The inverse of `state`."""
        self.p = float(state["ada_p"])
        self._signs, self._count = float(state["ada_signs"]), int(state["ada_count"])
