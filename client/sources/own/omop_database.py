"""Reads a hospital's OMOP database in one read-only transaction, rows in pieces.

PostgreSQL streams from a server-side cursor, in a transaction that the server keeps read-only and
that sees the same state of the data throughout. An SQLite file is opened read-only. A database's
error message can quote rows, so only its code is shown, except if the connection failed.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from consilium.client.sources.own.settings import OmopSettings
from consilium.shared.errors import DataError, SettingsError

PIECE_ROWS = 50_000
CONNECT_TIMEOUT_S = 15
LONGEST_SECRET = 4096


class ColumnKind(Enum):
    """What a column holds; the value is its polars type."""

    WHOLE = pl.Int64()
    NUMBER = pl.Float64()
    TIME = pl.Datetime("us")  # passed on as written: times, or the texts of SQLite
    TEXT = pl.String()


class ReadOnlyDatabase:
    """The database's tables, within one transaction.

    Args:
        connection: a connection in that transaction.
        schema: the schema of the tables.
        name: the database's name, for errors.
    """

    def __init__(self, connection: sql.Connection, schema: str | None, name: str) -> None:
        self._connection, self._schema, self.name = connection, schema, name
        self._postgresql = connection.dialect.name == "postgresql"
        self._columns: dict[str, set[str]] = {}
        self._zoned: set[tuple[str, str]] = set()

    def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns, empty if there is no such table."""
        if table not in self._columns:
            inspector = sql.inspect(self._connection)
            there = inspector.has_table(table, schema=self._schema)
            found = inspector.get_columns(table, schema=self._schema) if there else []
            self._columns[table] = {str(column["name"]).lower() for column in found}
            self._zoned |= {
                (table, str(column["name"]).lower())
                for column in found
                if getattr(column["type"], "timezone", False)
            }
        return self._columns[table]

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
        there = self.columns(table)
        missing = [name for name in named if name not in there]
        if missing:
            problem = f"no column {missing[0]!r}" if there else "no such table"
            raise DataError(
                f"{self.name}: table {table}: {problem}, which OMOP CDM 5.4 has; correct [data] "
                "database_schema in site.toml, or give this account the right to read it"
            )
        source = sql.table(table, *map(sql.column, dict.fromkeys(named)), schema=self._schema)
        query = sql.select(
            *(self._shown(source.c[name], kind).label(new) for new, (name, kind) in columns.items())
        ).order_by(*(source.c[name] for name in order))
        if only is not None:
            query = query.where(source.c[only[0]].in_(_listed(only[1])))
        kinds = {new: kind for new, (_, kind) in columns.items()}
        utc = {new for new, (name, _) in columns.items() if (table, name) in self._zoned}
        yield _frame([], kinds, utc)
        options = {"stream_results": True, "max_row_buffer": PIECE_ROWS}
        try:
            result = self._connection.execute(query, execution_options=options)
            for piece in result.partitions(PIECE_ROWS):
                yield _frame(piece, kinds, utc)
        except SQLAlchemyError as error:
            remedy = "see the server's log" if self._postgresql else "it is damaged, copy it again"
            raise DataError(
                f"{self.name}: reading table {table} failed ({_code(error)}); {remedy}"
            ) from error

    def _shown(self, column: sql.ColumnElement[Any], kind: ColumnKind) -> sql.ColumnElement[Any]:
        """Return the expression to select; not cast in SQLite, whose cells may have any type."""
        if not self._postgresql:
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
    name = str(settings.file) if settings.file is not None else "the database of [data] url"
    engine = _engine(settings)
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise DataError(
            f"{name} cannot be opened: {_first_line(error)}; check it, and [data] in site.toml"
        ) from error
    try:
        with connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            else:
                connection.exec_driver_sql("PRAGMA query_only = ON")
            yield ReadOnlyDatabase(connection, settings.database_schema, name)
    except SQLAlchemyError as error:
        raise DataError(
            f"{name} cannot be read ({_code(error)}); check it, and [data] in site.toml"
        ) from error
    finally:
        engine.dispose()


def _engine(settings: OmopSettings) -> sql.Engine:
    if settings.file is not None:
        if not settings.file.is_file():
            raise DataError(f"{settings.file} does not exist; correct [data] file in site.toml")
        address = f"file:{quote(str(settings.file))}?mode=ro"
        return sql.create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool
        )
    try:
        url = sql.make_url(settings.url or "")
    except (ArgumentError, ValueError) as error:
        raise SettingsError(
            "[data] url is no database address; write postgresql://user@host/database"
        ) from error
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise SettingsError(
            f"[data] url begins with {url.drivername!r}, and only postgresql:// can be kept from "
            "writing here; use it, or file for SQLite"
        )
    url = url.set(drivername="postgresql+psycopg", password=_password(settings))
    arguments = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "consilium-site"}
    return sql.create_engine(url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)


def _password(settings: OmopSettings) -> str | None:
    """Return the password from where the settings say; it is never shown.

    Raises:
        SettingsError: the password is not there, or readable by other accounts.
    """
    if settings.password_env is not None:
        if not os.environ.get(settings.password_env):
            raise SettingsError(
                f"[data] password_env: the environment has no {settings.password_env}; set it for "
                "the account that runs the site"
            )
        return os.environ[settings.password_env]
    if settings.password_file is None:
        return None
    return _secret(settings.password_file)


def _secret(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise SettingsError(
                    f"{path}: may be read by other accounts (mode {mode & 0o777:o}); run "
                    f"'chmod 600 {path}' and change the password"
                )
            text = file.read(LONGEST_SECRET + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: cannot be read as text; correct [data] password_file in site.toml"
        ) from error
    secret = text.rstrip("\r\n")
    if not secret or len(secret) > LONGEST_SECRET or "\n" in secret:
        raise SettingsError(f"{path}: must hold the password in one line, and nothing else")
    return secret


def _frame(
    rows: Sequence[Any], kinds: Mapping[str, ColumnKind], utc: Set[str] = frozenset()
) -> pl.DataFrame:
    """Return rows as columns of the given kinds; cells of another type become null."""
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    series = [_series(name, values, kinds[name]) for name, values in zip(kinds, cells, strict=True)]
    return pl.DataFrame(
        one.dt.replace_time_zone("UTC") if one.name in utc and one.dtype != pl.String else one
        for one in series
    )


def _series(name: str, values: Sequence[Any], kind: ColumnKind) -> pl.Series:
    try:
        if kind is not ColumnKind.TIME:
            return pl.Series(name, values, dtype=kind.value)
        if not any(isinstance(value, str) for value in values):
            return pl.Series(name, values, dtype=pl.Int64).cast(pl.Datetime("us"))
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        pass  # only SQLite has cells of another type than their column's
    if kind is ColumnKind.TIME:
        return pl.Series(name, [_fitting(one, kind) for one in values], dtype=pl.String)
    return pl.Series(name, [_fitting(one, kind) for one in values], dtype=kind.value)


def _fitting(cell: Any, kind: ColumnKind) -> Any:
    """Return the cell if it is of the kind, else None."""
    if kind is ColumnKind.NUMBER:
        return float(cell) if isinstance(cell, int | float) else None
    if kind is ColumnKind.WHOLE:
        return cell if isinstance(cell, int) and abs(cell) < 1 << 63 else None
    return cell if isinstance(cell, str) else None


def _code(error: SQLAlchemyError) -> str:
    """Return the kind of failure; the message itself could quote a row."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return type(error).__name__ + (f", SQLSTATE {state}" if state else "")


def _first_line(error: SQLAlchemyError) -> str:
    """Return the driver's reason why the connection failed."""
    lines = str(getattr(error, "orig", error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
