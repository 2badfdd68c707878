"""The windows of a record and their labels: one after the other, at annotations, or at beats."""

from collections.abc import Iterator

import numpy as np

from consilium.client.sources.common.persons import same_person
from consilium.client.sources.common.source import Tally
from consilium.client.sources.recorded import beats
from consilium.client.sources.recorded.derived_windows import fill_derived
from consilium.client.sources.recorded.prepared import Prepared, Window
from consilium.client.sources.recorded.record_settings import (
    AnnotationWindows,
    RecordingsSettings,
)
from consilium.client.sources.recorded.record_table import Label
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, with_changes


def windows_of(
    prepared: Prepared, study: Study, settings: RecordingsSettings, tally: Tally
) -> list[Window]:
    """Return the record's windows with labels that fit the task, derived variables filled in.

    Args:
        prepared: the record, at the study's rate.
        study: says how long a window is, and what its label is.
        settings: say at which annotations windows begin, and what these mean.
        tally: counts windows without a label.

    Raises:
        DataError: a label is none of the task's, or the record has no beats to cut at.
    """
    windows = list(_windows(prepared, study, settings, tally))
    for window in windows:
        _check_label(window.label, prepared.name, study)
    fill_derived(windows, prepared, study)
    return [window for window in windows if not window.thinned]


def _windows(
    prepared: Prepared, study: Study, settings: RecordingsSettings, tally: Tally
) -> Iterator[Window]:
    """Yield the record's windows (T, V) with their labels, in the order of time."""
    steps, rate = study.data.steps, float(study.data.rate_hz or 1.0)
    at = settings.annotations
    if study.data.label in beats.LABELS:
        words = {} if at is None else at.values
        if study.data.label == "aami":
            yield from beats.beat_windows(prepared, study, settings.thin_normal, words)
        else:
            yield from beats.stretches(prepared, study, words)
        return
    if study.task.per_step:
        yield from _stretches(prepared, study, settings, tally)
        return
    if at is None:
        starts = range(0, max(1, len(prepared.signals) - steps + 1), steps)
        places = [(start, start + steps, prepared.label) for start in starts]
    else:
        wanted = {same_person(text) for text in at.texts or at.values}
        means = {same_person(text): value for text, value in at.values.items()}
        places = []
        for note in sorted(prepared.notes, key=lambda note: note.onset_s):
            text = same_person(note.text)
            if wanted and text not in wanted:
                continue
            start = round((note.onset_s + at.offset_s) * rate)
            count = max(1, round(note.duration_s * rate) // steps)
            label = means.get(text, prepared.label) if means else prepared.label
            places += [(start + n * steps, start + (n + 1) * steps, label)
                       for n in range(count)]  # fmt: skip
    for start, stop, label in places:
        if label is None or start < 0 or (at is not None and stop > len(prepared.signals)):
            continue
        yield Window(value_TV=prepared.table(start, stop, study), label=label, start=start)


def _stretches(
    prepared: Prepared, study: Study, settings: RecordingsSettings, tally: Tally
) -> Iterator[Window]:
    """Yield consecutive windows (T, V) with a label at every step, as the annotations say it.

    Steps that no annotation covers are NaN, and nothing is to be predicted there.
    """
    steps, rate = study.data.steps, float(study.data.rate_hz or 1.0)
    at = settings.annotations or AnnotationWindows()
    means = {same_person(text): value for text, value in at.values.items()}
    whole_T = np.full(max(len(prepared.signals), steps), np.nan, dtype=np.float32)
    for note in prepared.notes:
        value = means.get(same_person(note.text))
        if value is not None:
            start = round((note.onset_s + at.offset_s) * rate)
            stop = start + max(1, round(note.duration_s * rate))
            whole_T[max(0, start) : max(0, stop)] = value
    for start in range(0, max(1, len(prepared.signals) - steps + 1), steps):
        label_T = whole_T[start : start + steps]
        if np.isnan(label_T).all():
            tally.unlabelled += 1
            continue
        yield Window(
            value_TV=prepared.table(start, start + steps, study), label=label_T, start=start
        )


def _check_label(label: Label, name: str, study: Study) -> None:
    """Refuse a label that the study's task does not have.

    Raises:
        DataError: it is no class of the task, or not as many labels as its outputs.
    """
    kind, outputs = study.task.kind, study.task.outputs
    if study.task.per_step:
        label_T = np.asarray(label)
        for one in np.unique(label_T[~np.isnan(label_T)]).tolist():
            _check_label(one, name, with_changes(study, task={"per_step": False}))
        return
    fits = kind == "regression"
    if kind == "multilabel":
        known = np.asarray(label)[~np.isnan(label)]
        fits = np.shape(label) == (outputs,) and bool(np.isin(known, (0, 1)).all())
    elif kind != "regression":
        fits = isinstance(label, float | int) and label in range(max(2, outputs))
    if not fits:
        raise DataError(
            f"record {name}: has a label that is none of the task's {max(2, outputs)} classes or "
            f"{outputs} outputs; correct the table, or say with values what its words mean"
        )
