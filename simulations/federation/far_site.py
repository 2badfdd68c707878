"""What a site's computations need in another process: its records, and what was agreed on."""

from dataclasses import dataclass, replace

from consilium.client.hospital.policy import Policy
from consilium.client.records.cohort import Cohort
from consilium.shared.crypto.keys import Roster
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study


@dataclass(frozen=True, kw_only=True)
class FarSite:
    """What a site's computations need wherever they run; it does not change during a run."""

    site: str
    study: Study
    cohort: Cohort
    policy: Policy
    parameters: SumParameters


def travelling(parameters: SumParameters) -> SumParameters:
    """Return parameters that can travel: a simulation's roster remembers what it has verified."""
    roster = parameters.roster
    return replace(parameters, roster=Roster(roster.members, roster.declared))
