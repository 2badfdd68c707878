"""Windows at heart beats, and the classes of beats in stretches of fixed length.

Labels:
    ``aami``: one window per beat; the label is the beat's class N, S, V, F or Q (0 to 4) of
        ANSI/AAMI EC57, as in table 1 of de Chazal et al. (IEEE Trans Biomed Eng
        2004;51:1196-1206). Two fifths of the window lie before the beat. Static variables
        ``rr_before``, ``rr_after`` and ``rr_mean`` (s) are the intervals before and after the beat
        and the mean of the last ten; ``rr_before_ratio`` and ``rr_after_ratio`` are the first two
        divided by that mean.
    ``aami_present``: consecutive segments of fixed length; the labels say which of S, V, F, Q occur
        in a segment (multilabel).
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.recorded.recordings import Prepared, Window
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import series_names

LABELS = ("aami", "aami_present")
CLASSES = ("N", "S", "V", "F", "Q")
_SYMBOLS = {"N": "NLRejn", "S": "AaJS", "V": "VE", "F": "F", "Q": "/fQ"}
CLASS_OF: Mapping[str, int] = MappingProxyType(
    {symbol: CLASSES.index(name) for name, symbols in _SYMBOLS.items() for symbol in symbols}
)
"""AAMI class of each beat annotation; other annotations are not beats."""
INTERVALS = ("rr_before", "rr_after", "rr_mean", "rr_before_ratio", "rr_after_ratio")
BEFORE = 0.4  # share of a beat's window that lies before the beat
_BEATS_OF_MEAN = 10


def beats_of(prepared: Prepared, rate: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return places of a record's beats at that rate, and their classes.

    Raises:
        DataError: beats are not in the order of time, or lie outside the signal.
    """
    found = [note for note in prepared.notes if note.text in CLASS_OF]
    onsets = np.array([note.onset_s for note in found])
    exact = np.round(onsets * rate, 6)  # a whole sample divided by its rate comes back whole
    places = np.round(exact).astype(np.int64)
    if len(found) and not (
        (np.diff(onsets) > 0).all()
        and onsets[0] >= 0
        and onsets[-1] < (len(prepared.signals) + 1) / rate
    ):
        raise DataError(
            f"record {prepared.name}: its beats are not in the order of time, or lie outside the "
            "signal; replace the file "
            "of annotations"
        )
    return places, np.array([CLASS_OF[note.text] for note in found], dtype=np.int64)


def beat_windows(prepared: Prepared, study: Study, thin_normal: int) -> Iterator[Window]:
    """Yield window (T, V) and class of every beat whose window lies inside the record.

    Of normal beats only every ``thin_normal``-th is kept.
    """
    steps, rate = study.data.steps, float(study.data.rate_hz or 1.0)
    before = round(BEFORE * steps)
    names, series = list(study.variables), series_names(study)
    beats, classes = beats_of(prepared, rate)
    gaps = np.diff(beats) / rate
    normal = 0
    for number in range(1, len(beats) - 1):
        start, label = beats[number] - before, classes[number]
        if start < 0 or start + steps > len(prepared.signals):
            continue
        normal += int(label == 0)
        if label == 0 and normal % thin_normal:
            continue
        value_TV = np.full((steps, len(names)), np.nan)
        value_TV[:, [names.index(name) for name in series]] = prepared.signals[
            start : start + steps
        ]
        for name, value in prepared.static.items():
            value_TV[0, names.index(name)] = value
        recent = gaps[max(0, number - _BEATS_OF_MEAN) : number].mean()
        before_s, after_s = gaps[number - 1], gaps[number]
        with np.errstate(divide="ignore", invalid="ignore"):
            intervals = (before_s, after_s, recent, before_s / recent, after_s / recent)
        for name, value in zip(INTERVALS, intervals, strict=True):
            if name in names:
                value_TV[0, names.index(name)] = value if np.isfinite(value) else np.nan
        yield value_TV, float(label)


def stretches(prepared: Prepared, study: Study) -> Iterator[Window]:
    """Yield consecutive segments (T, V), and which classes other than N occur in each."""
    steps, rate = study.data.steps, float(study.data.rate_hz or 1.0)
    names, series = list(study.variables), series_names(study)
    beats, classes = beats_of(prepared, rate)
    for start in range(0, len(prepared.signals) - steps + 1, steps):
        inside = (beats >= start) & (beats < start + steps)
        present = np.isin(np.arange(1, len(CLASSES)), classes[inside])
        value_TV = np.full((steps, len(names)), np.nan)
        value_TV[:, [names.index(name) for name in series]] = prepared.signals[
            start : start + steps
        ]
        for name, value in prepared.static.items():
            value_TV[0, names.index(name)] = value
        yield value_TV, present.astype(np.float32)
