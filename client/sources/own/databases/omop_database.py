"""Reads the tables of a hospital's OMOP database, in pieces, whatever database holds them.

Columns come in the kinds that the model gives them. Times are passed on as written: times, days or
texts. A cell of another kind is null.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from decimal import Decimal
from enum import Enum
from typing import Any

import polars as pl
import sqlalchemy as sql

from consilium.client.sources.own.databases import database
from consilium.client.sources.own.databases.cells import times
from consilium.client.sources.own.databases.database import Database
from consilium.client.sources.own.settings.systems import OmopSettings
from consilium.shared.errors import DataError


class ColumnKind(Enum):
    """What a column holds; the value is its polars type."""

    WHOLE = pl.Int64()
    NUMBER = pl.Float64()
    TIME = pl.Datetime("us")  # passed on as written: times, days, or texts
    TEXT = pl.String()


class ReadOnlyDatabase:
    """The database's tables, within one transaction.

    Args:
        reader: the database.
        schema: the schema of the tables.
    """

    def __init__(self, reader: Database, schema: str | None) -> None:
        self._reader, self._schema, self.name = reader, schema, reader.name
        self._names: dict[str, str] = {}

    def table(self, name: str) -> str | None:
        """Return a table as the database writes it: in small letters or in capitals."""
        if name not in self._names:
            for written in (name, name.upper()):
                if self._reader.columns(written, self._schema):
                    self._names[name] = written
                    break
        return self._names.get(name)

    def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns, empty if there is no such table."""
        written = self.table(table)
        return set(self._reader.columns(written, self._schema)) if written else set()

    def rows(
        self,
        table: str,
        columns: Mapping[str, tuple[str, ColumnKind]],
        *,
        only: tuple[str, Sequence[int | str]] | None = None,
        order: Sequence[str] = (),
    ) -> Iterator[pl.DataFrame]:
        """Yield rows in pieces, at least one, which may be empty.

        Args:
            table: its name.
            columns: the column and its kind, by the name that the result gets.
            only: a column and its allowed values; other rows are left out.
            order: columns to sort by.

        Raises:
            DataError: the table or a column of it is missing, or reading failed.
        """
        named = [*(name for name, _ in columns.values()), *order, *([only[0]] if only else ())]
        written = self.table(table)
        there = self._reader.columns(written, self._schema) if written else {}
        missing = [name for name in named if name not in there]
        if missing or written is None:
            problem = f"no column {missing[0]!r}" if there else "no such table"
            raise DataError(
                f"{self.name}: table {table}: {problem}, which OMOP CDM 5.4 has; correct [data] "
                "database_schema in site.toml, or give this account the right to read it"
            )
        described = self._reader.described(written, self._schema)
        texts = {name for name, kind in described.items() if kind == "text"}
        utc = {new for new, (name, _) in columns.items() if described.get(name) == "zoned"}
        source = sql.table(
            written, *(sql.column(there[n]) for n in dict.fromkeys(named)), schema=self._schema
        )
        query = sql.select(
            *(
                self._shown(source.c[there[name]], kind, text=name in texts).label(new)
                for new, (name, kind) in columns.items()
            )
        ).order_by(*(source.c[there[name]] for name in order))
        if only is not None:
            query = query.where(source.c[there[only[0]]].in_(_listed(only[1])))
        kinds = {new: kind for new, (_, kind) in columns.items()}
        for _, piece in self._reader.stream(query, f"table {table}"):
            yield _frame(piece, kinds, utc, epoch=bool(described))

    def _shown(
        self, column: sql.ColumnElement[Any], kind: ColumnKind, *, text: bool
    ) -> sql.ColumnElement[Any]:
        """Return the expression to select; not cast where cells may have any type."""
        if self._reader.dialect != "postgresql" or text:
            return column
        if kind is ColumnKind.NUMBER:
            return sql.cast(column, sql.Double)
        if kind is ColumnKind.TIME:
            seconds = sql.case((sql.func.isfinite(column), sql.extract("epoch", column)))
            return sql.cast(seconds * 1_000_000, sql.BigInteger)
        return column


def _listed(values: Sequence[int | str]) -> sql.BindParameter[Any]:
    """Write the values into the statement: there may be more than the limit for parameters."""
    kind = sql.Integer() if all(isinstance(value, int) for value in values) else sql.String()
    return sql.bindparam(None, values, type_=kind, expanding=True, literal_execute=True)


@contextmanager
def open_database(settings: OmopSettings) -> Iterator[ReadOnlyDatabase]:
    """Connect, for one read-only transaction.

    Raises:
        SettingsError: the settings cannot be used.
        DataError: the database cannot be reached or read.
    """
    with database.open_database(settings) as reader:
        yield ReadOnlyDatabase(reader, settings.database_schema)


def _frame(
    rows: Sequence[Any], kinds: Mapping[str, ColumnKind], utc: Set[str], *, epoch: bool
) -> pl.DataFrame:
    """Return rows as columns of the given kinds; cells of another type become null."""
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    series = [
        _times(name, values, epoch=epoch)
        if kinds[name] is ColumnKind.TIME
        else _series(name, values, kinds[name])
        for name, values in zip(kinds, cells, strict=True)
    ]
    return pl.DataFrame(
        one.dt.replace_time_zone("UTC") if one.name in utc and one.dtype != pl.String else one
        for one in series
    )


def _series(name: str, values: Sequence[Any], kind: ColumnKind) -> pl.Series:
    try:
        return pl.Series(name, values, dtype=kind.value)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        # Some databases have cells of another type than their column's.
        return pl.Series(name, [_fitting(one, kind) for one in values], dtype=kind.value)


def _times(name: str, values: Sequence[Any], *, epoch: bool) -> pl.Series:
    """Return times; whole numbers are microseconds since 1970 if ``epoch``, else texts."""
    kinds = {type(one) for one in values if one is not None}
    if kinds <= {dt.datetime, dt.date}:
        return times(name, values, f"column {name}", days=False)
    if epoch and kinds == {int}:
        return pl.Series(name, values, dtype=pl.Int64).cast(pl.Datetime("us"))
    texts = [str(one) if isinstance(one, str | int) else None for one in values]
    return pl.Series(name, texts, dtype=pl.String)


def _fitting(cell: Any, kind: ColumnKind) -> Any:
    """Return the cell as one of the kind, else None."""
    if isinstance(cell, Decimal):
        cell = int(cell) if cell.is_finite() and cell == cell.to_integral_value() else float(cell)
    if kind is ColumnKind.NUMBER:
        return _number(cell)
    if kind is ColumnKind.WHOLE:
        whole = _whole(cell)
        return whole if whole is not None and abs(whole) < 1 << 63 else None
    return cell if isinstance(cell, str) else None


def _number(cell: Any) -> float | None:
    """Return a number, also one that an extract of texts holds."""
    if isinstance(cell, str):
        try:
            cell = float(cell) if "_" not in cell else None
        except ValueError:
            return None
    try:
        return float(cell) if isinstance(cell, int | float) else None
    except OverflowError:
        return None


def _whole(cell: Any) -> int | None:
    """Return a whole number, also one that an extract of texts holds."""
    if isinstance(cell, str):
        digits = cell.strip().removeprefix("-")
        return int(cell) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() and abs(cell) < 1 << 53 else None
    return cell if isinstance(cell, int) else None
