"""What can go wrong while a GAN trains, told from the numbers it logs, by rules that are said in words."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rules:
    """When an alarm rings; reports are the lines of a training's log."""

    images: int
    """Length of the training in images."""
    grace: float = 0.1
    """The first share of the training, in which a generator draws nothing varied yet and no alarm rings."""
    reports: int = 3
    """So many reports in a row must break a rule."""
    least_variety: float = 0.5
    """Collapse: two generated images differ less than this share of two real ones."""
    most_heart: float = 0.75
    """Overfitting, with held-out images: r_v (Karras et al. 2020, equation 1) above this; 1 is by heart."""
    most_sure: float = 0.9
    """Overfitting, without: the mean sign of D(real), r_t, above this while p can rise no further."""
    p_max: float = 0.85
    """The highest p of the augmentation; 0 without augmentation."""


@dataclass(frozen=True)
class Alarm:
    """One rule that was broken: its name, the images seen when it first rang, the value and the rule."""

    name: str
    images: int
    value: float
    rule: str

    def __str__(self) -> str:
        """One line for the terminal."""
        return f"ALARM {self.name} after {self.images} images: {self.value:.2f}; {self.rule}"


Line = Mapping[str, float]
"""One report of a training: "images" and the objective's columns."""

Check = tuple[str, Callable[[Line], float | None], Callable[[float], bool], str]
"""A rule: its name, what it looks at in a report (None: nothing there), when that breaks it, and in words."""

COLLAPSE, BY_HEART, NOT_FINITE = "collapse", "discriminator overfitting", "not a number"


def alarms(lines: Sequence[Line], rules: Rules) -> list[Alarm]:
    """The alarms that rang in a training, in order, each kind once.

    Args:
        lines: the log's reports, with "images" and the objective's columns.
        rules: when to ring.
    """
    checks: Sequence[Check] = (
        (COLLAPSE, variety, lambda v: v < rules.least_variety, _say_collapse(rules)),
        (BY_HEART, by_heart, lambda v: v > rules.most_heart, _say_heart(rules)),
        (BY_HEART, lambda line: _sure(line, rules), lambda v: v > rules.most_sure, _say_sure(rules)),
        (NOT_FINITE, not_finite, lambda v: v > 0, "every logged number is finite (the training stops)"),
    )
    return ring(lines, checks, after=rules.grace * rules.images, reports=rules.reports)


def ring(lines: Sequence[Line], checks: Sequence[Check], *, after: float, reports: int) -> list[Alarm]:
    """The alarms that `checks` ring, in order, each kind once.

    Args:
        lines: the log's reports.
        checks: what to look at.
        after: images before which nothing rings but `NOT_FINITE`.
        reports: so many in a row must break a rule; of `NOT_FINITE` one.
    """
    rung: list[Alarm] = []
    for name, measure, broken, rule in checks:
        needed = 1 if name == NOT_FINITE else reports
        in_a_row = 0
        for line in lines:
            value = measure(line)
            if value is None or (name != NOT_FINITE and line["images"] < after):
                continue
            in_a_row = in_a_row + 1 if broken(value) else 0
            if in_a_row == needed and name not in [one.name for one in rung]:
                rung.append(Alarm(name, int(line["images"]), float(value), rule))
    return sorted(rung, key=lambda alarm: alarm.images)


def variety(line: Line) -> float | None:
    """Distance of two generated images over that of two real ones: 0 when collapsed, about 1 when good."""
    if "spread_fake" not in line or not line.get("spread_real"):
        return None
    return line["spread_fake"] / line["spread_real"]


def by_heart(line: Line) -> float | None:
    """r_v = (D(train) - D(held out)) / (D(train) - D(generated)), means of logits (equation 1).

    0 when the discriminator treats unseen real images as the ones it learned from, 1 when it takes them for
    generated. None without held-out images, and while it does not tell real from generated.
    """
    if "logit_held_out" not in line:
        return None
    apart = line["logit_real"] - line["logit_fake"]
    return (line["logit_real"] - line["logit_held_out"]) / apart if apart > 0 else None


def _sure(line: Line, rules: Rules) -> float | None:
    """r_t, the mean sign of D(real); 0 while the augmentation can still grow. None with held-out images."""
    if "sign_real" not in line or "logit_held_out" in line:
        return None
    return line["sign_real"] if line.get("ada_p", rules.p_max) >= rules.p_max - 1e-6 else 0.0


def not_finite(line: Line) -> float:
    """How many numbers of a report are NaN or infinite."""
    return float(sum(not math.isfinite(value) for value in line.values()))


def _say_collapse(rules: Rules) -> str:
    return (
        f"two generated images should differ at least {rules.least_variety:g} times as much as two real ones "
        f"(rings after {_row(rules)})"
    )


def _say_heart(rules: Rules) -> str:
    return (
        "(D(train) - D(held out)) / (D(train) - D(generated)) should stay below "
        f"{rules.most_heart:g} (rings after {_row(rules)})"
    )


def _say_sure(rules: Rules) -> str:
    return (
        f"the mean sign of D(real) should stay below {rules.most_sure:g} once the augmentation is at its "
        f"limit p = {rules.p_max:g} (rings after {_row(rules)})"
    )


def _row(rules: Rules) -> str:
    return f"{rules.reports} reports in a row, not in the first {rules.grace:.0%} of the training"


def spread(image: Tensor) -> Tensor:
    """Root mean square difference of two images of a batch, averaged over pairs; near 0 when collapsed."""
    flat = image.detach().float().flatten(1)
    if len(flat) < 2:
        return flat.new_zeros(())
    distance: Tensor = torch.pdist(flat)
    return distance.mean() / math.sqrt(flat.shape[1])
