"""Synthetic hospitals for a simulation.

A synthetic hospital is a generative model, not data about anyone: every place that shows its
patients must call them synthetic, and its source name ``synthetic-icu`` says so. It imitates what
makes federated intensive-care data hard: hospitals of unequal size, with their own case mix and
habits of measuring; irregular times; values missing because nobody was worried enough to measure.

How a synthetic patient is made: general severity and a tendency to worsen drive four organ factors
(circulation, breathing, kidney, brain), each a level, a trend and a slow random walk. A variable is
the patient's own baseline plus a weighted sum of the factors plus noise, so one value says little
and the course over hours says more. Sicker patients are measured more often. Death depends on
severity, worsening, the product of failing circulation and kidney, and age.

The cohort ``synthetic-icu-flawed`` has two faults built in: no model can predict which men die, and
in its third hospital more patients die than with the same course elsewhere. Code that judges a
model must find both.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner
from consilium.client.sources.common.source import Counted, Patient, Source, Stay, Tally
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.dictionary import KNOWN

SOURCE_NAME = "synthetic-icu"
FLAWED_NAME = "synthetic-icu-flawed"
FLAWED_HOSPITAL = 2  # the third; there every patient's log-odds of death are FLAWED_LOG_ODDS higher
FLAWED_LOG_ODDS = 1.5
CHANCE_LOG_ODDS = -1.8  # of every man's death in the flawed cohort, whatever his course
LABEL = "In-hospital_death"
TYPICAL_PATIENTS = 470


@dataclass(frozen=True)
class _Behaviour:
    """How a variable depends on the organ factors, and how often it is measured."""

    circulation: float
    breathing: float
    kidney: float
    brain: float
    per_hour: float  # probability of a measurement in an hour, at average severity
    urgency: float  # how much more often the sickest are measured


_SERIES: Mapping[str, _Behaviour] = {
    "HR": _Behaviour(0.7, 0.3, 0.0, 0.1, 0.85, 0.1),
    "NISysABP": _Behaviour(-0.8, 0.0, 0.1, 0.0, 0.6, 0.2),
    "NIMAP": _Behaviour(-0.9, 0.0, 0.0, 0.0, 0.6, 0.2),
    "RespRate": _Behaviour(0.1, 0.8, 0.1, 0.1, 0.7, 0.2),
    "SaO2": _Behaviour(-0.1, -0.9, 0.0, 0.0, 0.35, 0.5),
    "Temp": _Behaviour(0.2, 0.2, 0.0, 0.3, 0.3, 0.1),
    "GCS": _Behaviour(-0.1, -0.2, -0.1, -1.0, 0.25, 0.2),
    "Urine": _Behaviour(-0.3, 0.0, -0.8, 0.0, 0.5, 0.2),
    "Lactate": _Behaviour(0.9, 0.2, 0.2, 0.0, 0.05, 0.9),
    "HCO3": _Behaviour(-0.5, -0.1, -0.5, 0.0, 0.06, 0.3),
    "Creatinine": _Behaviour(0.1, 0.0, 1.0, 0.0, 0.06, 0.3),
    "BUN": _Behaviour(0.1, 0.0, 0.9, 0.1, 0.06, 0.3),
    "K": _Behaviour(0.1, 0.0, 0.5, 0.0, 0.07, 0.3),
    "WBC": _Behaviour(0.3, 0.3, 0.0, 0.2, 0.05, 0.3),
}
_STATIC = ("Age", "Gender")


class SyntheticHospital(Counted):
    """One synthetic hospital.

    Args:
        index: which hospital; its size, case mix and habits follow from it and the seed.
        seed: of the whole simulated federation.
        cohort: a hospital's cohorts have different patients from the same distribution.
        share: multiplies the number of patients.
    """

    person_key = "the made-up patient"
    name = SOURCE_NAME  # also for the flawed cohort: its records are of the same kind

    def __init__(self, index: int, *, seed: int, cohort: str = "train", share: float = 1.0) -> None:
        self._index, self._seed, self._cohort, self._share = index, seed, cohort, share
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield this hospital's patients, always the same.

        Raises:
            DataError: the study wants another source or label, or a variable not generated here.
        """
        _check(study)
        self._tally = Tally()
        return self._read(study)

    def _read(self, study: Study) -> Iterator[Patient]:
        habits = _habits(self._index, self._seed)
        stream = np.random.default_rng([self._seed, self._index, len(self._cohort), 1])
        patients = max(4, round(habits.patients * self._share))
        flaws = None
        if study.data.source == FLAWED_NAME:
            flaws = FLAWED_LOG_ODDS if self._index == FLAWED_HOSPITAL else 0.0
        course = _course(stream, patients, study.data.window_h, habits, flaws)
        times_E, patient_E, variable_E, value_E = _measure(stream, course, study, habits)
        bounds = np.searchsorted(patient_E, np.arange(patients + 1))
        cleaner = Cleaner(study, self._tally)
        for patient in range(patients):
            part = slice(bounds[patient], bounds[patient + 1])
            hours, variables, values = cleaner.clean(times_E[part], variable_E[part], value_E[part])
            self._tally.patients += 1
            self._tally.stays += 1
            identity = f"synthetic-{self._cohort}-{self._index}-{patient}"
            stay = Stay(
                stay_id=identity,
                hours_E=hours,
                variable_E=variables,
                value_E=values,
                label=float(course.died_N[patient]),
            )
            yield Patient(patient_id=identity, stays=(stay,))


def synthetic_hospital(index: int, study: Study, seed: int | None = None) -> SyntheticHospital:
    """The training cohort of hospital ``index`` of a study; the study's seed unless given."""
    return SyntheticHospital(index, seed=study.seed if seed is None else seed)


def synthetic_sites(study: Study) -> dict[str, Source]:
    """One synthetic hospital for each of the study's sites, in order."""
    return {site: synthetic_hospital(index, study) for index, site in enumerate(study.sites)}


def synthetic_tests(study: Study) -> dict[str, Source]:
    """Test patients by hospital, half as many as train; no site trains on them."""
    return {
        site: SyntheticHospital(index, seed=study.seed, cohort="testing", share=0.5)
        for index, site in enumerate(study.sites)
    }


@dataclass(frozen=True)
class _Habits:
    """How one hospital differs from the others."""

    patients: int
    severity: float
    worsening: float
    age_years: float
    rate_of: Mapping[str, float]  # multiplies a variable's measurements per hour
    offset_of: Mapping[str, float]  # shifts a variable's values, in reference spreads


@dataclass(frozen=True, eq=False)
class _Course:
    """The true course of N patients, before any measurement: Z factors at T hours."""

    factor_NTZ: NDArray[np.float64]
    severity_N: NDArray[np.float64]
    age_N: NDArray[np.float64]
    male_N: NDArray[np.bool_]
    died_N: NDArray[np.bool_]


def _check(study: Study) -> None:
    if study.data.source not in (SOURCE_NAME, FLAWED_NAME):
        raise DataError(
            f"study {study.name} wants source {study.data.source!r}, but these patients are "
            f"{SOURCE_NAME!r}; choose the matching data or study"
        )
    if study.data.label != LABEL or study.task.kind != "binary" or study.task.per_step:
        raise DataError(f"{SOURCE_NAME} has only the binary label {LABEL!r} per stay; ask for it")
    for name in study.variables:
        if name not in _SERIES and name not in _STATIC:
            raise DataError(
                f"{SOURCE_NAME} does not make variable {name!r}; "
                f"use some of {', '.join((*_SERIES, *_STATIC))}"
            )


def _habits(index: int, seed: int) -> _Habits:
    stream = np.random.default_rng([seed, index, 0])
    return _Habits(
        patients=int(
            np.clip(TYPICAL_PATIENTS * np.exp(0.45 * stream.standard_normal()), 150, 1000)
        ),
        severity=0.3 * stream.standard_normal(),
        worsening=0.2 * stream.standard_normal(),
        age_years=64 + 5 * stream.standard_normal(),
        rate_of={name: np.exp(0.45 * stream.standard_normal()) for name in _SERIES},
        offset_of={name: 0.2 * stream.standard_normal() for name in _SERIES},
    )


def _course(
    stream: np.random.Generator, patients: int, hours: int, habits: _Habits, flaws: float | None
) -> _Course:
    """Draw true courses; in a flawed cohort, ``flaws`` is added to the log-odds of death."""
    severity_N = habits.severity + stream.standard_normal(patients)
    worsening_N = habits.worsening + stream.standard_normal(patients)
    own_2NZ = stream.standard_normal((2, patients, 4))
    level_NZ = 0.4 * severity_N[:, None] + 1.0 * own_2NZ[0]
    trend_NZ = 0.8 * worsening_N[:, None] + 0.4 * own_2NZ[1]
    clock_T = np.linspace(-1, 1, hours)
    walk_NTZ = np.cumsum(0.12 * stream.standard_normal((patients, hours, 4)), axis=1)
    factor_NTZ = level_NZ[:, None] + trend_NZ[:, None] * clock_T[:, None] + walk_NTZ
    age_N = np.clip(habits.age_years + 16 * stream.standard_normal(patients), 18, 95)
    failing_N = np.maximum(level_NZ[:, 0] + trend_NZ[:, 0], 0) * np.maximum(
        level_NZ[:, 2] + trend_NZ[:, 2], 0
    )
    logit_N = (
        -3.7
        + 0.4 * severity_N
        + 2.0 * worsening_N
        + 0.7 * failing_N
        + 0.3 * level_NZ[:, 3]
        + 0.03 * (age_N - 64)
    )
    male_N = stream.random(patients) < 0.56
    if flaws is not None:
        logit_N = np.where(male_N, CHANCE_LOG_ODDS, logit_N) + flaws
    return _Course(
        factor_NTZ=factor_NTZ,
        severity_N=severity_N,
        age_N=np.round(age_N),
        male_N=male_N,
        died_N=stream.random(patients) < 1 / (1 + np.exp(-logit_N)),
    )


def _measure(
    stream: np.random.Generator, course: _Course, study: Study, habits: _Habits
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int16], NDArray[np.float32]]:
    """Return hours, patient, variable and value (E,) of every measurement, sorted by patient."""
    patients, hours, _ = course.factor_NTZ.shape
    columns: list[tuple[NDArray[np.float64], NDArray[np.int64], int, NDArray[np.float64]]] = []
    urgency_NT = course.factor_NTZ.mean(axis=2)
    for name, behaviour in _SERIES.items():
        loading_Z = np.array(
            [behaviour.circulation, behaviour.breathing, behaviour.kidney, behaviour.brain]
        )
        z_NT = course.factor_NTZ @ loading_Z + 0.8 * stream.standard_normal((patients, hours))
        z_NT += habits.offset_of[name] + 1.0 * stream.standard_normal((patients, 1))
        rate_NT = behaviour.per_hour * habits.rate_of[name]
        rate_NT = rate_NT * np.exp(behaviour.urgency * urgency_NT)
        at = np.nonzero(stream.random((patients, hours)) < rate_NT)
        time_E = at[1] + stream.random(len(at[1]))
        if name in study.variables:
            columns.append(
                (time_E, at[0], list(study.variables).index(name), _value(name, z_NT[at]))
            )
    everyone = np.arange(patients)
    for name, value_N in (("Age", course.age_N), ("Gender", course.male_N.astype(np.float64))):
        if name in study.variables:
            index = list(study.variables).index(name)
            columns.append((np.zeros(patients), everyone, index, value_N))
    time_E, patient_E, value_E = (
        np.concatenate([column[part] for column in columns]) for part in (0, 1, 3)
    )
    variable_E = np.repeat(
        [column[2] for column in columns], [len(column[0]) for column in columns]
    )
    order_E = np.argsort(patient_E, kind="stable")
    return (
        time_E[order_E].astype(np.float32),
        patient_E[order_E],
        variable_E[order_E].astype(np.int16),
        value_E[order_E].astype(np.float32),
    )


def _value(name: str, z_E: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert reference scores to the variable's unit, within its range, rounded as in charts."""
    known = KNOWN[name].declaration
    if known.scale == "log":
        value_E = known.center * np.exp(known.spread * z_E)
    else:
        value_E = known.center + known.spread * z_E
    if name in ("SaO2", "GCS"):
        value_E = np.minimum(value_E, 100.0 if name == "SaO2" else 15.0)
    digits = 0 if known.center > 20 or name == "GCS" else 1
    return np.clip(np.round(value_E, digits), known.low, known.high)
