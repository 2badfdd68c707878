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

All else is as in ``tables``: see :mod:`consilium.client.sources.own.tables.tables`. The rows of
stays and of events are read in one transaction that only reads, in pieces.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import polars as pl
import sqlalchemy as sql

from consilium.client.sources.common.source import Patient
from consilium.client.sources.own.databases.cells import column
from consilium.client.sources.own.databases.database import Database, open_database
from consilium.client.sources.own.settings.systems import SqlSettings
from consilium.client.sources.own.settings.tables import QuerySettings
from consilium.client.sources.own.tables.table_files import ROW, Piece, check_columns
from consilium.client.sources.own.tables.tables import Tables
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study


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
            raise DataError(_absent(place))
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


def answer_of(settings: SqlSettings) -> str:
    """Connect as a reading would; return a sentence of what answered. No query is run.

    Raises:
        DataError: the database does not answer, or lacks a table that the settings name.
        SettingsError: the settings cannot be used, the password among them.
    """
    parts = [settings.stays, *settings.events, *([settings.labels] if settings.labels else [])]
    with open_database(settings) as database:
        for part in parts:
            if part.table is not None:
                schema, _, table = part.table.rpartition(".")
                if not database.columns(table, schema or None):
                    raise DataError(_absent(f"{database.name}: {part.place}"))
        tables = [part.table for part in parts if part.table is not None]
        return f"{database.name} answers" + (f", and has {', '.join(tables)}" if tables else "")


def _absent(place: str) -> str:
    return (
        f"{place} is not there; correct [data] table in site.toml, or give this account the right "
        "to read it"
    )
