"""A database's cells as columns: the type that holds all of a column's cells, and rounds none."""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import polars as pl

from consilium.shared.errors import DataError

_NO_CELLS = (bytes, bytearray, memoryview, list, dict, tuple, set)
_INT64 = range(-(1 << 63), 1 << 63)


def column(name: str, cells: Sequence[Any], place: str) -> pl.Series:
    """Return cells of one column with the type that holds all of them, texts if nothing else does.

    Whole numbers stay whole, whatever their type in the database, so no identifier is rounded.
    Times with a zone are converted to UTC.

    Raises:
        DataError: a cell is neither text, number nor time.
    """
    kinds = {type(cell) for cell in cells if cell is not None}
    if any(issubclass(kind, _NO_CELLS) for kind in kinds):
        raise DataError(
            f"{place}: column {name!r} holds bytes or lists, and must hold texts, numbers or "
            "times; convert it in a query"
        )
    if not kinds:
        return pl.Series(name, cells, dtype=pl.Null)
    if kinds <= {bool}:
        return pl.Series(name, cells, dtype=pl.Boolean)
    if kinds <= {bool, int, float, Decimal}:
        return _numbers(name, cells)
    if kinds <= {dt.datetime, dt.date}:
        return times(name, cells, place, days=kinds == {dt.date})
    if kinds <= {dt.timedelta}:
        return pl.Series(name, cells, dtype=pl.Duration("us"))
    return pl.Series(name, [_as_text(cell) for cell in cells], dtype=pl.String)


def _numbers(name: str, cells: Sequence[Any]) -> pl.Series:
    whole = all(
        cell is None
        or isinstance(cell, int)
        or (isinstance(cell, Decimal) and cell.is_finite() and cell == cell.to_integral_value())
        for cell in cells
    )
    if not whole:
        numbers = [None if cell is None else float(cell) for cell in cells]
        return pl.Series(name, numbers, dtype=pl.Float64)
    integers = [None if cell is None else int(cell) for cell in cells]
    if all(cell is None or cell in _INT64 for cell in integers):
        return pl.Series(name, integers, dtype=pl.Int64)
    return pl.Series(name, [None if n is None else str(n) for n in integers], dtype=pl.String)


def times(name: str, cells: Sequence[Any], place: str, *, days: bool) -> pl.Series:
    """Return a column of times, in UTC if they have a zone; of ``days`` only, if all are.

    Raises:
        DataError: some have a zone and some have none.
    """
    if days:
        return pl.Series(name, cells, dtype=pl.Date)
    zoned = {cell.tzinfo is not None for cell in cells if isinstance(cell, dt.datetime)}
    if len(zoned) > 1:
        raise DataError(
            f"{place}: column {name!r} holds times with a zone and without; write all with, or "
            "all without"
        )
    whole = [
        dt.datetime(cell.year, cell.month, cell.day)
        if cell is not None and not isinstance(cell, dt.datetime)
        else cell
        for cell in cells
    ]
    if zoned == {True}:
        utc = [None if cell is None else cell.astimezone(dt.UTC) for cell in whole]
        return pl.Series(name, utc, dtype=pl.Datetime("us", "UTC"))
    return pl.Series(name, whole, dtype=pl.Datetime("us"))


def _as_text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str | UUID):
        return None if cell is None else str(cell)
    return cell.isoformat(" ") if isinstance(cell, dt.datetime) else str(cell)
