"""A database in a file, SQLite or DuckDB, opened to be read only."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl

from consilium.client.sources.common.needs import needs
from consilium.shared.errors import DataError
from consilium.simulations.guesses.written import ROWS, Written

_TABLES = {
    "sqlite": "select name from sqlite_master where type in ('table', 'view') "
    "and name not like 'sqlite_%'",
    "duckdb": "select table_name from information_schema.tables",
}


def opened(path: Path) -> Any:
    """Open the file.

    Raises:
        SettingsError: it is of DuckDB, whose library is missing.
    """
    if _kind(path) == "sqlite":
        return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    needs("duckdb", extra="sql", what=path.name)
    import duckdb

    return duckdb.connect(str(path), read_only=True)


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        return "sqlite" if file.read(16) == b"SQLite format 3\0" else "duckdb"


def is_database(path: Path) -> bool:
    """Return whether a file begins as one of SQLite or DuckDB does."""
    with path.open("rb") as file:
        first = file.read(16)
    return first == b"SQLite format 3\0" or first[8:12] == b"DUCK"


def names_in(path: Path) -> list[str]:
    """Return the names of its tables and views; none if it cannot be read."""
    try:
        with closing(opened(path)) as database:
            return sorted(str(name) for (name,) in asker(database)(_TABLES[_kind(path)]))
    except Exception:  # whatever a library raises of a file that is none
        return []


def asker(database: Any) -> Callable[[str], list[tuple[Any, ...]]]:
    """Return a function that asks an open database, and returns all rows."""
    return lambda statement: list(database.execute(statement).fetchall())


def tables_of(path: Path, *, whole: bool) -> Iterator[Written]:
    """Yield the first rows of its tables, or all.

    Raises:
        DataError: a table cannot be read.
    """
    for name in names_in(path):
        quoted = name.replace('"', '""')
        limit = "" if whole else f" limit {ROWS}"
        try:
            with closing(opened(path)) as database:
                asked = database.execute(f'select * from "{quoted}"{limit}')  # noqa: S608 - quoted
                columns = [str(one[0]) for one in asked.description]
                rows = asked.fetchall()
                frame = pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)
        except Exception as error:  # two libraries, and what polars makes of mixed cells
            raise DataError(
                f"{path}: table {name!r} cannot be read ({type(error).__name__}); name a query of "
                "it in settings as docs/data/sql.md shows"
            ) from error
        if len(frame):
            yield Written(path=path, frame=frame, table=name)
