"""Derives labels from stays, deaths and diagnoses, in the same way for every hospital system.

Takes a table of stays as :mod:`consilium.client.sources.own.stay_frames` describes it, with times
in microseconds since 1970; adds ``label`` and ``outcome``, the time of the outcome.
"""

import polars as pl

from consilium.client.sources.own.assembly import US_PER_HOUR
from consilium.client.sources.own.settings import OutcomeSettings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

US_PER_DAY = 24 * US_PER_HOUR


def with_outcome(
    stays: pl.DataFrame,
    settings: OutcomeSettings,
    study: Study,
    *,
    deaths: pl.DataFrame,
    conditions: pl.DataFrame,
) -> pl.DataFrame:
    """Give every stay its label.

    Args:
        stays: ``patient``, ``stay``, ``start``, ``end``.
        settings: how the label is derived.
        study: gives the task.
        deaths: ``patient``, ``time``, and ``whole_day``: true if the hour is not known; such a
            death on any day of the stay counts as during the stay. If the time is null, the label
            of the patient's stays is unknown.
        conditions: ``patient``, ``time`` of every diagnosis that counts.

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
    if settings.kind == "length-of-stay":
        days = (pl.col("end") - pl.col("start")) / US_PER_DAY
        return stays.with_columns(days.alias("label"), _never())
    if settings.kind == "readmission":
        ordered = stays.sort("patient", "start", "stay")
        gap = pl.col("start").shift(-1).over("patient") - pl.col("end")
        soon = (gap <= settings.within_days * US_PER_DAY).fill_null(value=False)
        label = pl.when(pl.col("end").is_not_null()).then(soon.cast(pl.Float64))
        return ordered.with_columns(label.alias("label"), _never())
    return _dated(stays, conditions if settings.kind == "condition" else deaths)


def _never() -> pl.Expr:
    return pl.lit(None, dtype=pl.Int64).alias("outcome")


def _dated(stays: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Add label 1 and the time of the first such event during the stay, else label 0 or null."""
    if "whole_day" not in events.columns:
        events = events.with_columns(pl.lit(value=False).alias("whole_day"))
    pairs = stays.select("patient", "stay", "start", "end").join(events, on="patient", how="inner")
    day = pl.col("time") // US_PER_DAY
    start, end, time = pl.col("start"), pl.col("end"), pl.col("time")
    whole_day = pl.when("whole_day")
    begun = whole_day.then(day >= start // US_PER_DAY).otherwise(time >= start)
    ended = whole_day.then(day <= end // US_PER_DAY).otherwise(time <= end)
    during = pairs.filter(begun & ended.fill_null(value=True))
    at = pl.when("whole_day").then(pl.col("end")).otherwise(pl.col("time"))
    first = during.group_by("stay").agg(at.min().alias("outcome"), pl.lit(1.0).alias("label"))
    undated = events.filter(pl.col("time").is_null())["patient"].unique()
    known = pl.when(~pl.col("patient").is_in(undated.implode())).then(0.0)
    return stays.join(first, on="stay", how="left").with_columns(pl.col("label").fill_null(known))
