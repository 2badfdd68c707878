"""Variables computed from a recording's windows: :mod:`consilium.shared.study.derived` says which.

A finished recording and a stream call the same functions on the same windows, so that a variable
whose reference runs is the same in both.
"""

from collections import deque
from collections.abc import Iterable, Sequence

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
    Deviation,
    segment,
)

Array = NDArray[np.float64]


def fill_derived(windows: Sequence[Window], prepared: Prepared, study: Study) -> None:
    """Fill in the derived variables of a recording's windows, which are in the order of time."""
    steps = study.data.steps
    derivation = Derivation(study, prepared.channels)
    whole = [w for w in windows if len(w.value_TV) >= steps]
    signals = [prepared.signals[w.start : w.start + steps] for w in whole]
    derivation.look_ahead(signals)
    for window, piece in zip(whole, signals, strict=True):
        derivation.fill(window.value_TV, piece)


class Derivation:
    """The derived variables of one recording, window by window.

    Args:
        study: says which.
        channels: names of the signals' columns.
    """

    def __init__(self, study: Study, channels: Sequence[str]) -> None:
        self._rate = float(study.data.rate_hz or 1.0)
        steps, at_beats = study.data.steps, study.data.label == "aami"
        self._bands: list[tuple[int, BandPower]] = []
        self._parts: dict[Compared, list[tuple[int, slice | None]]] = {}  # of what is compared once
        for column, name in enumerate(study.variables):
            one = study.data.derived.get(name)
            if isinstance(one, BandPower):
                self._bands.append((column, one))
            elif one is not None:
                part = one.part(self._rate, steps, at_beats=at_beats)
                kept = None if one.role == "series" else part
                self._parts.setdefault(one.whole, []).append((column, kept))
        self._recent: dict[str, deque[Array]] = {
            one.of: deque(maxlen=RECALLED) for one in study.data.derived.values()
        }
        self._column = {name: list(channels).index(name) for name in self._recent}
        self._fixed: dict[Compared, Array] = {}

    def look_ahead(self, signals: Sequence[Array]) -> None:
        """Read all windows (T, channels) of a finished recording, for references to all."""
        for one in self._parts:
            if one.reference == "recording":
                window_NT = [centred(piece[:, self._column[one.of]]) for piece in signals]
                self._fixed[one] = reference_of(one, window_NT)

    def fill(self, value_TV: Array, piece: Array) -> None:
        """Fill in the derived variables of the next window."""
        for channel, recent in self._recent.items():
            recent.append(centred(piece[:, self._column[channel]]))
        for column, band in self._bands:
            value_TV[0, column] = band_power(self._recent[band.of][-1], band, self._rate)
        for one, parts in self._parts.items():
            recent = self._recent[one.of]
            fixed = self._fixed.get(one)
            reference = reference_of(one, recent) if fixed is None else fixed
            value_T = compared(one, recent[-1], reference)
            for column, part in parts:
                if part is None:
                    value_TV[: len(value_T), column] = value_T
                else:
                    value_TV[0, column] = _mean_of_known(value_T[part])


def _mean_of_known(part_T: Array) -> float:
    known_T = part_T[~np.isnan(part_T)]
    return float(known_T.mean()) if len(known_T) else float("nan")


def centred(window_T: Array) -> Array:
    """Return a window less its own median, of the samples that are known."""
    known_T = ~np.isnan(window_T)
    return window_T - np.median(window_T[known_T]) if known_T.any() else window_T


def reference_of(one: Compared, window_NT: Iterable[Array]) -> Array:
    """Return what windows are compared with: the median window (T,), or the median size (1,).

    It is NaN if fewer than two windows have a sample, since one says nothing of what is usual.
    """
    known_NT = np.array(list(window_NT))
    missing_NT = np.isnan(known_NT)
    whole = not missing_NT.any()
    if not whole:
        some_N = ~missing_NT.all(axis=1)
        known_NT, missing_NT = known_NT[some_N], missing_NT[some_N]
    if len(known_NT) < 2:
        return np.array([np.nan])
    if not isinstance(one, Deviation):
        return np.median(np.sqrt(np.nanmean(known_NT**2, axis=1)), keepdims=True)
    if whole:
        return np.asarray(np.median(known_NT, axis=0))
    never_T = missing_NT.all(axis=0)  # where NumPy would warn
    return np.where(never_T, np.nan, np.nanmedian(np.where(never_T, 0.0, known_NT), axis=0))


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
    hz, density = welch(window_T, fs=rate_hz, nperseg=wide)
    power = _within(hz, density, band.low_hz, band.high_hz)
    if not band.relative:
        return power
    whole = _within(hz, density, rate_hz / wide, HIGHEST_SHARE * rate_hz)
    return power / whole if whole > 0 else float("nan")


def _within(hz: Array, density: Array, low_hz: float, high_hz: float) -> float:
    near = 1e-6 * hz[1]  # frequencies are products of fractions
    inside = (hz >= low_hz - near) & (hz < high_hz - near)
    return float(density[inside].sum() * hz[1])
