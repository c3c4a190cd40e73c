"""How much of what all masks give an arm with few masks reaches: a ratio of means with its interval."""

from collections.abc import Iterable
from dataclasses import dataclass

from fewmask.core.errors import ConfigError
from fewmask.metrics.bootstrap import Bootstrap
from fewmask.metrics.score import Row
from fewmask.metrics.statistics import MEAN, paired


@dataclass(frozen=True)
class Share:
    """Mean of an arm over the mean of full supervision, on the same patients; 1 is all of it."""

    value: float
    low: float | None
    """Lower end of the interval; None with a single patient, or where full supervision may be 0."""
    high: float | None
    n_patients: int

    def text(self) -> str:
        """`91.2 % [88.0, 94.1]`."""
        ends = (
            "" if self.low is None or self.high is None else f" [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        )
        return f"{100 * self.value:.1f} %{ends}"


def share_of(
    rows: Iterable[Row],
    arm: tuple[str, int | None],
    full: tuple[str, int | None],
    metric: str = "dice",
    *,
    class_name: str = MEAN,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Share | None:
    """The share of full supervision that an arm reaches; None when they share no patient, or it scores 0.

    The interval is a percentile bootstrap of the ratio: a resample draws the same patients for both, and
    the draws of shots of each, as `compare` does for differences.

    Args:
        rows: scores of both, and of any others.
        arm: arm and shots in question.
        full: arm and shots of full supervision.
        metric: a measure of which more is better, such as "dice".
        class_name: one class, or `MEAN` for the mean over classes.
        resamples: bootstrap resamples.
        level: coverage of the interval, 0..1.
        seed: names the bootstrap's stream.
    """
    try:
        above, below = paired(rows, arm, full, metric, class_name=class_name)
    except ConfigError:
        return None
    if below.mean() <= 0:
        return None
    low, high = Bootstrap(resamples, level, seed).ratio(above, below)
    return Share(above.mean() / below.mean(), low, high, len(above.patients))
