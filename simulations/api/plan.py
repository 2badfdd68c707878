"""What privacy would cost, and who shares masks, before anything is run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.api.frames import data_frame
from consilium.simulations.api.study import a_study
from consilium.simulations.experiments import planning
from consilium.simulations.experiments.planning import Choice, Margin, SumPlan

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study's privacy would cost, and how its secure sums are set up.

    It has the content of ``consilium-simulate plan``.

    Attributes:
        study: the study; in privacy mode ``none`` the choices are those of mode ``site``.
        patients: training patients assumed at each site.
        secure_sum: who shares masks with how many, and how many sites may fail.
        choices: ways to run the study, one for each budget and number of rounds.
        noise_carried: variance of all sites' noise divided by the variance of the noise of those
            sites that the guarantee assumes honest.
        margins: what it costs to count on the noise of fewer sites or more; empty unless sites
            share the noise.
        epsilon_of_noise: epsilon at the given noise multiplier, by number of rounds; empty if no
            multiplier was given.
    """

    study: Study = field(repr=False)
    patients: int
    secure_sum: SumPlan
    choices: tuple[Choice, ...]
    noise_carried: float
    margins: tuple[Margin, ...]
    epsilon_of_noise: Mapping[int, float]

    def table(self) -> "pl.DataFrame":
        """Return a row for each choice, with the columns of :class:`consilium.Choice`.

        Raises:
            SettingsError: polars is not installed (extra ``frames``).
        """
        return data_frame([asdict(choice) for choice in self.choices], instead="choices")


def plan(
    study: Study,
    *,
    epsilons: Sequence[float] = (),
    patients: int = 1000,
    noise: float | None = None,
) -> Plan:
    """Return what a study's privacy would cost; nothing is trained and nothing is spent.

    Args:
        study: gives mode, sampling, steps, rounds and sites.
        epsilons: budgets; 8, 3, 1 and the study's own unless given.
        patients: training patients at each site.
        noise: also return what this noise multiplier (noise standard deviation / clip norm) costs.

    Raises:
        StudyError: what was given is no study, or a budget is not acceptable.
        SettingsError: fewer than 1 patient.
        PrivacyError: a budget cannot be met, or the noise is not above 0 and finite.
    """
    study = a_study(study)
    if patients < 1:
        raise SettingsError(f"patients {patients}: must be at least 1 at each site")
    found = planning.sum_plan(study)
    costs = {} if noise is None else planning.cost_of_noise(study, noise)
    return Plan(
        study=study,
        patients=patients,
        secure_sum=replace(found, void_probability=MappingProxyType(dict(found.void_probability))),
        choices=tuple(planning.choices(study, patients=patients, epsilons=tuple(epsilons))),
        noise_carried=planning.noise_carried(study),
        margins=tuple(planning.margins(study)),
        epsilon_of_noise=MappingProxyType(costs),
    )
