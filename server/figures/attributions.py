"""Which variables the model relies on, from the sums of the sites' last evaluation.

Guarantee: nothing is returned where too few patients were explained.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.shared.rounds.attribution_bands import attribution_bands, effect_unit
from consilium.shared.study.definition import Study

_SURE = 3.0  # deviations of the noise by which the noisy count must exceed ``smallest_group``


@dataclass(frozen=True, kw_only=True)
class Attributions:
    """Mean absolute effect of variables on the output, by time in the stay.

    Attributes:
        patients: how many were explained; with privacy noise not a whole number.
        clipped: patients whose effects were cut to their bound; with noise not a whole number.
        mean_VA: in log-odds or the target's unit; noise may make a small mean negative.
        deviation: standard deviation of the privacy noise on each mean.
    """

    patients: float
    clipped: float
    mean_VA: NDArray[np.float64]
    deviation: float

    def to_json(self, study: Study) -> dict[str, Any]:
        """Return plain numbers, as in ``run.json``."""
        by_variable = dict(zip(study.variables, self.mean_VA.tolist(), strict=True))
        return {
            "patients": self.patients,
            "clipped": self.clipped,
            "deviation": self.deviation,
            "effects": by_variable,
        }


def attributions_from_sums(
    sums: NDArray[np.float64], study: Study, *, noise: float
) -> Attributions | None:
    """Return the means; None where fewer than the study's ``smallest_group`` were explained.

    Args:
        sums: as :mod:`consilium.shared.rounds.attribution_bands` has them.
        study: names the variables.
        noise: standard deviation of the privacy noise on each sum.
    """
    patients, clipped = (float(number) for number in sums[:2])
    if patients < study.evaluation.smallest_group + _SURE * noise:
        return None
    unit = effect_unit(study) / patients
    return Attributions(
        patients=patients,
        clipped=clipped,
        mean_VA=unit * sums[2:].reshape(len(study.variables), attribution_bands(study)),
        deviation=noise * unit,
    )
