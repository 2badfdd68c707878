"""Many small hospitals with invented patients, for measuring simulations."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from consilium.client.sources.common.source import Counted, Patient, Stay, Tally
from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.runs.examples import example_study

PATIENTS, WINDOW_H = 20, 24


def study_of(sites: int, *, rounds: int, mode: str) -> Study:
    """The demo's study, an LSTM of 15,649 parameters, with so many sites and a window of a day."""
    return with_changes(
        example_study("demo"),
        study={"sites": [f"hospital-{number:04}" for number in range(sites)], "rounds": rounds},
        data={"window_h": WINDOW_H, "minimum_patients": 5},
        evaluation={"validation_fraction": 0.0, "subgroups": {}},
        aggregation={"tolerated_collusion": 1},
        privacy={"mode": mode},
    )


@dataclass(frozen=True)
class Hospital(Counted):
    """Patients with a value of each variable in every other hour; every fifth has the outcome.

    By turn, not by chance: of a thousand hospitals some would have none, and could not take part.
    """

    site: str
    number: int
    name = "synthetic-icu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tally", Tally())

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield `PATIENTS` patients."""
        stream = np.random.default_rng(self.number)
        names = list(study.variables)
        hours_E = np.repeat(np.arange(0.0, WINDOW_H, 2.0), len(names))
        variable_E = np.tile(np.arange(len(names)), WINDOW_H // 2)
        low, high = (
            np.array([getattr(study.variables[name], bound) for name in names])
            for bound in ("low", "high")
        )
        for patient in range(PATIENTS):
            share_E = 0.4 + 0.2 * stream.random(len(hours_E))
            stay = Stay(
                stay_id=f"{self.site}-{patient}",
                hours_E=hours_E,
                variable_E=variable_E,
                value_E=(low + share_E.reshape(-1, len(names)) * (high - low)).ravel().astype("f4"),
                label=float(patient % 5 == 0),
            )
            yield Patient(patient_id=stay.stay_id, stays=(stay,))
