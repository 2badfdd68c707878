"""Variables computed from a recording's windows: :mod:`consilium.shared.study.derived` says which.

A finished recording and a stream call the same functions on the same windows, so that a variable
whose reference runs is the same in both.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from consilium.client.sources.recorded.prepared import Prepared, Window
from consilium.shared.study.definition import Study
from consilium.shared.study.derived import (
    HIGHEST_SHARE,
    RECALLED,
    BandPower,
    Compared,
    Derived,
    Deviation,
    segment,
)

Array = NDArray[np.float64]


def fill_derived(windows: Sequence[Window], prepared: Prepared, study: Study) -> None:
    """Fill in the derived variables of a recording's windows, which are in the order of time."""
    steps, names = study.data.steps, list(study.variables)
    whole = [w for w in windows if w.start >= 0 and len(w.value_TV) >= steps]
    for name, one in study.data.derived.items():
        signal = prepared.signals[:, prepared.channels.index(one.of)]
        window_NT = [centred(signal[w.start : w.start + steps]) for w in whole]
        reference = None
        if isinstance(one, Compared) and one.reference == "recording":
            reference = reference_of(one, window_NT)
        column = names.index(name)
        for number, window in enumerate(whole):
            so_far = window_NT[max(0, number + 1 - RECALLED) : number + 1]
            value = latest(one, so_far, study, reference)
            window.value_TV[: len(value), column] = value


def centred(window_T: Array) -> Array:
    """Return a window less its own median, of the samples that are known."""
    known_T = ~np.isnan(window_T)
    return window_T - np.median(window_T[known_T]) if known_T.any() else window_T


def latest(
    one: Derived, window_NT: Sequence[Array], study: Study, reference: Array | None = None
) -> Array:
    """Return the variable of the last window: (T,) of a series, (1,) of a static one.

    Args:
        one: how it is computed.
        window_NT: the window and those before it that count, centred.
        study: gives the rate.
        reference: what the window is compared with; None takes that of these windows.
    """
    if isinstance(one, BandPower):
        return np.array([band_power(window_NT[-1], one, float(study.data.rate_hz or 1.0))])
    if reference is None:
        reference = reference_of(one, window_NT)
    return compared(one, window_NT[-1], reference)


def reference_of(one: Compared, window_NT: Sequence[Array]) -> Array:
    """Return what windows are compared with: the median window (T,), or the median size (1,).

    It is NaN if fewer than two windows have a sample, since one says nothing of what is usual.
    """
    known_NT = np.array([w for w in window_NT if not np.isnan(w).all()])
    if len(known_NT) < 2:
        return np.array([np.nan])
    if not isinstance(one, Deviation):
        return np.median([_size(w) for w in known_NT], keepdims=True)
    if not np.isnan(known_NT).any():
        return np.asarray(np.median(known_NT, axis=0))
    missing_T = np.isnan(known_NT).all(axis=0)  # where all are, NumPy would warn
    return np.where(missing_T, np.nan, np.nanmedian(np.where(missing_T, 0.0, known_NT), axis=0))


def compared(one: Compared, window_T: Array, reference: Array) -> Array:
    """Return a window less the reference, or over it; NaN where the reference is flat."""
    if isinstance(one, Deviation):
        return window_T - reference
    return window_T / np.where(reference > 0, reference, np.nan)


def band_power(window_T: Array, band: BandPower, rate_hz: float) -> float:
    """Return the power in a band, or its share; NaN where a sample is missing, or all are alike.

    Hann windows, half overlapping, each less its mean; the integral of the one-sided density over
    the frequencies from ``low_hz`` to below ``high_hz``.
    """
    if np.isnan(window_T).any() or np.ptp(window_T) == 0:
        return float("nan")
    wide = segment(rate_hz, len(window_T))
    hz_F, density_F = welch(window_T, fs=rate_hz, nperseg=wide)
    power = _within(hz_F, density_F, band.low_hz, band.high_hz)
    if not band.relative:
        return power
    whole = _within(hz_F, density_F, rate_hz / wide, HIGHEST_SHARE * rate_hz)
    return power / whole if whole > 0 else float("nan")


def _within(hz_F: Array, density_F: Array, low_hz: float, high_hz: float) -> float:
    near = 1e-6 * hz_F[1]  # frequencies are products of fractions
    inside_F = (hz_F >= low_hz - near) & (hz_F < high_hz - near)
    return float(density_F[inside_F].sum() * hz_F[1])


def _size(window_T: Array) -> float:
    return float(np.sqrt(np.nanmean(window_T**2)))
