"""What can go wrong while two translators train, told from the numbers that are logged, by rules in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewmask.objectives.alarms import NOT_FINITE, Alarm, Check, Line, not_finite, ring

GREY = 2 / 255
"""One of 256 grey levels on the scale of [-1, 1]."""

EDGE = 0.99
"""Beyond it a pixel is black or white."""

DIVERGENCE, SATURATION, STEGANOGRAPHY = "divergence", "saturation", "steganography"

Translate = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CycleRules:
    """When an alarm rings; reports are the lines of a training's log."""

    images: int
    """Length of the training in images."""
    grace: float = 0.1
    """The first share of the training, in which no alarm rings but that of numbers that are none."""
    reports: int = 3
    """So many reports in a row must break a rule."""
    most_growth: float = 2.0
    """Divergence: the translators' loss is more than this many times its lowest so far."""
    most_saturated: float = 0.5
    """Saturation: this share of what is grey in real images is black or white in generated ones."""
    most_hidden: float = 1.5
    """Steganography: `hidden` above this."""


def saturation(fake: Tensor, real: Tensor) -> Tensor:
    """Share of black or white pixels beyond that of real images, of what is grey there: a scalar, 0 to 1."""
    made, usual = ((image.detach().abs() > EDGE).float().mean() for image in (fake, real))
    return ((made - usual) / (1 - usual).clamp(min=1e-6)).clamp(min=0)


@torch.no_grad()
def hiding(there: Translate, back: Translate, images: Tensor, noise: Tensor) -> dict[str, float]:
    """Whether an image's translation hides what the way back needs, in traces too faint to see.

    Chu et al. 2017, "CycleGAN, a master of steganography". The cycle error |back(there(x)) - x| is taken
    as it is, with the image in between rounded to 256 grey levels, and with noise of one grey level.

    Args:
        there: translates (B, C, H, W) in [-1, 1].
        back: translates back.
        images: (B, C, H, W).
        noise: standard normal numbers of the translation's shape.

    Returns:
        "cycle_plain", "cycle_rounded", "cycle_noisy": the errors; "hidden": the larger of the last two, less
        twice the mean size of its own disturbance, over the first. About 1 or less of an honest translation.
    """
    between = there(images)
    plain = float((back(between) - images).abs().mean())
    found = {"cycle_plain": plain}
    hidden = 0.0
    rounded = ((between.clamp(-1, 1) + 1) / GREY).round() * GREY - 1
    for name, changed in (("cycle_rounded", rounded), ("cycle_noisy", between + GREY * noise.to(between))):
        error = float((back(changed) - images).abs().mean())
        disturbance = float((changed - between).abs().mean())
        found[name] = error
        hidden = max(hidden, (error - 2 * disturbance) / max(plain, 1e-6))
    return found | {"hidden": hidden}


def cycle_alarms(lines: Sequence[Line], rules: CycleRules) -> list[Alarm]:
    """The alarms that rang in a training, in order, each kind once.

    Args:
        lines: the log's reports, with "images" and the columns of `CycleGANObjective` and `hiding`.
        rules: when to ring.
    """
    grown = _growth(lines)
    patience = f"(rings after {rules.reports} reports in a row, not in the first {rules.grace:.0%})"
    checks: Sequence[Check] = (
        (
            DIVERGENCE,
            lambda line: grown.get(line["images"]),
            lambda value: value > rules.most_growth,
            f"the translators' loss should stay below {rules.most_growth:g} times its lowest {patience}",
        ),
        (
            SATURATION,
            _most_saturated,
            lambda value: value > rules.most_saturated,
            f"of what is grey in real images at most {rules.most_saturated:.0%} may be black or white in "
            f"generated ones {patience}",
        ),
        (
            STEGANOGRAPHY,
            _most_hidden,
            lambda value: value > rules.most_hidden,
            "rounding a translation to 256 greys, or noise of one grey level, may raise the cycle error to "
            f"at most {rules.most_hidden:g} times, beside twice the change itself {patience}",
        ),
        (NOT_FINITE, not_finite, lambda v: v > 0, "every logged number is finite (the training stops)"),
    )
    return ring(lines, checks, after=rules.grace * rules.images, reports=rules.reports)


def _growth(lines: Sequence[Line]) -> Mapping[float, float]:
    """By images seen, the translators' loss over its lowest until then."""
    grown, lowest = {}, float("inf")
    for line in lines:
        if "loss_g" in line:
            lowest = min(lowest, line["loss_g"])
            grown[line["images"]] = line["loss_g"] / max(lowest, 1e-6)
    return grown


def _most_saturated(line: Line) -> float | None:
    found = [value for name, value in line.items() if name.startswith("saturated_")]
    return max(found, default=None)


def _most_hidden(line: Line) -> float | None:
    found = [value for name, value in line.items() if name.startswith("hidden")]
    return max(found, default=None)
