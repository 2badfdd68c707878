"""Derives labels from stays, deaths and diagnoses, in the same way for every hospital system.

Takes a table of stays as :mod:`.stay_frames` describes it; adds ``label`` and ``outcome``, the time
of the outcome. Times are compared as
:mod:`consilium.client.sources.own.times.spans` says; what cannot be decided has no label.
"""

import polars as pl

from consilium.client.sources.common.reasons import AFTER_DEATH, ROUGH_OUTCOME, UNDATED_DEATH
from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.patients.stay_frames import next_begin, with_spans
from consilium.client.sources.own.settings.hospital import OutcomeSettings
from consilium.client.sources.own.times import spans
from consilium.client.sources.own.times.spans import SPAN, Precision
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study


def with_outcome(
    stays: pl.DataFrame,
    settings: OutcomeSettings,
    study: Study,
    tally: Tally,
    *,
    deaths: pl.DataFrame,
    conditions: pl.DataFrame,
) -> pl.DataFrame:
    """Give every stay its label.

    Args:
        stays: ``patient``, ``stay``, ``start``, ``end``.
        settings: how the label is derived.
        study: gives the task.
        tally: counts, by reason, the labels that are unknown.
        deaths: ``patient``, ``time``; a span, or null if nobody knows when.
        conditions: ``patient``, ``time`` of every diagnosis that counts. A death or diagnosis at
            exactly midnight, or in the last second of a day, counts as known to that day.

    Returns:
        The stays with ``label`` (null if unknown, as for lack of an end) and ``outcome`` (null if
        it did not happen or has no time).

    Raises:
        DataError: the task does not fit this kind of outcome.
    """
    wanted = "regression" if settings.kind == "length-of-stay" else "binary"
    if study.task.kind != wanted or study.task.per_step:
        raise DataError(
            f"study {study.name}: outcome {settings.kind!r} gives a {wanted} label a stay, and its "
            f"task is {study.task.kind}{' at every step' if study.task.per_step else ''}; change "
            "[data.outcome] in site.toml or the study"
        )
    stays = with_spans(stays, ("start", "end"))
    if settings.kind == "length-of-stay":
        days = spans.days_between("start", "end")
        return stays.with_columns(days.alias("label"), spans.missing().alias("outcome"))
    if settings.kind == "readmission":
        return _readmitted(stays, settings.within_days)
    events = conditions if settings.kind == "condition" else deaths
    return _dated(stays, _as_spans(events), tally, died=settings.kind == "death")


def _as_spans(events: pl.DataFrame) -> pl.DataFrame:
    """Return patients and times as spans, midnights as days."""
    if events["time"].dtype != SPAN:
        events = events.with_columns(spans.instants(pl.col("time")).alias("time"))
    return events.select("patient", spans.as_days("time"))


def _readmitted(stays: pl.DataFrame, within_days: float) -> pl.DataFrame:
    """Add label 1 where the patient has a stay that begins soon after the end of this one.

    A stay within this one, or one that overlaps it, is no readmission.
    """
    own = stays.with_row_index("row").with_columns(begin=spans.first("start"))
    others = own.select("patient", pl.col("start").alias("again"), pl.col("row").alias("other"))
    later = (
        own.select("patient", "row", "start", "end")
        .join(others, on="patient", how="inner")
        .filter(
            (pl.col("row") != pl.col("other"))
            & (spans.compare("again", "end") >= 0)
            & (
                (spans.first("again") > spans.first("start"))
                | (
                    (spans.first("again") == spans.first("start"))
                    & (pl.col("other") > pl.col("row"))
                )
            )
        )
        .with_columns(gap=spans.days_between("end", "again"))
    )
    soon = later.filter(pl.col("gap") <= within_days)["row"].unique()
    label = pl.when(pl.col("end").is_not_null()).then(
        pl.col("row").is_in(soon.implode()).cast(pl.Float64)
    )
    ordered = own.with_columns(label.alias("label"), spans.missing().alias("outcome"))
    return ordered.sort("patient", "begin", "stay").drop("row", "begin")


def _dated(stays: pl.DataFrame, events: pl.DataFrame, tally: Tally, *, died: bool) -> pl.DataFrame:
    """Add label 1 and the time of the first such event during the stay, else label 0 or null."""
    rows = _ended(stays.with_row_index("row"))
    times = rows.select("row", "patient", "start", "ended")
    pairs = times.join(events.filter(pl.col("time").is_not_null()), on="patient", how="inner")
    pairs = pairs.with_columns(
        during=spans.within("time", "start", "ended"),
        before=spans.compare("time", "start") < 0,
    )
    if died:
        pairs = pairs.with_columns(alive=pl.col("row").is_in(_seen_again(times, pairs).implode()))
        pairs = pairs.with_columns(during=pl.col("during") & ~pl.col("alive"))
    else:
        pairs = pairs.with_columns(alive=pl.lit(value=False))
    found = pairs.group_by("row").agg(
        happened=pl.col("during").fill_null(value=False).any(),
        rough=pl.col("during").is_null().any(),
        before=pl.col("before").fill_null(value=False).any() & died,
        outcome=_earliest(),
    )
    undated = events.filter(pl.col("time").is_null())["patient"].unique()
    rows = rows.join(found, on="row", how="left", maintain_order="left").with_columns(
        pl.col("happened", "rough", "before").fill_null(value=False),
        undated=pl.col("patient").is_in(undated.implode()),
    )
    open_ = ~pl.col("happened")
    label = (
        pl.when("happened")
        .then(1.0)
        .when(~(pl.col("rough") | pl.col("before") | pl.col("undated")))
        .then(0.0)
    )
    counts = rows.select(
        pl.col("undated").filter(open_).sum().alias(UNDATED_DEATH),
        pl.col("rough").filter(open_ & ~pl.col("undated")).sum().alias(ROUGH_OUTCOME),
        pl.col("before")
        .filter(open_ & ~pl.col("undated") & ~pl.col("rough"))
        .sum()
        .alias(AFTER_DEATH),
    )
    for reason, number in counts.row(0, named=True).items():
        tally.decide(reason, int(number))
    outcome = pl.when("happened").then(pl.col("outcome"))
    return rows.with_columns(label.alias("label"), outcome.alias("outcome")).drop(
        "row", "begin", "next", "ended", "happened", "rough", "before", "undated"
    )


def _ended(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``ended``: the end of the stay or, if it has none, the start of the patient's next."""
    rows = next_begin(rows.with_columns(begin=spans.first("start")))
    starts = rows.select("patient", pl.col("begin").alias("next"), pl.col("start").alias("upon"))
    starts = starts.unique(["patient", "next"], keep="first", maintain_order=True)
    joined = rows.join(starts, on=["patient", "next"], how="left", maintain_order="left")
    return joined.with_columns(ended=pl.coalesce("end", "upon")).drop("upon")


def _seen_again(times: pl.DataFrame, pairs: pl.DataFrame) -> pl.Series:
    """Return the stays after which their patients came again, not after their death: alive."""
    others = times.select("patient", pl.col("row").alias("other"), pl.col("start").alias("again"))
    dead = pairs.select("row", "patient", "start", "ended", "time")
    again = dead.join(others, on="patient", how="inner").filter(
        (pl.col("row") != pl.col("other"))
        & (spans.first("again") > spans.first("start"))
        & (spans.compare("again", "ended") >= 0)
        & ~(spans.compare("again", "time") > 0).fill_null(value=False)
    )
    return again["row"].unique()


def _earliest() -> pl.Expr:
    """Return the earliest of the events during a stay, within the stay's own bounds."""
    begin = pl.max_horizontal(spans.first("time"), spans.first("start"))
    end = pl.min_horizontal(spans.until("time"), spans.until("ended"))
    end = pl.max_horizontal(begin, end.fill_null(spans.until("time")))
    during = pl.col("during").fill_null(value=False)
    return pl.struct(
        begin.filter(during).min().alias("first"),
        end.filter(during).min().alias("until"),
        begin.filter(during).min().alias("local"),
        pl.lit(int(Precision.INSTANT), pl.Int8).alias("precision"),
    )
