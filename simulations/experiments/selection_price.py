"""What a choice among settings would cost if it were made on private records.

Choosing on public records costs nothing. On private ones each run of each setting is a release: a
patient trains in all folds but one, and is judged on in that one. Two bounds are given, both with
the run of the chosen setting on all patients:

- *composed*: everything is released, and the accountant adds it up;
- *selected*: only the best is released, and the number of settings tried is itself drawn at random,
  from the logarithmic distribution with the given mean (Papernot and Steinke 2022, "Hyperparameter
  tuning with Renyi differential privacy", arXiv:2110.03620, theorem 2 with eta = 0; after Liu and
  Talwar 2019).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from consilium.shared.privacy.accounting import Events, PrivacyPlan, epsilon_spent, plan
from consilium.shared.privacy.loss import Repeated, log_moment
from consilium.shared.study.definition import Study, with_changes

ORDERS = (1.25, 1.5, 1.75, 2, 2.25, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64,
          96, 128, 192, 256)  # fmt: skip  # of Renyi divergences


@dataclass(frozen=True, kw_only=True)
class SelectionPrice:
    """What a search would cost each patient at ``delta``, the final run included.

    Attributes:
        run: epsilon of one run, as the study says.
        delta: at which all epsilons hold.
        composed: epsilon if all runs are released.
        selected: epsilon by private selection, with as many settings on average.
        settings: how many settings were tried.
        folds: on how many folds.
    """

    run: float
    delta: float
    composed: float
    selected: float
    settings: int
    folds: int


def price_of_setting(study: Study, folds: int) -> float:
    """Return the epsilon of trying a setting on all folds, at the study's delta."""
    return _spent(_events(study, folds), study.privacy.delta)


def selection_price(tried: Sequence[Study], chosen: Study, folds: int) -> SelectionPrice:
    """Return what choosing among the settings and running the chosen one would cost.

    Without privacy in the study, its budget is that of ``[privacy] epsilon`` in mode ``site``.

    Args:
        tried: the study with each setting.
        chosen: the study with the chosen one.
        folds: of the training patients.
    """
    last = _run_events(chosen)
    each = [_events(one, folds) for one in tried]
    delta = chosen.privacy.delta
    every = (*(event for events in each for event in events), *last)
    worst = np.max([_renyi(events) for events in each], axis=0)
    renyi = selected_renyi(worst, float(len(tried))) + _renyi(last)
    return SelectionPrice(
        run=_plan(chosen).epsilon,
        delta=delta,
        composed=_spent(every, delta),
        selected=_epsilon(renyi, delta),
        settings=len(tried),
        folds=folds,
    )


def price_sentences(price: SelectionPrice) -> tuple[str, ...]:
    """Return the price in sentences."""
    return (
        "On public records this choice costs nothing. Had it been made on private ones, each run "
        f"at epsilon {price.run:.3g}, the {price.settings} settings on {price.folds} folds and the "
        f"final run would cost a patient epsilon {price.composed:.3g} at delta {price.delta:g} "
        "(all runs composed), or "
        f"{price.selected:.3g} if only the best were released and the number of settings drawn at "
        f"random, {price.settings} on average (private selection, Papernot and Steinke 2022, "
        "theorem 2).",
    )


def selected_renyi(renyi: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Return the Renyi divergence, at each of ``ORDERS``, of releasing the best of some runs.

    How many runs there are is drawn from the logarithmic distribution. Theorem 2 with eta = 0:
    eps'(a) = eps(a) + (1 - 1/b) eps(b) + log(1/gamma) / b + log(mean) / (a - 1), for every order b.

    Args:
        renyi: divergence of one run at each of ``ORDERS``.
        mean: the expected number of runs, at least 1.
    """
    orders = np.array(ORDERS)
    if mean <= 1:
        return renyi
    more = np.min((1 - 1 / orders) * renyi - math.log(_gamma(mean)) / orders)
    return np.asarray(renyi + more + math.log(mean) / (orders - 1))


def _gamma(mean: float) -> float:
    """Return gamma with which the logarithmic distribution's mean is (1/gamma - 1)/log(1/gamma)."""
    from scipy.optimize import brentq

    root = brentq(lambda x: math.expm1(x) / x - mean, 1e-9, 50 + 2 * math.log(mean))
    return math.exp(-float(root))


def _plan(study: Study) -> PrivacyPlan:
    found = plan(_private(study))
    if found is None:
        raise ValueError("a study without privacy has no privacy costs")
    return found


def _private(study: Study) -> Study:
    if study.privacy.mode != "none":
        return study
    return with_changes(study, privacy={"mode": "site"})


def _run_events(study: Study) -> Events:
    """Return the releases of one whole run that hold a training patient."""
    costs = _plan(study)
    return costs.training_events(study.rounds, costs.calibrations)


def _events(study: Study, folds: int) -> Events:
    """Return the releases that hold a patient while a setting is tried on all folds."""
    trained = tuple(event.repeated(folds - 1) for event in _run_events(study))
    return (*trained, _plan(study).metrics)


def _renyi(events: Events) -> NDArray[np.float64]:
    """Return the Renyi divergence of all events together at each of ``ORDERS``."""
    total = np.zeros(len(ORDERS))
    for event in events:
        one = (event.sampling_rate, event.noise_multiplier)
        total += event.steps * np.array([_renyi_of_release(*one, order) for order in ORDERS])
    return total


@lru_cache(maxsize=16384)
def _renyi_of_release(sampling_rate: float, noise_multiplier: float, order: float) -> float:
    """Return the Renyi divergence of one release, the larger of both directions."""
    release = Repeated(sampling_rate, noise_multiplier, 1)
    moments = (log_moment(release, order - 1, removal=removal) for removal in (True, False))
    return max(moments) / (order - 1)


def _spent(events: Events, delta: float) -> float:
    """Return epsilon of all events; by Renyi divergences where the accountant's grid ends."""
    spent = epsilon_spent(events, delta)
    return spent if math.isfinite(spent) else _epsilon(_renyi(events), delta)


def _epsilon(renyi: NDArray[np.float64], delta: float) -> float:
    """Return epsilon at ``delta`` (Canonne, Kamath and Steinke 2020, proposition 12)."""
    orders = np.array(ORDERS)
    epsilons = renyi + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return float(max(0.0, np.min(epsilons)))
