"""Windows: which hours of a stay a study uses, and the label to be predicted from them.

By default the window is the first ``window_h`` hours of the stay. With ``[data.landmarks]``,
``[data.before_event]`` or ``[data.after_event]`` a stay gives windows elsewhere; each becomes a
stay of its own with its own start and label. All windows of a patient still count as one patient,
the unit of privacy.

Guarantee: nothing later than a window's end is in it, and no window ends at or after the outcome
that it is to predict.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.source import Patient, Source, Stay
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.records import AfterEvent

Label = float | NDArray[np.float32]


def read_windows(source: Source, study: Study) -> Iterator[Patient]:
    """Yield the source's patients, their stays replaced by the study's windows.

    A patient without a window is left out.

    Raises:
        DataError: as the source does.
    """
    patients = source.read_patients(study)
    return patients if study.data.fixed else cut_windows(patients, study)


def cut_windows(patients: Iterable[Patient], study: Study) -> Iterator[Patient]:
    """Cut every stay into windows, for a study whose windows are not simply the first hours.

    Raises:
        DataError: there are stays, but none has a window.
    """
    static, read, made = _static(study), 0, 0
    for patient in patients:
        read += len(patient.stays)
        stays = tuple(
            _cut(stay, (end_h - study.data.window_h, end_h), label, static)
            for stay in patient.stays
            for end_h, label in _ends(stay, study)
        )
        made += len(stays)
        if stays:
            yield replace(patient, stays=stays)
    if read and not made:
        raise DataError(
            f"not one of {read} stays has a window of study {study.name}; "
            + (
                f"{study.data.after_event.variable} must reach {study.data.after_event.least:g} "
                f"{study.data.window_h} h before a stay or its first {study.data.reach_h} h end"
                if study.data.after_event is not None
                else "say in site.toml when outcomes happened (outcome_time in [data.stays]) and "
                "when stays ended"
            )
        )


def cut_for_scoring(patients: Iterable[Patient], study: Study) -> Iterator[Patient]:
    """Yield patients with one window per stay, the one from which a finished model predicts now.

    With ``after_event`` it begins at the event; a stay without the event has none. Otherwise it is
    the last known hours, as if the present were a landmark or the event were near.
    """
    if study.data.fixed:
        yield from patients
        return
    static = _static(study)
    for patient in patients:
        spans = [(stay, scoring_span(stay, study)) for stay in patient.stays]
        stays = [_cut(stay, span, stay.label, static) for stay, span in spans if span is not None]
        yield replace(patient, stays=tuple(stays))


def scoring_span(stay: Stay, study: Study) -> tuple[float, float] | None:
    """Return the hours of a stay that :func:`cut_for_scoring` keeps; None if it keeps none."""
    known_h = float(stay.hours_E.max(initial=0.0)) if stay.end_h is None else stay.end_h
    known_h = min(known_h, float(study.data.reach_h))
    start_h: float | None = known_h - study.data.window_h
    if study.data.fixed:
        start_h, known_h = 0.0, float(study.data.window_h) if stay.end_h is None else known_h
    if study.data.after_event is not None:
        start_h = _event_h(stay, study, study.data.after_event)
    if start_h is None or (start_h >= known_h and not study.data.fixed):
        return None
    return start_h, min(start_h + study.data.window_h, known_h)


def used_events(stay: Stay, span: tuple[float, float], study: Study) -> NDArray[np.bool_]:
    """Return which of a stay's events a window of these hours holds (E,)."""
    return _kept(stay, span, _static(study))


def _ends(stay: Stay, study: Study) -> Iterator[tuple[float, Label]]:
    """Yield the hour at which each of the stay's windows ends, and its label.

    - Landmarks: before the end of the stay and before the outcome. A stay whose outcome happened at
      an unknown time has none, since the label would be unknown; nor is there a window of which a
      rough time leaves open whether the outcome came within the horizon.
    - Before an event: the gap before the outcome; in a stay without it, the gap before the stay's
      own end, as a control.
    - After an event: the whole window, ending before the outcome if its time is known.
    """
    data = study.data
    without = study.task.kind == "binary" and stay.label == 0
    outcome_h = None if without else stay.outcome_h
    if data.before_event is not None:
        event_h = stay.end_h if outcome_h is None else outcome_h
        if event_h is not None:
            end_h = event_h - data.before_event.gap_h
            if 0 < end_h <= data.reach_h:
                yield end_h, stay.label
    if data.after_event is not None:
        begun_h = _event_h(stay, study, data.after_event)
        if begun_h is not None:
            end_h = begun_h + data.window_h
            last_h = data.reach_h if stay.end_h is None else min(data.reach_h, stay.end_h)
            if end_h <= last_h and (outcome_h is None or end_h < outcome_h):
                yield end_h, stay.label
    if data.landmarks is not None and (without or outcome_h is not None):
        known_h = min(math.inf if h is None else h for h in (stay.end_h, outcome_h))
        for landmark_h in range(data.landmarks.every_h, data.reach_h + 1, data.landmarks.every_h):
            if landmark_h >= known_h:
                return
            ahead_h = math.inf if outcome_h is None else outcome_h - landmark_h
            until_h = ahead_h
            if outcome_h is not None and stay.outcome_until_h is not None:
                until_h = stay.outcome_until_h - landmark_h
            soon = ahead_h <= data.landmarks.horizon_h
            if soon == (until_h <= data.landmarks.horizon_h):
                yield float(landmark_h), float(soon)


def _event_h(stay: Stay, study: Study, event: AfterEvent) -> float | None:
    """Return the hour of the first event, None if there is none."""
    index = list(study.variables).index(event.variable)
    happens_E = (stay.variable_E == index) & (stay.value_E >= event.least)
    return float(stay.hours_E[happens_E].min()) if happens_E.any() else None


def _static(study: Study) -> list[int]:
    """Return the indices of the variables that do not change with time."""
    return [i for i, v in enumerate(study.variables.values()) if v.role == "static"]


def _cut(stay: Stay, span: tuple[float, float], label: Label, static: Sequence[int]) -> Stay:
    """Cut the stay to the hours of ``span``; static values known by its end keep their first."""
    start_h, end_h = max(0.0, span[0]), span[1]
    kept_E = _kept(stay, span, static)
    return replace(
        stay,
        hours_E=np.maximum(stay.hours_E[kept_E] - np.float32(start_h), np.float32(0)),
        variable_E=stay.variable_E[kept_E],
        value_E=stay.value_E[kept_E],
        label=label,
        end_h=end_h - start_h,
        outcome_h=None if stay.outcome_h is None else stay.outcome_h - start_h,
        outcome_until_h=None if stay.outcome_until_h is None else stay.outcome_until_h - start_h,
    )


def _kept(stay: Stay, span: tuple[float, float], static: Sequence[int]) -> NDArray[np.bool_]:
    static_E = np.isin(stay.variable_E, static)
    first_E = np.zeros(len(static_E), dtype=np.bool_)
    first_E[np.unique(stay.variable_E, return_index=True)[1]] = True
    inside_E = stay.hours_E >= max(0.0, span[0])
    return np.asarray((stay.hours_E <= span[1]) & np.where(static_E, first_E, inside_E))
