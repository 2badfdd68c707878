"""Privacy loss of composed, Poisson-subsampled Gaussian mechanisms, bounded from above.

A release changes the distribution of what is seen from Q to P when one patient is removed (P has
the patient) or added (Q has). The privacy loss is log(P/Q) under P; composition adds losses, which
is a convolution, done by FFT (Koskela et al. 2020; Gopi et al. 2021, "Numerical Composition of
Differential Privacy"). Losses are put on a grid so that the result dominates the true one: each
cell's mass is split between its two ends such that both P's and Q's mass are kept ("connect the
dots", Doroshenko et al. 2022), mass above the grid counts as infinite loss, and what the circular
convolution could wrap is bounded by a moment (Chernoff) and added to delta.

Noise multiplier: noise standard deviation / sensitivity. q: sampling rate. Both directions of
"add or remove one patient" are computed and the worse one counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GRID_POINTS = 1 << 16  # enough for 0.1 % up to thousands of steps, about 15 ms
COARSE_POINTS = 1 << 13
TAIL = 1e-4  # share of delta that truncation may cost
LARGEST_LOSS = 600.0  # beyond, exp() overflows and nobody should call it private
WIDTH = 12.0  # standard deviations kept of a Gaussian: 2e-33 is lost


@dataclass(frozen=True)
class Repeated:
    """``steps`` releases with sampling rate ``q`` in (0, 1] and noise multiplier ``sigma`` > 0."""

    q: float
    sigma: float
    steps: int


def merge_repeated(parts: Sequence[Repeated]) -> tuple[Repeated, ...]:
    """Join equal parts, and all plain Gaussians (q = 1) into one that costs exactly the same."""
    counts: dict[tuple[float, float], int] = {}
    precision = 0.0
    for part in parts:
        if part.q == 1:
            precision += part.steps / part.sigma**2
        else:
            key = (part.q, part.sigma)
            counts[key] = counts.get(key, 0) + part.steps
    merged = [Repeated(q, sigma, steps) for (q, sigma), steps in sorted(counts.items())]
    if precision:
        merged.append(Repeated(1.0, precision**-0.5, 1))
    return tuple(merged)


def log_moment(part: Repeated, order: float, *, removal: bool = True) -> float:
    """Return log E_P[exp(order * loss)] of one release, by quadrature over the noise.

    With ``removal`` this is order * RDP(order + 1) (Mironov et al. 2019, section 3).
    """
    # SciPy takes half a second, which the many commands that account for nothing do without.
    from scipy.special import logsumexp

    sigma = part.sigma
    low, high = -WIDTH * sigma - order, 1 + order + WIDTH * sigma
    x = np.linspace(low, high, min(200_000, int(12 * (high - low) / sigma) + 64))
    loss = _loss(x, part)
    log_base = -0.5 * (x / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    exponent = (order + 1) * loss if removal else -order * loss
    return float(logsumexp(log_base + exponent) + np.log(x[1] - x[0]))


def epsilon_upper_bound(parts: Sequence[Repeated], delta: float) -> float:
    """Return an epsilon such that the composition is (epsilon, delta) differentially private.

    Infinity where the loss is too large for the grid.
    """
    merged = merge_repeated(parts)
    return max(_one_way(merged, delta, GRID_POINTS, removal=removal) for removal in (True, False))


def epsilon_estimate(parts: Sequence[Repeated], delta: float) -> float:
    """Return epsilon on a coarse grid and for removal only: about 0.1 %, to search with."""
    return _one_way(merge_repeated(parts), delta, COARSE_POINTS, removal=True)


def _one_way(parts: tuple[Repeated, ...], delta: float, points: int, *, removal: bool) -> float:
    if not parts:
        return 0.0
    from scipy.fft import irfft, rfft
    from scipy.special import logsumexp

    top, order = _largest_loss(parts, np.log(delta * TAIL), removal=removal)
    if top > LARGEST_LOSS:
        return float("inf")
    mesh = 2 * top / points
    transform: NDArray[np.complex128] = np.ones(points // 2 + 1, dtype=np.complex128)
    infinite, log_tail = 0.0, -order * top
    for part in parts:
        mass, beyond = _discretise(part, mesh, points, removal=removal)
        losses = mesh * np.arange(-points // 2, points // 2)
        positive = mass > 0
        log_tail += part.steps * float(logsumexp(order * losses[positive] + np.log(mass[positive])))
        infinite += part.steps * beyond
        transform *= rfft(np.roll(mass, -points // 2)) ** part.steps
    composed = np.roll(irfft(transform, points), points // 2).clip(min=0)
    return _epsilon_at(composed, mesh, delta - infinite - np.exp(min(0.0, log_tail)))


def _loss(x: Floats, part: Repeated) -> Floats:
    """log(1 - q + q exp((2x - 1) / (2 sigma^2))), the loss of removal at noise value x."""
    shift = (2 * x - 1) / (2 * part.sigma**2)
    if part.q == 1:
        return shift
    result: Floats = np.logaddexp(np.log1p(-part.q), np.log(part.q) + shift)
    return result


def _largest_loss(
    parts: tuple[Repeated, ...], log_tail: float, *, removal: bool
) -> tuple[float, float]:
    """Return (loss that the sum exceeds with probability at most exp(log_tail), its order)."""
    scale = sum(part.steps * (part.q / part.sigma) ** 2 for part in parts) ** 0.5
    best, best_order, order = float("inf"), 1.0, min(0.5, 0.5 / scale)
    highest = 10 + 40 * max(part.sigma for part in parts)  # a plain Gaussian needs 7 sigma
    while True:  # the bound falls with the order, then rises or levels off
        total = sum(part.steps * log_moment(part, order, removal=removal) for part in parts)
        bound = (total - log_tail) / order
        if bound > 0.98 * best or order > highest:
            return min(bound, best), (order if bound < best else best_order)
        best, best_order, order = bound, order, 1.4 * order


def _discretise(part: Repeated, mesh: float, points: int, *, removal: bool) -> tuple[Floats, float]:
    """Return P's mass on the grid -n/2 .. n/2 - 1 times ``mesh``, and its mass beyond the grid."""
    ends = mesh * np.arange(-points // 2, points // 2, dtype=np.float64)
    p_above, q_above = _above(ends, part, removal=removal)
    p_cell, q_cell = p_above[:-1] - p_above[1:], q_above[:-1] - q_above[1:]
    to_upper = (p_cell - q_cell * np.exp(ends[:-1])) / -np.expm1(-mesh)
    to_upper = np.clip(to_upper, 0.0, p_cell)
    mass = np.zeros(points)
    mass[1:] += to_upper
    mass[:-1] += p_cell - to_upper
    mass[0] += 1.0 - p_above[0]
    return mass, float(p_above[-1])


def _above(losses: Floats, part: Repeated, *, removal: bool) -> tuple[Floats, Floats]:
    """Return P's and Q's probability of a loss above each value."""
    from scipy.special import ndtr

    sigma, q = part.sigma, part.q
    signed = losses if removal else -losses
    reachable = signed > (np.log1p(-q) if q < 1 else -np.inf)
    inside = np.where(reachable, signed, 1.0)
    # loss(x) = l  <=>  x = sigma^2 log((e^l - 1 + q) / q) + 1/2
    if q == 1:
        x = sigma**2 * inside + 0.5
    else:
        x = sigma**2 * (np.log(np.expm1(inside) + q) - np.log(q)) + 0.5
    x = np.where(reachable, x, -np.inf)
    if removal:
        without, having = ndtr(-x / sigma), ndtr((1 - x) / sigma)
        return (1 - q) * without + q * having, without
    without, having = ndtr(x / sigma), ndtr((x - 1) / sigma)
    return without, (1 - q) * without + q * having


def _epsilon_at(mass: Floats, mesh: float, delta: float) -> float:
    """Smallest epsilon >= 0 whose hockey-stick divergence is at most ``delta``."""
    if delta <= 0:
        return float("inf")
    losses = mesh * np.arange(-len(mass) // 2, len(mass) // 2)
    positive = losses > 0
    losses, mass = losses[positive], mass[positive]
    p_from = np.cumsum(mass[::-1])[::-1]
    q_from = np.cumsum((mass * np.exp(-losses))[::-1])[::-1]
    # At epsilon = losses[i], losses from i + 1 on count; at 0 all do.
    starts = np.concatenate([[0.0], losses[:-1]])
    deltas = p_from - np.exp(starts) * q_from
    if deltas[0] <= delta:
        return 0.0
    cell = int(np.searchsorted(-deltas, -delta, side="left")) - 1
    return float(np.log((p_from[cell] - delta) / q_from[cell]))
