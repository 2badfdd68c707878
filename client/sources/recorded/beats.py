"""Windows at heart beats, and the classes of beats in stretches of fixed length.

Labels:
    ``aami``: one window per beat; the label is the beat's class N, S, V, F or Q (0 to 4) of
        ANSI/AAMI EC57, as in table 1 of de Chazal et al. (IEEE Trans Biomed Eng
        2004;51:1196-1206). Two fifths of the window lie before the beat. Static variables
        ``rr_before``, ``rr_after`` and ``rr_mean`` (s) are the intervals before and after the beat
        and the mean of the last ten; ``rr_before_ratio`` and ``rr_after_ratio`` are the first two
        divided by that mean, ``rr_before_usual`` and ``rr_after_usual`` by the median of the last
        64 intervals, which a run of early beats moves less. The first and the last beat lack an
        interval and have no window.
    ``aami_present``: consecutive segments of fixed length; the labels say which of S, V, F, Q occur
        in a segment (multilabel).
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.persons import same_person
from consilium.client.sources.recorded.prepared import Note, Prepared, Window
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.derived import beat_place

LABELS = ("aami", "aami_present")
CLASSES = ("N", "S", "V", "F", "Q")
_SYMBOLS = {"N": "NLRejn", "S": "AaJS", "V": "VE", "F": "F", "Q": "/fQ"}
CLASS_OF: Mapping[str, int] = MappingProxyType(
    {symbol: CLASSES.index(name) for name, symbols in _SYMBOLS.items() for symbol in symbols}
)
"""AAMI class of each beat annotation; other annotations are not beats."""
INTERVALS = (
    "rr_before",
    "rr_after",
    "rr_mean",
    "rr_before_ratio",
    "rr_after_ratio",
    "rr_before_usual",
    "rr_after_usual",
)
EARLIER = 64  # intervals before a beat that its own are compared with
_OF_MEAN = 10

Words = Mapping[str, float]


def beats_of(
    prepared: Prepared, rate: float, words: Words = MappingProxyType({})
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return places of a record's beats at that rate, and their classes.

    Args:
        prepared: the record.
        rate: samples a second.
        words: class by annotation, in place of WFDB's symbols.

    Raises:
        DataError: beats are not in the order of time, or lie outside the signal.
    """
    means = {same_person(word): value for word, value in words.items()}

    def class_of(note: Note) -> float | None:
        return means.get(same_person(note.text)) if means else CLASS_OF.get(note.text)

    found = [
        (note.onset_s, kind) for note in prepared.notes if (kind := class_of(note)) is not None
    ]
    onsets = np.array([onset for onset, _ in found])
    places = places_of(onsets, rate)
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
    return places, np.array([kind for _, kind in found], dtype=np.int64)


def places_of(onsets: NDArray[np.float64], rate: float) -> NDArray[np.int64]:
    """Return the samples at that rate that lie nearest to times in seconds."""
    exact = np.round(onsets * rate, 6)  # a whole sample divided by its rate comes back whole
    return np.round(exact).astype(np.int64)


def beat_windows(
    prepared: Prepared, study: Study, thin_normal: int, words: Words = MappingProxyType({})
) -> Iterator[Window]:
    """Yield window (T, V) and class of every beat whose window lies inside the record.

    Of normal beats all but every ``thin_normal``-th are marked as thinned.

    Raises:
        DataError: no annotation of the record is a beat.
    """
    steps, rate = study.data.steps, float(study.data.rate_hz or 1.0)
    before = beat_place(steps)
    names = list(study.variables)
    beats, classes = beats_of(prepared, rate, words)
    if not len(beats):
        raise DataError(
            f"record {prepared.name}: none of its annotations is a heart beat, and label "
            f"{study.data.label!r} needs one at every R peak, with WFDB's symbol of its kind; "
            "annotate the record (a detector finds R peaks, a reader their kinds), or say as "
            "[data.annotations] values what its own words mean"
        )
    normal = 0
    for number in range(1, len(beats) - 1):
        start, label = int(beats[number]) - before, int(classes[number])
        if start < 0 or start + steps > len(prepared.signals):
            continue
        normal += int(label == 0)
        value_TV = prepared.table(start, start + steps, study)
        earlier = beats[max(0, number - EARLIER) : number + 1]
        for name, value in intervals(earlier, int(beats[number + 1]), rate).items():
            if name in names:
                value_TV[0, names.index(name)] = value
        yield Window(
            value_TV=value_TV,
            label=float(label),
            start=start,
            thinned=label == 0 and normal % thin_normal > 0,
        )


def intervals(earlier: NDArray[np.int64], following: int, rate: float) -> dict[str, float]:
    """Return the intervals around a beat by name, NaN where one is not finite.

    Args:
        earlier: places of up to 64 beats before it, and its own.
        following: place of the next beat.
        rate: samples a second.
    """
    gaps = np.diff(earlier) / rate
    around_s = np.array([gaps[-1], (following - earlier[-1]) / rate])
    recent, usual = gaps[-_OF_MEAN:].mean(), np.median(gaps)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (*around_s, recent, *(around_s / recent), *(around_s / usual))
    return {
        name: float(value) if np.isfinite(value) else np.nan
        for name, value in zip(INTERVALS, found, strict=True)
    }


def stretches(
    prepared: Prepared, study: Study, words: Words = MappingProxyType({})
) -> Iterator[Window]:
    """Yield consecutive segments (T, V), and which classes other than N occur in each."""
    steps, rate = study.data.steps, float(study.data.rate_hz or 1.0)
    beats, classes = beats_of(prepared, rate, words)
    for start in range(0, len(prepared.signals) - steps + 1, steps):
        inside = (beats >= start) & (beats < start + steps)
        present = np.isin(np.arange(1, len(CLASSES)), classes[inside])
        yield Window(
            value_TV=prepared.table(start, start + steps, study),
            label=present.astype(np.float32),
            start=start,
        )
