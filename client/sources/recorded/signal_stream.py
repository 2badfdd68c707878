"""A recording as it is made: samples and beats go in, windows come out as soon as they are whole.

Guarantee: the windows are those that a finished record of the same samples gives, to rounding, for
a study that :func:`require_streamable` lets pass and settings without a filter.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from consilium.client.sources.recorded import beats
from consilium.client.sources.recorded.derived_windows import Derivation
from consilium.client.sources.recorded.prepared import Prepared, Window
from consilium.client.sources.recorded.recording_units import channel_unit, is_voltage
from consilium.client.sources.recorded.recordings import FASTEST_HZ, SLOWEST_HZ
from consilium.client.sources.recorded.samples import ratio_of
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.derived import Compared, beat_place, channel_units
from consilium.shared.study.units import UnitError, conversion

Array = NDArray[np.float64]
MOST_UP = 100.0  # times as many samples as come
LATEST_S = 60.0  # a beat may come so long after its samples
_HALF = 10  # scipy's resampling filter reaches so many samples of the slower rate to either side


def require_streamable(study: Study) -> None:
    """Refuse a study whose variables need the finished recording.

    Raises:
        DataError: one sentence: which variable, why, and the remedy.
    """
    for name, one in study.data.derived.items():
        if isinstance(one, Compared) and one.reference == "recording":
            raise DataError(
                f"study {study.name}: variable {name} compares a window with all of its recording, "
                'which a monitor does not have yet; train a study with reference = "running"'
            )
    for name, unit in channel_units(study.data.derived, study.variables).items():
        if name in study.variables and is_voltage(unit):
            raise DataError(
                f"study {study.name}: variable {name} is less the median of the whole recording, "
                "which a monitor does not have yet; train a study of [data.derived] variables"
            )


class SignalStream:
    """One recording in progress.

    Args:
        study: what is read; at beats if its label is ``aami``, otherwise consecutive windows.
        rate_hz: samples a second of all channels.
        units: the unit of each channel that the study reads, as a file would write it.
        static: static variables that are not computed, in the study's units.

    Raises:
        DataError: the study needs the finished recording, a channel is missing or has a unit that
            does not fit, or the rate is none.
    """

    def __init__(
        self,
        study: Study,
        *,
        rate_hz: float,
        units: Mapping[str, str],
        static: Mapping[str, float] | None = None,
    ) -> None:
        require_streamable(study)
        slowest = max(SLOWEST_HZ, float(study.data.rate_hz or 0.0) / MOST_UP)
        if not slowest <= rate_hz <= FASTEST_HZ:
            raise DataError(
                f"rate_hz {rate_hz:g} must lie within {slowest:g} and {FASTEST_HZ:g}; correct it"
            )
        wanted = channel_units(study.data.derived, study.variables)
        self.channels = tuple(wanted)
        self._factors = np.array([_factor(name, units, wanted[name]) for name in self.channels])
        self._study, self._static = study, dict(static or {})
        self._rate, self._steps = float(study.data.rate_hz or rate_hz), study.data.steps
        self._ratio = ratio_of(rate_hz, study)
        self._raw, self._raw_from = np.empty((0, len(wanted))), 0
        self._signal, self._signal_from = np.empty((0, len(wanted))), 0
        self._derivation = Derivation(study, self.channels)
        self._at_beats = study.data.label == "aami"
        self._places: list[int] = []  # of beats, from 64 before the next one to be read
        # The next one among the places, of which the first has no window; or a window's start.
        self._next = 1 if self._at_beats else 0
        self._last_s = -math.inf

    def add(
        self, samples: Mapping[str, Sequence[float]], beats_s: Sequence[float] = ()
    ) -> list[Window]:
        """Take the next samples of every channel, and beats; return the windows that are whole.

        Args:
            samples: as many of each channel, in its unit.
            beats_s: seconds from the recording's first sample to each new R peak.

        Raises:
            DataError: samples are missing, or beats are not in the order of time or come too late;
                nothing is kept of them.
        """
        block = self._block(samples)
        onsets = self._onsets(beats_s) if self._at_beats else np.empty(0)
        self._raw = np.concatenate([self._raw, block * self._factors])
        self._resample(final=False)
        self._places += beats.places_of(onsets, self._rate).tolist()
        self._last_s = float(onsets[-1]) if len(onsets) else self._last_s
        return self._whole()

    def end(self) -> list[Window]:
        """Return the windows that only the end of the recording makes whole."""
        self._resample(final=True)
        return self._whole()

    def _block(self, samples: Mapping[str, Sequence[float]]) -> Array:
        missing = [name for name in self.channels if name not in samples]
        if missing:
            raise DataError(f"the samples lack channel {missing[0]!r}; send every channel's")
        try:
            columns = [np.asarray(samples[name], dtype=np.float64) for name in self.channels]
            block = np.stack(columns, axis=1)
        except (ValueError, TypeError):
            block = np.full((1, 1), np.nan)
        if block.ndim != 2 or not np.isfinite(block).all():
            raise DataError(
                "the samples must be numbers, as many of every channel; at a gap, end the "
                "recording and begin another"
            )
        return block

    def _onsets(self, beats_s: Sequence[float]) -> Array:
        try:
            onsets = np.asarray(beats_s, dtype=np.float64).reshape(-1)
        except (ValueError, TypeError):
            onsets = np.array([np.nan])
        forgotten = self._signal_from + beat_place(self._steps) if self._signal_from else 0
        if len(onsets) and not (
            np.isfinite(onsets).all()
            and onsets[0] > self._last_s
            and (np.diff(onsets) > 0).all()
            and forgotten <= beats.places_of(onsets[:1], self._rate)[0]
        ):
            raise DataError(
                "beats must be seconds in the order of time, from the recording's first sample on, "
                f"and come within {LATEST_S:g} s of their samples; correct them"
            )
        return onsets

    def _resample(self, *, final: bool) -> None:
        """Make the samples at the study's rate that no later sample changes, or all."""
        up, down = self._ratio.numerator, self._ratio.denominator
        made, known = self._signal_from + len(self._signal), self._raw_from + len(self._raw)
        if self._ratio == 1:
            self._signal = np.concatenate([self._signal, self._raw[made - self._raw_from :]])
            self._raw, self._raw_from = self._raw[:0], known
            return
        reach = _HALF * max(up, down) // up + 2  # of the filter, in samples as they come
        until = -(-known * up // down) if final else max(made, (known - reach) * up // down)
        if until > made:
            offset = self._raw_from // down * up
            fresh = np.asarray(resample_poly(self._raw, up, down, axis=0))
            self._signal = np.concatenate([self._signal, fresh[made - offset : until - offset]])
        start = max(self._raw_from, (until * down // up - reach) // down * down)
        self._raw, self._raw_from = self._raw[start - self._raw_from :], start

    def _whole(self) -> list[Window]:
        """Return the windows that can be read, and forget what no later one needs."""
        found, before = [], beat_place(self._steps)
        until = self._signal_from + len(self._signal)
        if not self._at_beats:
            while self._next + self._steps <= until:
                found.append(self._window(self._next, {}))
                self._next += self._steps
            self._forget(self._next)
            return found
        while self._next + 1 < len(self._places):
            place = self._places[self._next]
            start = place - before
            if start + self._steps > until:
                break
            if start >= 0:
                earlier = np.array(self._places[: self._next + 1][-beats.EARLIER - 1 :])
                following = self._places[self._next + 1]
                found.append(self._window(start, beats.intervals(earlier, following, self._rate)))
            self._next += 1
        surplus = max(0, self._next - beats.EARLIER)
        self._places, self._next = self._places[surplus:], self._next - surplus
        pending = self._places[self._next] if self._next < len(self._places) else until
        late = until - math.ceil(LATEST_S * self._rate)
        self._forget(min(pending, max(late, self._signal_from)) - before)
        return found

    def _forget(self, start: int) -> None:
        surplus = min(max(0, start - self._signal_from), len(self._signal))
        self._signal, self._signal_from = self._signal[surplus:], self._signal_from + surplus

    def _window(self, start: int, intervals: Mapping[str, float]) -> Window:
        at, study = start - self._signal_from, self._study
        prepared = Prepared(
            name="stream",
            channels=self.channels,
            signals=self._signal[at : at + self._steps],
            static=self._static,
            notes=(),
            label=None,
        )
        value_TV, names = prepared.table(0, self._steps, study), list(study.variables)
        for name, value in intervals.items():
            if name in names:
                value_TV[0, names.index(name)] = value
        self._derivation.fill(value_TV, prepared.signals)
        return Window(value_TV=value_TV, label=math.nan, start=start)


def _factor(name: str, units: Mapping[str, str], wanted: str) -> float:
    """Return the factor from a channel's unit to the study's.

    Raises:
        DataError: its unit is not said, or does not fit.
    """
    if name not in units:
        raise DataError(f"channel {name!r} has no unit; say it, such as {wanted!r}")
    try:
        found = conversion(channel_unit(units[name]), wanted)
    except UnitError as error:
        raise DataError(f"channel {name!r}: {error}") from error
    if found.offset:
        raise DataError(
            f"channel {name!r} cannot be read in {units[name]!r}; send it in {wanted!r}"
        )
    return found.factor
