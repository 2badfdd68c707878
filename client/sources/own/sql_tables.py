"""A hospital's own database of any schema: tables, views or queries, as ``site.toml`` maps them.

::

    [data]
    source = "sql"
    url = "postgresql://consilium@db.example.org/his?sslmode=verify-full"
    password_file = "database-password"     # mode 0600; or password_env

    [data.stays]
    table = "reporting.icu_stays"
    patient = "person"
    stay = "admission"
    start = "admitted"
    end = "discharged"
    label = "died"

    [[data.events]]
    query = "select admission, taken, item, result, unit from lab where validated"
    stay = "admission"
    time = "taken"
    variable = "item"
    value = "result"
    unit = "unit"

All else is as in ``tables``: see :mod:`consilium.client.sources.own.tables`. The rows of stays and
of events are read in one transaction that only reads, in pieces.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import polars as pl
import sqlalchemy as sql

from consilium.client.sources.common.source import Patient
from consilium.client.sources.own.database import Database, open_database
from consilium.client.sources.own.settings import QuerySettings, SqlSettings
from consilium.client.sources.own.table_files import ROW, Piece, check_columns
from consilium.client.sources.own.tables import Tables
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

_NO_CELLS = (bytes, bytearray, memoryview, list, dict, tuple, set)
_INT64 = range(-(1 << 63), 1 << 63)


class Sql(Tables):
    """A hospital's database, whose rows are read like those of tables.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
    """

    name = "sql"

    def __init__(self, settings: SqlSettings) -> None:
        super().__init__(settings)
        self._database = settings

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every patient of the stays, in the order of their identifiers.

        Raises:
            DataError: the database cannot be read, or does not fit the study.
            SettingsError: the settings contradict themselves.
        """
        with open_database(self._database) as database:
            self._read = partial(read_rows, database)
            return super().read_patients(study)


def read_rows(
    database: Database, settings: QuerySettings, columns: Sequence[str]
) -> Iterator[Piece]:
    """Yield the rows of a table, view or query, only these columns.

    Raises:
        DataError: a table or column is missing, reading failed, or a cell is neither text, number
            nor time.
    """
    wanted, place = list(dict.fromkeys(columns)), f"{database.name}: {settings.place}"
    statement: sql.Select[Any] | str = (settings.query or "").strip().rstrip(";")
    if settings.table is not None:
        schema, _, table = settings.table.rpartition(".")
        there = database.columns(table, schema or None)
        if not there:
            raise DataError(
                f"{place} is not there; correct [data] table in site.toml, or give this account "
                "the right to read it"
            )
        names = [_as_written(name, tuple(there.values())) for name in wanted]
        check_columns(tuple(there.values()), names, place)
        source = sql.table(table, *map(sql.column, dict.fromkeys(names)), schema=schema or None)
        statement = sql.select(*(source.c[name] for name in dict.fromkeys(names)))
    row = 1
    for given, rows in database.stream(statement, settings.place):
        names = [_as_written(name, given) for name in wanted]
        check_columns(given, names, place)
        frame = pl.DataFrame(
            [
                column(new, [one[given.index(name)] for one in rows], place)
                for new, name in zip(wanted, names, strict=True)
            ]
        )
        yield Piece(frame.with_row_index(ROW), place, row)
        row += len(rows)


def _as_written(name: str, names: Sequence[str]) -> str:
    """Return a column's name as the database writes it: capitals count only if they must."""
    same = [one for one in names if one.lower() == name.lower()]
    return same[0] if name not in names and len(same) == 1 else name


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
        return _times(name, cells, place, days=kinds == {dt.date})
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


def _times(name: str, cells: Sequence[Any], place: str, *, days: bool) -> pl.Series:
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
