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
        self._study, self._rate = study, float(study.data.rate_hz or 1.0)
        self._column = {name: list(channels).index(name) for name in _channels_of(study)}
        self._recent: dict[str, deque[Array]] = {
            name: deque(maxlen=RECALLED) for name in self._column
        }
        self._fixed: dict[Compared, Array] = {}

    def look_ahead(self, signals: Sequence[Array]) -> None:
        """Read all windows (T, channels) of a finished recording, for references to all."""
        for one in self._study.data.derived.values():
            if not isinstance(one, Compared) or one.whole in self._fixed:
                continue
            if one.reference == "recording":
                window_NT = [centred(piece[:, self._column[one.of]]) for piece in signals]
                self._fixed[one.whole] = reference_of(one, window_NT)

    def fill(self, value_TV: Array, piece: Array) -> None:
        """Fill in the derived variables of the next window."""
        names = list(self._study.variables)
        for channel, recent in self._recent.items():
            recent.append(centred(piece[:, self._column[channel]]))
        made: dict[Compared, Array] = {}
        for name, one in self._study.data.derived.items():
            window_T = self._recent[one.of][-1]
            if isinstance(one, BandPower):
                value = np.array([band_power(window_T, one, self._rate)])
            else:
                if one.whole not in made:
                    fixed = self._fixed.get(one.whole)
                    reference = reference_of(one, self._recent[one.of]) if fixed is None else fixed
                    made[one.whole] = compared(one, window_T, reference)
                value = self._part(one, made[one.whole])
            value_TV[: len(value), names.index(name)] = value

    def _part(self, one: Compared, value_T: Array) -> Array:
        """Return the samples of a series, or their mean in a part of the window."""
        if one.role == "series":
            return value_T
        at_beats = self._study.data.label == "aami"
        part_T = value_T[one.part(self._rate, len(value_T), at_beats=at_beats)]
        known_T = part_T[~np.isnan(part_T)]
        return np.array([known_T.mean() if len(known_T) else np.nan])


def _channels_of(study: Study) -> list[str]:
    return list(dict.fromkeys(one.of for one in study.data.derived.values()))


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
