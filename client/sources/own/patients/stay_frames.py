"""Checks and sorts the table of stays that a source has found.

A source supplies one row per stay: ``patient`` and ``stay`` (text), ``start``, ``end``, ``birth``
and ``outcome`` (spans, as :mod:`consilium.client.sources.own.times.spans` has them, or instants in
microseconds since 1970; null if unknown), ``label`` (a number, or a list), and a column of numbers
for each static variable, named by its index in the study.

A stay begins with the first instant at which it can have begun, and ends with the last at which it
can have ended: so a window ends no later than it would by an exact clock. Its outcome happened at
the earliest instant, so that no window ends after it.
"""

import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from consilium.client.sources.common.reasons import (
    ENDS_EARLY,
    IN_FUTURE,
    INCOMPLETE,
    STAYS_BY_DAY,
    VAGUE_STAY,
)
from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.patients.stay_table import FOREVER, StayTable
from consilium.client.sources.own.times import spans
from consilium.client.sources.own.times.spans import SPAN, US_PER_HOUR, Precision
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import static_names

AGE = "Age"
TIMES = ("start", "end", "birth", "outcome")


def stay_table(
    frame: pl.DataFrame,
    study: Study,
    tally: Tally,
    *,
    where: str,
    if_none: str = "the table of stays has no row; check [data.stays] file",
    now_us: int | None = None,
) -> StayTable:
    """Check and sort the stays of the cohort.

    Stays with an unknown label, and impossible stays, are counted and left out.

    Args:
        frame: as described above for the module; ``end``, ``birth`` and ``outcome`` are optional.
        study: gives task and variables.
        tally: counts what is left out.
        where: the table's name, for errors.
        if_none: why there may be no row, and what to do.
        now_us: the time now, microseconds since 1970; None asks the system.

    Raises:
        DataError: a stay occurs twice, a label is not one of the task's, or no stay is left.
    """
    found = len(frame)
    frame = with_spans(frame)
    frame = _without(
        frame, tally, INCOMPLETE, pl.any_horizontal(pl.col("patient", "stay", "start").is_null())
    )
    whole = len(frame)
    vague = pl.max_horizontal(spans.precision("start"), spans.precision("end")) > Precision.DAY
    frame = _without(frame, tally, VAGUE_STAY, vague)
    dated = len(frame)
    frame = _without(frame, tally, ENDS_EARLY, spans.until("end") < spans.first("start"))
    by_day = (spans.precision("start") == Precision.DAY) | (spans.precision("end") == Precision.DAY)
    tally.decide(STAYS_BY_DAY, int(frame.select(by_day.fill_null(value=False).sum()).item()))
    now_us = time.time_ns() // 1000 if now_us is None else now_us
    tally.count(IN_FUTURE, int(frame.select((spans.first("start") > now_us).sum()).item()))
    twice = len(frame) - frame["stay"].n_unique()
    if twice:
        raise DataError(
            f"{where}: {twice} stays have the identifier of another; name the column that is "
            "different for every stay, or remove the repeated rows"
        )
    unknown = _unknown_label(frame, study, where)
    tally.unlabelled += int(unknown.sum())
    losses = _Losses(
        incomplete=found - whole,
        vague=whole - dated,
        early=dated - len(frame),
        unlabelled=int(unknown.sum()),
    )
    frame = frame.filter(~unknown).with_columns(begin=spans.first("start"))
    if frame.is_empty():
        cause = _cause(losses, tally.filtered, study.data.label, if_none)
        raise DataError(f"{where}: no stay is left to read: {cause}")
    frame = _held(frame.sort("patient", "begin", "stay"))
    patients = frame["patient"].unique(maintain_order=True)
    if frame["label"].dtype in (pl.List, pl.Array):
        label_N = np.array(frame["label"].to_list(), dtype=np.float32)
    else:
        label_N = frame["label"].to_numpy().astype(np.float32)
    begin = pl.col("begin")
    hours = frame.select(
        end=(spans.until("end") - begin) / US_PER_HOUR,
        outcome=pl.max_horizontal(0, spans.first("outcome") - begin) / US_PER_HOUR,
        outcome_until=pl.max_horizontal(0, spans.until("outcome") - begin) / US_PER_HOUR,
    ).with_columns(
        pl.when(frame[f"{name.removesuffix('_until')}"].is_not_null()).then(pl.col(name))
        for name in ("end", "outcome", "outcome_until")
    )
    return StayTable(
        patient_ids=tuple(patients),
        patient_N=frame["patient"].rle_id().to_numpy().astype(np.int32),
        stay_ids=tuple(frame["stay"]),
        start_N=frame["begin"].to_numpy(),
        end_h_N=hours["end"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
        held_N=frame["held"].to_numpy(),
        reach_N=frame["reach"].to_numpy(),
        outcome_h_N=hours["outcome"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
        outcome_until_h_N=hours["outcome_until"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
        label_N=label_N,
        static=_static(frame, study),
    )


def with_spans(frame: pl.DataFrame, names: tuple[str, ...] = TIMES) -> pl.DataFrame:
    """Return the stays with these times as spans; instants become spans of no length."""
    return frame.with_columns(
        (
            spans.missing()
            if name not in frame.columns or frame[name].dtype == pl.Null
            else pl.col(name)
            if frame[name].dtype == SPAN
            else spans.instants(pl.col(name))
        ).alias(name)
        for name in names
    )


def next_begin(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ``next``: when the patient's next stay begins that begins later than this one.

    Args:
        frame: stays with ``patient`` and ``begin`` (microseconds since 1970).
    """
    begins = frame.select("patient", "begin").unique().sort("patient", "begin")
    same = pl.col("patient") == pl.col("patient").shift(-1)
    following = begins.with_columns(next=pl.when(same).then(pl.col("begin").shift(-1)))
    return frame.join(following, on=["patient", "begin"], how="left", maintain_order="left")


def _held(frame: pl.DataFrame) -> pl.DataFrame:
    """Add until when each stay holds events: its end, or else the start of the next stay."""
    held = pl.coalesce(spans.until("end"), pl.col("next") - 1, pl.lit(FOREVER, pl.Int64))
    return (
        next_begin(frame)
        .with_columns(held=held)
        .with_columns(reach=pl.col("held").cum_max().over("patient"))
    )


@dataclass(frozen=True, kw_only=True)
class _Losses:
    """How many stays were left out, by the reason."""

    incomplete: int
    vague: int
    early: int
    unlabelled: int


def _cause(losses: _Losses, filtered: int, label: str, if_none: str) -> str:
    """Return why no stay is left, and what to do, in words that fit into a sentence."""
    found = sum(astuple(losses))
    if not found and filtered:
        return (
            f"the selection ([data] where or split) leaves out all {filtered}; correct it, or the "
            "spelling of its values"
        )
    if not found:
        return if_none
    if losses.incomplete == found:
        return (
            f"all {found} lack a patient, an identifier or a start; check the columns that "
            "[data.stays] names"
        )
    if losses.vague == found:
        return f"the start or end of all {found} is known to the month or year only; bring the day"
    if losses.early == found:
        return f"all {found} end before they start; check the two columns and the form of dates"
    if losses.unlabelled == found:
        return (
            f"the label {label!r} of all {found} is unknown; check how it is made: its column, or "
            "the ends of stays and the outcome's times"
        )
    return (
        f"of {found}, {losses.incomplete} lack a patient, an identifier or a start, {losses.vague} "
        f"are known to the month or year only, {losses.early} end before they start, and the label "
        f"{label!r} of {losses.unlabelled} is unknown; complete them"
    )


def _without(frame: pl.DataFrame, tally: Tally, reason: str, bad: pl.Expr) -> pl.DataFrame:
    kept = frame.filter(~bad.fill_null(value=False))
    tally.count(reason, len(frame) - len(kept))
    return kept


def _unknown_label(frame: pl.DataFrame, study: Study, where: str) -> pl.Series:
    """Return which stays have no label; refuse labels that the task does not have."""
    label = frame["label"]
    if label.dtype in (pl.List, pl.Array):
        flat = label.explode()
        unknown = label.list.eval(pl.element().is_not_null() & pl.element().is_not_nan()).list.sum()
        unknown = unknown == 0
    else:
        flat, unknown = label, label.is_null() | label.is_nan()
    check_labels(flat, study, where)
    return unknown


def check_labels(labels: pl.Series, study: Study, where: str) -> None:
    """Refuse labels that the task does not have; null and NaN stand for unknown labels.

    Raises:
        DataError: there is such a label.
    """
    flat = labels.drop_nulls().drop_nans()
    kind, classes = study.task.kind, max(2, study.task.outputs)
    if kind == "regression":
        wrong = flat.is_infinite()
    else:
        count = classes if kind == "multiclass" else 2
        wrong = ~flat.is_in([float(number) for number in range(count)])
    if wrong.any():
        raise DataError(
            f"{where}: {int(wrong.sum())} labels are none of the task's ({kind}); choose another "
            "label column, or correct it"
        )


def _static(frame: pl.DataFrame, study: Study) -> Mapping[int, NDArray[np.float32]]:
    """Return static variables by index: the source's columns, and the age at the stay's start."""
    names = list(study.variables)
    columns = {
        index: frame[str(index)].cast(pl.Float32).fill_null(np.nan).to_numpy()
        for index in range(len(names))
        if str(index) in frame.columns
    }
    if AGE in static_names(study) and names.index(AGE) not in columns:
        years = frame.select(spans.years_between("birth", "start").alias("years"))["years"]
        if years.null_count() < len(years):
            columns[names.index(AGE)] = years.cast(pl.Float32).fill_null(np.nan).to_numpy()
    return columns
