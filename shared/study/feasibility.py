"""How many persons a study would have: what its ``[feasibility]`` asks before any training."""

from pydantic import Field

from consilium.shared.files.strict_toml import StrictTable
from consilium.shared.study.dictionary import Positive
from consilium.shared.study.training import Privacy


class Feasibility(StrictTable):
    """One count of the cohort over all sites, before round 1, after which the study rests.

    ``epsilon`` is taken out of the study's own, of every person at a site. A total below
    ``smallest_cell`` persons, noise included, is suppressed.
    """

    epsilon: Positive = 0.25
    smallest_cell: int = Field(default=10, ge=1)


def check_feasibility(asked: Feasibility | None, privacy: Privacy, *, calibrated: bool) -> None:
    """Refuse a count that leaves nothing of the study's epsilon.

    Args:
        asked: what the study asks for; None for nothing.
        privacy: its budget.
        calibrated: whether it has calibration rounds.

    Raises:
        ValueError: one sentence: value, bound and remedy.
    """
    if asked is None or privacy.mode == "none":
        return
    beside = privacy.statistics_fraction + (privacy.calibration_fraction if calibrated else 0)
    left = privacy.epsilon * (1 - beside)
    if asked.epsilon >= left:
        raise ValueError(
            f"[feasibility] epsilon {asked.epsilon:g} must be below {left:.3g}, what [privacy] "
            f"epsilon {privacy.epsilon:g} leaves beside statistics and calibration; lower it"
        )
