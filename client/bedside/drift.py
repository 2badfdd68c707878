"""Whether a stream of stays still looks like the patients the model was trained on.

The federation's normalisation gives a variable's mean over a patient, over all patients, mean 0 and
deviation of at most 1. A site's patients may differ a little; a variable whose mean over many stays
is far from 0 is either measured otherwise now (another unit, another device) or of other patients.
"""

import math

import numpy as np

FEWEST_STAYS = 30
LARGEST_SHIFT = 0.5  # in deviations of the training patients
CERTAINTY = 4.0  # standard errors, for none of a hundred variables should warn by chance


class MeanDrift:
    """Mean of each column over stays, each stay counted once by its own mean.

    Args:
        columns: how many columns have a mean to expect; codes have none.
    """

    def __init__(self, columns: int) -> None:
        self._stays, self._sum = np.zeros(columns), np.zeros(columns)

    def note(self, column: int, before: float | None, now: float) -> None:
        """A stay's mean of a column is this now; ``before`` it was another, or there was none."""
        self._stays[column] += before is None
        self._sum[column] += now - (before or 0.0)

    def shift(self, column: int) -> float | None:
        """Return how far the mean is from that of training, in deviations, if that is certain."""
        stays = self._stays[column]
        if stays < FEWEST_STAYS:
            return None
        mean = float(self._sum[column] / stays)
        certain = abs(mean) * math.sqrt(stays) > CERTAINTY
        return mean if certain and abs(mean) > LARGEST_SHIFT else None
