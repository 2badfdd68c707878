"""Whether a stream of stays still looks like the patients the model was trained on.

After normalisation, patients' means of a variable have mean 0 and a standard deviation of at most 1
over all training patients. One site's patients may differ a little. If a variable's mean over many
stays is far from 0, it is now measured differently (another unit or device), or the patients are
different.
"""

import math

import numpy as np

FEWEST_STAYS = 30
LARGEST_SHIFT = 0.5  # in deviations of the training patients
CERTAINTY = 4.0  # standard errors; so high that none of a hundred variables warns by chance


class MeanDrift:
    """Mean of each column over stays; each stay counts once, with its own mean.

    Args:
        columns: number of variables; columns of codes have no mean.
    """

    def __init__(self, columns: int) -> None:
        self._stays, self._sum = np.zeros(columns), np.zeros(columns)

    def note(self, column: int, before: float | None, now: float) -> None:
        """Replace a stay's mean of a column; ``before`` is None if the stay had none yet."""
        self._stays[column] += before is None
        self._sum[column] += now - (before or 0.0)

    def forget(self, column: int, mean: float) -> None:
        """Take back a stay's mean of a column."""
        self._stays[column] -= 1
        self._sum[column] -= mean

    def shift(self, column: int) -> float | None:
        """Return the mean in training deviations, or None if it is near 0 or may be chance."""
        stays = self._stays[column]
        if stays < FEWEST_STAYS:
            return None
        mean = float(self._sum[column] / stays)
        certain = abs(mean) * math.sqrt(stays) > CERTAINTY
        return mean if certain and abs(mean) > LARGEST_SHIFT else None
