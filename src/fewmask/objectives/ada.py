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
]

PUBLISHED: tuple[Operation, ...] = get_args(Operation)
"""The twelve operations of the paper's configuration "bgc"."""

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


def unchanged(count: int, like: Tensor) -> Draw:
    """A record that changes none of `count` images."""
    shifts = ("xint", "xfrac")
    return Draw(
        **{f.name: like.new_zeros((count, 2) if f.name in shifts else (count,)) for f in fields(Draw)}
    )


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
    """Apply `record` to (B, C, H, W); pure, and differentiable once with respect to the image."""
    channels, height, width = image.shape[1:]
    geometric = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "rotate_after", "xfrac")
    if any(bool(getattr(record, name).any()) for name in geometric):
        image = move(image, inverse_map(record, height, width))
    matrix, offset = colour_map(record, channels)
    if channels == 1:
        return torch.addcmul(offset[:, :, None, None], image, matrix[..., None])
    return torch.baddbmm(offset[:, :, None], matrix, image.flatten(2)).view_as(image)


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
        unknown = [name for name in operations if name not in PUBLISHED]
        if unknown:
            raise ConfigError(
                "unknown augmentation",
                where="operations",
                found=", ".join(unknown),
                expected=", ".join(PUBLISHED),
                mend="Correct the name or leave it out.",
            )
        if not (0 <= p <= p_max <= 1) or images < 1 or every < 1:
            raise ConfigError(
                "the augmentation's settings are out of range",
                where="ada",
                found=f"p={p}, p_max={p_max}, images={images}, every={every}",
                expected="0 <= p <= p_max <= 1, images and every at least 1",
                mend="Correct the setting.",
            )
        self.operations = tuple(operations)
        self.target, self.images, self.every, self.p_max = target, images, every, p_max
        self.p = p
        self._signs = 0.0
        self._count = 0

    def __call__(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, each operation with probability p."""
        if self.p == 0.0 or not self.operations:
            return image
        return apply(image, draw(len(image), self.p, self.operations, image))

    def observe(self, logits_real: Tensor, minibatch: int) -> None:
        """Learn from D(real) of minibatch number `minibatch` (B, 1); every few minibatches p takes a step."""
        self._signs += float(logits_real.detach().sign().sum())
        self._count += logits_real.numel()
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
