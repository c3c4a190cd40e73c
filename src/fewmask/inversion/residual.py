"""How far an inversion may be trusted: a case whose residual is unusual is flagged."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import DataError
from fewmask.inversion.project import Inversion


@dataclass(frozen=True)
class ResidualGate:
    """Residuals above which an image lies outside of what the generator knows.

    mse and perceptual are thresholds; `percentile` of the images the gate was made from lie below each.
    """

    mse: float
    perceptual: float
    percentile: float

    def flags(self, inversion: Inversion) -> NDArray[np.bool_]:
        """(N,) True where an image's residual exceeds a threshold or is not a number."""
        trusted = (inversion.mse <= self.mse) & (inversion.perceptual <= self.perceptual)
        return np.asarray(~trusted, dtype=np.bool_)


def residual_gate(train: Inversion, *, percentile: float = 95.0) -> ResidualGate:
    """The gate from inversions of training images (made by the same recipe as those it will judge).

    Raises:
        DataError: fewer than 8 inversions; a percentile of so few says nothing.
    """
    if len(train.mse) < 8:
        raise DataError(
            "too few inversions to say which residual is unusual",
            found=f"{len(train.mse)} images",
            expected="at least 8 training images",
            mend="Invert more of the unlabelled training images.",
        )
    mse, perceptual = (float(np.percentile(r, percentile)) for r in (train.mse, train.perceptual))
    return ResidualGate(mse, perceptual, percentile)
