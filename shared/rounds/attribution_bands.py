"""The sums that show what a model looks at: bounded attributions by variable and time of stay.

A patient's share: 1 for the patient, 1 if the attributions were clipped, and their absolute values
by variable and band of steps in units of ``LARGEST_EFFECT``, together at most 1 in L2 norm.
"""

from consilium.shared.study.definition import Study

LARGEST_EFFECT = 4.0  # log-odds, or spreads in regression; a patient's L2 norm is counted up to it
MOST_BANDS = 4
PARTS = 3  # of a patient's share, each with a norm of 1 at most
_HEAD = 2


def attribution_bands(study: Study) -> int:
    """Return the number of bands A of consecutive steps, nearly equally long."""
    return min(MOST_BANDS, study.data.steps)


def band_starts(study: Study) -> tuple[int, ...]:
    """Return the first step of each band."""
    return tuple(
        study.data.steps * band // attribution_bands(study)
        for band in range(attribution_bands(study))
    )


def attributions_size(study: Study) -> int:
    """Return how many numbers are summed; 0 unless the study asks for them."""
    if not study.evaluation.explained_patients:
        return 0
    return _HEAD + len(study.variables) * attribution_bands(study)


def effect_unit(study: Study) -> float:
    """Return what 1 in the sums is worth: in log-odds, or the target's unit in regression."""
    return LARGEST_EFFECT * (study.task.spread if study.task.kind == "regression" else 1.0)
