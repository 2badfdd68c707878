"""Calibration rounds: what a finished model's risks are off by, from noised sums over patients.

Clipping shortens the gradients of rare outcomes most, so a model trained with it says too low risks
even before noise. After training every site adds up, over all of its training patients and for each
output, three numbers of the risk p and the outcome y: y - p, p (1 - p), and p (1 - p) (1 - 2 p).
They are value, slope and curvature of the sum of p as a function of a shift b of all log-odds, so
the coordinator can say by which b the sum of p would be that of y. That is post-processing.

In survival an output is an interval and p its hazard, and those count who were at risk in it, which
are those whose label of it is known. Then as many events are expected in each interval as came.

Guarantee: the three numbers as :func:`calibration_terms` scales them, 1, 3 and 3 times, have L2
norm at most 1. Exchanging y with 1 - y and p with 1 - p changes signs only, so let y = 1. Then the
squared norm is (1 - p)^2 (1 + 9 p^2 (1 + (1 - 2 p)^2)), at most 1 where
9 (1 + (1 - 2 p)^2) <= (2 - p) / (p (1 - p)^2); on [0, 1] the right side is at least 1.1 times the
left one. A patient's stays and steps are averaged, and a ball is convex; so one patient's K outputs
have norm at most sqrt(K) (:func:`calibration_bound`), and each is clipped to that beside.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.shared.study.definition import Study

TERMS = 3
_UNITS_3 = np.array([1.0, 3.0, 3.0])  # the smaller numbers stand out of the same noise

LARGEST_SHIFT = 2.0  # in log-odds, of one round
USUAL_SHIFT = 0.75
"""Standard deviation, in log-odds, of shifts that are expected before any is measured: after
training with privacy the ICU study is off by 0.7 to 0.8."""
_STRAIGHT = 1e-6  # curvature over slope below which the sum of p counts as a straight line
_INEXACT = 0.07  # times the third power of a step: what it may be off by
_STEEPEST = 0.9  # of curvature times step; the formula's pole is at 1

Array = NDArray[np.float64]


def calibration_size(study: Study) -> int:
    """Return how many sums a calibration round has: three for each output."""
    return TERMS * study.task.outputs


def calibration_bound(study: Study) -> float:
    """Return the largest L2 norm of one patient's part of a calibration round."""
    return math.sqrt(study.task.outputs)


def calibration_terms(risk: NDArray[np.floating[Any]], outcome: NDArray[np.bool_]) -> Array:
    """Return what each risk adds to its output's sums, with a last axis of three.

    Guarantee: the L2 norm over that axis is at most 1, for risks in [0, 1].
    """
    p = risk.astype(np.float64)
    slope = p * (1 - p)
    terms: Array = np.stack([outcome - p, slope, slope * (1 - 2 * p)], axis=-1) * _UNITS_3
    return terms


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What a calibration round says of the log-odds.

    Attributes:
        by_K: by how much each output's are moved.
        doubt_K: variance of what each is still off by, for the next round.
    """

    by_K: Array
    doubt_K: Array


def calibration_shift(sums: Array, deviation: float, doubt_K: Array | None = None) -> Shift:
    """Return the shift of each output's log-odds that brings its risks to its outcomes.

    With U the sum of y - p, V that of p (1 - p) and W that of p (1 - p) (1 - 2 p), the slope of the
    sum of p grows as V exp(b W / V), so b = log(1 + (W / V) (U / V)) V / W: Newton's step U / V,
    and its next order. It counts as a measurement of variance (deviation / V)^2 beside what is
    known (a Kalman filter of one number): where noise is large beside V it moves little, and the
    second of two equal rounds counts half, so that their noise averages out, unless the first went
    farther than the formula is exact.

    Args:
        sums: as summed, (3 K,), with noise.
        deviation: standard deviation of the noise on each of them.
        doubt_K: of the round before; a variance of ``USUAL_SHIFT`` squared if there was none.
    """
    residual_K, slope_K, bend_K = sums.reshape(-1, TERMS).T / _UNITS_3[:, None]
    slope_K = np.maximum(slope_K, max(deviation / _UNITS_3[1], np.finfo(np.float64).tiny))
    newton_K = residual_K / slope_K
    bend_K = np.clip(bend_K / slope_K, -1.0, 1.0)
    bend_K = np.where(np.abs(bend_K) < _STRAIGHT, _STRAIGHT, bend_K)
    measured_K = np.log1p(np.maximum(bend_K * newton_K, -_STEEPEST)) / bend_K
    if doubt_K is None:
        doubt_K = np.full(len(slope_K), USUAL_SHIFT**2)
    trust_K = doubt_K / (doubt_K + (deviation / slope_K) ** 2)
    by_K = trust_K * np.clip(measured_K, -LARGEST_SHIFT, LARGEST_SHIFT)
    left_K = doubt_K * (1 - trust_K) + (_INEXACT * by_K**3) ** 2
    return Shift(by_K=by_K, doubt_K=np.maximum(left_K, np.finfo(np.float64).tiny))
