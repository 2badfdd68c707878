"""Opens a hospital's database in one transaction that only reads, and streams rows in pieces.

SQLAlchemy speaks to it: PostgreSQL, and SQLite and DuckDB files; SQL Server and Oracle by their
dialects, which nothing here has been tried with. PostgreSQL streams from a cursor at the server, in
a transaction that the server keeps read-only and that sees one state of the data throughout. Files
are opened read-only. What is read elsewhere is never committed: the transaction is rolled back.

A database's error message can quote rows, so only its code is shown, except if the connection
failed; the password is shown nowhere.
"""

import importlib.util
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from consilium.client.sources.common.needs import needs
from consilium.client.sources.own.settings.systems import DatabaseSettings
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.files.permissions import read_by_others

PIECE_ROWS = 50_000
CONNECT_TIMEOUT_S = 15
LONGEST_SECRET = 4096
_DRIVERS = {  # by the beginning of the address: the driver, and how its library is installed
    "postgresql": ("postgresql+psycopg", "psycopg", "consilium-fl[sql]"),
    "mssql": ("mssql+pyodbc", "pyodbc", "pyodbc"),
    "oracle": ("oracle+oracledb", "oracledb", "oracledb"),
}


class Database:
    """A database within one transaction that only reads.

    Args:
        connection: a connection in that transaction.
        name: the database's name, for errors.
    """

    def __init__(self, connection: sql.Connection, name: str) -> None:
        self._connection, self.name = connection, name
        self._columns: dict[tuple[str | None, str], dict[str, str]] = {}

    @property
    def dialect(self) -> str:
        """The kind of database: ``postgresql``, ``sqlite``, ``duckdb``, ``mssql``, ``oracle``."""
        return self._connection.dialect.name

    def columns(self, table: str, schema: str | None) -> dict[str, str]:
        """Return a table's columns by their names in small letters, as the database writes them.

        Empty if there is no such table or view, or this account may not read it.
        """
        if (schema, table) not in self._columns:
            inspector = sql.inspect(self._connection)
            found: dict[str, str] = {}
            if inspector.has_table(table, schema=schema):
                # Not the inspector's: it asks some databases for catalogues that they lack.
                source = sql.table(table, schema=schema)
                nothing = sql.select(sql.text("*")).select_from(source).where(sql.false())
                names = tuple(self._connection.execute(nothing).keys())
                found = {str(name).lower(): str(name) for name in names}
            self._columns[schema, table] = found
        return self._columns[schema, table]

    def described(self, table: str, schema: str | None) -> dict[str, str]:
        """Return which of a table's columns are ``text`` or times with a zone (``zoned``).

        By names in small letters; of PostgreSQL only, where a column has one type.
        """
        if self.dialect != "postgresql":
            return {}
        return {
            str(one["name"]).lower(): "text"
            if isinstance(one["type"], sql.String)
            else "zoned"
            if getattr(one["type"], "timezone", False)
            else "other"
            for one in sql.inspect(self._connection).get_columns(table, schema=schema)
        }

    def stream(
        self, statement: "sql.Select[Any] | str", what: str
    ) -> Iterator[tuple[tuple[str, ...], Sequence[Any]]]:
        """Yield names of columns, and rows in pieces of at most ``PIECE_ROWS``; at least one piece.

        Args:
            statement: what to read; a text is passed to the database as it is.
            what: names it in errors.

        Raises:
            DataError: reading failed.
        """
        options: dict[str, Any] = {"stream_results": True, "max_row_buffer": PIECE_ROWS}
        try:
            if isinstance(statement, str):
                options["no_parameters"] = True  # a '%' or ':' in it means itself
                result = self._connection.exec_driver_sql(statement, execution_options=options)
            else:
                result = self._connection.execute(statement, execution_options=options)
            names = tuple(map(str, result.keys()))
            pieces = result.partitions(PIECE_ROWS)
            yield names, next(pieces, [])
            for piece in pieces:
                yield names, piece
        except SQLAlchemyError as error:
            remedy = {
                "postgresql": "see the server's log",
                "sqlite": "it is damaged, or the query is not SQLite's: correct it, or copy it "
                "again",
            }.get(self.dialect, "try it in the database's own client")
            raise DataError(
                f"{self.name}: reading {what} failed ({code(error)}); {remedy}"
            ) from error


@contextmanager
def open_database(settings: DatabaseSettings) -> Iterator[Database]:
    """Connect, for one transaction that only reads.

    Raises:
        SettingsError: the settings cannot be used.
        DataError: the database cannot be reached or read.
    """
    name = str(settings.file) if settings.file is not None else "the database of [data] url"
    password = _password(settings)
    engine = _engine(settings, password)
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        reason = _first_line(error)
        if password:
            reason = reason.replace(password, "***")
        raise DataError(
            f"{name} cannot be opened: {reason}; check it, and [data] in site.toml"
        ) from error
    try:
        with connection:
            _only_read(connection)
            yield Database(connection, name)
    except SQLAlchemyError as error:
        raise DataError(
            f"{name} cannot be read ({code(error)}); check it, and [data] in site.toml"
        ) from error
    finally:
        engine.dispose()


def _only_read(connection: sql.Connection) -> None:
    """Begin a transaction that the database itself keeps from writing, where it can."""
    kind = connection.dialect.name
    if kind == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    elif kind == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    elif kind == "duckdb":  # read-only since it was opened
        connection.exec_driver_sql("SET enable_progress_bar = false")
    elif kind == "oracle":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _engine(settings: DatabaseSettings, password: str | None) -> sql.Engine:
    if settings.file is not None:
        return _file_engine(settings.file, settings.source)
    try:
        url = sql.make_url(settings.url or "")
    except (ArgumentError, ValueError) as error:
        raise SettingsError(
            "[data] url is no database address; write postgresql://user@host/database"
        ) from error
    kind = url.get_backend_name()
    if kind not in _DRIVERS:
        raise SettingsError(
            f"[data] url begins with {url.drivername!r}, and only postgresql://, mssql:// and "
            "oracle:// are known; use one of them, or file for SQLite and DuckDB"
        )
    driver, library, package = _DRIVERS[kind]
    if url.drivername not in (kind, driver):
        raise SettingsError(f"[data] url begins with {url.drivername!r}; write {kind}://")
    if importlib.util.find_spec(library) is None:
        raise SettingsError(
            f"[data] url needs the library {library!r}, which is not installed; install it with: "
            f"pip install '{package}'"
        )
    arguments: dict[str, Any] = {}
    if kind == "postgresql":
        arguments = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "consilium-site"}
    return sql.create_engine(
        url.set(drivername=driver, password=password),
        connect_args=arguments,
        poolclass=NullPool,
        hide_parameters=True,
    )


def _file_engine(file: Path, source: str) -> sql.Engine:
    """Return the engine of an SQLite or a DuckDB file, by its first bytes."""
    if not file.is_file():
        raise DataError(f"{file} does not exist; correct [data] file in site.toml")
    try:
        with file.open("rb") as content:
            duck = content.read(12)[8:] == b"DUCK"
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if not duck and file.suffix.lower() not in (".duckdb", ".ddb"):
        address = f"file:{quote(str(file))}?mode=ro"
        return sql.create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool
        )
    for library in ("duckdb", "duckdb_engine"):
        needs(library, extra="sql", what=f"source {source!r} with a DuckDB file")
    # Nothing is fetched from elsewhere, whatever a query names.
    config = {"autoinstall_known_extensions": "false"}
    return sql.create_engine(
        sql.URL.create("duckdb", database=str(file)),
        connect_args={"read_only": True, "config": config},
        poolclass=NullPool,
        hide_parameters=True,
    )


def _password(settings: DatabaseSettings) -> str | None:
    """Return the password from where the settings say; it is never shown.

    Raises:
        SettingsError: the password is not there, or readable by other accounts.
    """
    if settings.password_env is not None:
        return secret_of_environment(settings.password_env, "password_env")
    if settings.password_file is None:
        return None
    return secret_of_file(settings.password_file, "password_file", what="the password")


def secret_of_environment(name: str, key: str) -> str:
    """Return a secret that an environment variable holds.

    Raises:
        SettingsError: there is no such variable; ``key`` names the setting.
    """
    if not os.environ.get(name):
        raise SettingsError(
            f"[data] {key}: the environment has no {name}; set it for the account that runs the "
            "site"
        )
    return os.environ[name]


def secret_of_file(path: Path, key: str, *, what: str, lines: bool = False) -> str:
    """Return a secret that a file of mode 0600 holds, one line unless ``lines``.

    Raises:
        SettingsError: the file cannot be read, or other accounts may read it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if read_by_others(status):
                raise SettingsError(
                    f"{path}: may be read by other accounts (mode {status.st_mode & 0o777:o}); run "
                    f"'chmod 600 {path}' and change {what}"
                )
            text = file.read(LONGEST_SECRET * (8 if lines else 1) + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: cannot be read as text; correct [data] {key} in site.toml"
        ) from error
    if lines:
        return text
    secret = text.rstrip("\r\n")
    if not secret or len(secret) > LONGEST_SECRET or "\n" in secret:
        raise SettingsError(f"{path}: must hold {what} in one line, and nothing else")
    return secret


def code(error: SQLAlchemyError) -> str:
    """Return the kind of failure; the message itself could quote a row."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return type(error).__name__ + (f", SQLSTATE {state}" if state else "")


def _first_line(error: SQLAlchemyError) -> str:
    """Return the driver's reason why the connection failed."""
    lines = str(getattr(error, "orig", error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
