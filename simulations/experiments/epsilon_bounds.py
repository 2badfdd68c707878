"""Bounds on epsilon that need none of our accountant: an attack's from below, Renyi's from above.

A release here is a Gaussian of noise multiplier z (standard deviation / largest shift by one
patient) in which the patient takes part with probability q.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, log_ndtr, logsumexp
from scipy.stats import binom

THRESHOLDS = 4000
ORDERS = tuple(range(2, 257))

Floats = NDArray[np.float64]


def attack_epsilon(
    multipliers: tuple[float, ...], sampled: tuple[float, float, int] | None, delta: float
) -> float:
    """Return an epsilon that the releases together cannot be better than.

    The attacker adds up all that is seen of the patient, each release weighted by its chance of
    holding the patient over its variance, and accuses above a threshold. By the definition of
    (epsilon, delta), epsilon is at least log((true rate - delta) / false rate) at every threshold,
    for "add" and for "remove". Exact without sampling, where it is that of a Gaussian of mu =
    sqrt(sum of 1 / z^2) (Dong, Roth & Su 2022, "Gaussian Differential Privacy", corollary 1).

    Args:
        multipliers: z of each release that holds everybody.
        sampled: z, q and number of the releases that hold each patient with probability q.
        delta: of the guarantee.

    Returns:
        Infinity if a release has no noise.
    """
    z, q, steps = (1.0, 0.0, 0) if sampled is None else sampled
    if min((*multipliers, z)) <= 0:
        return math.inf
    always = sum(multiplier**-2 for multiplier in multipliers)
    each = q / z**2
    deviation = math.sqrt(always + steps * (q / z) ** 2)
    if deviation == 0:
        return 0.0
    times = np.arange(steps + 1)
    log_chance = binom.logpmf(times, steps, q)
    mean = always + each * times
    top = float(mean.max()) + 10 * deviation
    threshold = np.linspace(-10 * deviation, top, THRESHOLDS)[:, None]
    log_true = logsumexp(log_chance + log_ndtr((mean - threshold) / deviation), axis=1)
    log_missed = logsumexp(log_chance + log_ndtr((threshold - mean) / deviation), axis=1)
    log_false = log_ndtr(-threshold[:, 0] / deviation)
    log_cleared = log_ndtr(threshold[:, 0] / deviation)
    return max(0.0, _largest(log_true, log_false, delta), _largest(log_cleared, log_missed, delta))


def renyi_epsilon(
    multipliers: tuple[float, ...], sampled: tuple[float, float, int] | None, delta: float
) -> float:
    """Return an epsilon that the releases together are no worse than; arguments as above.

    Renyi divergences of whole orders add up (Mironov, Talwar & Zhang 2019, section 3.3); the step
    to epsilon is that of Canonne, Kamath & Steinke 2020, proposition 12.
    """
    z, q, steps = (1.0, 0.0, 0) if sampled is None else sampled
    if min((*multipliers, z)) <= 0:
        return math.inf
    always = sum(multiplier**-2 for multiplier in multipliers)
    best = math.inf
    for order in ORDERS:
        total = order * always / 2 + steps * _renyi_of_sample(z, q, order)
        step = math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        best = min(best, total + step)
    return max(0.0, best)


def _renyi_of_sample(z: float, q: float, order: int) -> float:
    if q == 0:
        return 0.0
    k = np.arange(order + 1)
    log_choose = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    log_out = np.zeros(order + 1) if q == 1 else (order - k) * math.log1p(-q)
    terms = log_choose + k * math.log(q) + log_out + (k**2 - k) / (2 * z**2)
    if q == 1:
        terms = terms[-1:]
    return float(logsumexp(terms)) / (order - 1)


def _largest(log_true: Floats, log_false: Floats, delta: float) -> float:
    """Return the largest log((true - delta) / false), at least 0."""
    kept = log_true > math.log(delta)
    excess = log_true[kept] + np.log1p(-np.exp(math.log(delta) - log_true[kept]))
    return float(max(0.0, (excess - log_false[kept]).max(initial=0.0)))
