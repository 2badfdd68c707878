"""The ``[data]`` tables of a hospital's own tables, in files or queries."""

import io
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from consilium.client.sources.common.settings import (
    FilePath,
    Listed,
    Number,
    SettingsPart,
    Where,
)
from consilium.client.sources.own.settings.hospital import HospitalSettings

TimeFormat = Annotated[str | tuple[str, ...] | None, Listed]
TimeColumn = Annotated[str | tuple[str, str], Listed]  # or a column of dates and one of times
HoursUnit = Literal["s", "min", "h", "d"]


def time_columns(*columns: str | tuple[str, str] | None) -> list[str]:
    """Return the names of the columns that times are read from."""
    return [
        name
        for column in columns
        if column is not None
        for name in ((column,) if isinstance(column, str) else column)
    ]


def _of_texts(name: str) -> str:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name).close()
    except (LookupError, ValueError):
        raise ValueError(
            f"{name[:40]!r} is no encoding of texts; write one such as 'latin-1', 'cp1252' or "
            "'utf-16'"
        ) from None
    return name


Encoding = Annotated[str, AfterValidator(_of_texts)]


class RowsSettings(SettingsPart):
    """How the texts of a table are written.

    ``time_format`` is one format or a list of them: as for strptime, or ``epoch`` (seconds since
    1970), ``epoch-ms``, ``excel`` (days since 1899-12-30).
    """

    decimal_comma: bool = False
    time_format: TimeFormat = None

    @property
    def place(self) -> str:
        """Where the rows are, for errors."""
        return "a table"


class FileSettings(RowsSettings):
    """A file of any form that :mod:`.tables.table_files` reads, or several.

    A pattern such as ``vitals/*.parquet`` names several files, a folder those within it, whose
    hive names (``year=2024/``) are columns. ``separator`` and ``encoding`` apply to CSV only,
    ``sheet`` to XLSX, by default the first.
    """

    file: FilePath
    separator: str = Field(default=",", min_length=1, max_length=1)
    encoding: Encoding = "utf-8"
    sheet: str | None = None

    @property
    def place(self) -> str:
        """Where the rows are, for errors."""
        return str(self.file)


class QuerySettings(RowsSettings):
    """A table or view of a database (``schema.name``), or a query that only reads."""

    table: str | None = Field(default=None, min_length=1)
    query: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _says_which_rows(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("names neither or both of table and query; name one")
        if self.query is not None and not re.match(
            r"\s*(select|with)\b", self.query, re.IGNORECASE
        ):
            raise ValueError("query begins with neither SELECT nor WITH; only reading is allowed")
        if self.query is not None and ";" in self.query.rstrip("; \n\t"):
            raise ValueError("query holds a ';'; write one statement, and no ';' within it")
        return self

    @property
    def place(self) -> str:
        """Where the rows are, for errors."""
        return f"table {self.table}" if self.table is not None else "a query of [data]"


class StaysColumns(RowsSettings):
    """The columns of a table of stays, one row per stay.

    Without ``stay``, every patient has one stay; without ``start``, events must give hours, not
    times. ``label`` names the outcome's column (several for a multilabel study); by default it is
    the study's label; ``values`` are the numbers of its words, such as ``{ ja = 1, nein = 0 }``.
    ``outcome_time`` is the time of the outcome, empty if it did not happen. A time may be two
    columns, of the date and of the time of day. ``end_hours`` and ``outcome_hours`` are numbers
    since the start, in ``hours_unit``. A study of survival needs two columns of ``label``, of the
    time and of the event; ``values`` are of the event's words. With ``repeated`` "first" a stay may
    stand in several rows, as in a table of visits: the first is taken, and all must have the same
    label.
    """

    patient: str
    stay: str | None = None
    start: TimeColumn | None = None
    end: TimeColumn | None = None
    birth: TimeColumn | None = None
    label: Annotated[str | tuple[str, ...] | None, Listed] = None
    values: dict[str, Number] = Field(default_factory=dict)
    outcome_time: TimeColumn | None = None
    end_hours: str | None = None
    outcome_hours: str | None = None
    hours_unit: HoursUnit = "h"
    repeated: Literal["refuse", "first"] = "refuse"

    @model_validator(mode="after")
    def _says_each_time_once(self) -> Self:
        if self.end is not None and self.end_hours is not None:
            raise ValueError("names end and end_hours; keep one")
        if self.outcome_time is not None and self.outcome_hours is not None:
            raise ValueError("names outcome_time and outcome_hours; keep one")
        return self


class StaysFile(FileSettings, StaysColumns):
    """A file of stays."""


class StaysQuery(QuerySettings, StaysColumns):
    """A database's rows of stays."""


class EventsColumns(RowsSettings):
    """The columns of a table of measurements: long (one per row) or wide (one column per variable).

    ``stay`` or ``patient`` assigns the rows; with ``patient`` alone, a row belongs to every stay
    that holds its time. ``time`` is a date and time, in one column or two; ``hours`` is a number
    since the stay's start, in ``hours_unit``. ``variables`` names those of the study's variables of
    which a wide table has a column; unless given, all of them.
    """

    layout: Literal["long", "wide"] = "long"
    stay: str | None = None
    patient: str | None = None
    time: TimeColumn | None = None
    hours: str | None = None
    hours_unit: HoursUnit = "h"
    variable: str | None = None
    value: str | None = None
    unit: str | None = None
    variables: Annotated[tuple[str, ...] | None, Listed] = None

    @model_validator(mode="after")
    def _says_whose_when_and_what(self) -> Self:
        if (self.stay is None) == (self.patient is None):
            raise ValueError("names neither or both of stay and patient; name one column")
        if (self.time is None) == (self.hours is None):
            raise ValueError("names neither or both of time and hours; name one column")
        if self.hours is not None and self.patient is not None:
            raise ValueError("hours count from the start of a stay; name the stay's column")
        if self.layout == "long" and (self.variable is None or self.value is None):
            raise ValueError("is long and names no variable or no value; name both columns")
        if self.layout == "long" and self.variables is not None:
            raise ValueError("is long, and variables names the columns of a wide one; remove it")
        return self


class EventsFile(FileSettings, EventsColumns):
    """A file of measurements."""


class EventsQuery(QuerySettings, EventsColumns):
    """A database's rows of measurements."""


class StepLabelsColumns(RowsSettings):
    """The columns of a table of a per-step study's label: one row per stay and hour (or time).

    ``values`` are the numbers of words, such as ``{ ja = 1, nein = 0 }``.
    """

    stay: str
    label: str
    values: dict[str, Number] = Field(default_factory=dict)
    hours: str | None = None
    hours_unit: HoursUnit = "h"
    time: TimeColumn | None = None

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if (self.time is None) == (self.hours is None):
            raise ValueError("names neither or both of time and hours; name one column")
        return self


class StepLabelsFile(FileSettings, StepLabelsColumns):
    """A file of a per-step study's label."""


class StepLabelsQuery(QuerySettings, StepLabelsColumns):
    """A database's rows of a per-step study's label."""


class MappedTables(HospitalSettings):
    """Tables of which the hospital names the columns, whatever holds them.

    ``where`` keeps only stays whose columns have these values.
    """

    stays: StaysFile | StaysQuery
    events: Annotated[tuple[EventsFile | EventsQuery, ...], Listed] = Field(min_length=1)
    labels: StepLabelsFile | StepLabelsQuery | None = None
    where: Where = Field(default_factory=dict)

    @model_validator(mode="after")
    def _times_count_from_a_start(self) -> Self:
        times = [one.time for one in self.events] + [self.labels.time if self.labels else None]
        if self.stays.start is None and any(times):
            raise ValueError(
                "has a table with times, and [data.stays] names no start to count them from; name "
                "its column, or give hours"
            )
        return self


class TablesSettings(MappedTables):
    """Files of tables."""

    stays: StaysFile
    events: Annotated[tuple[EventsFile, ...], Listed] = Field(min_length=1)
    labels: StepLabelsFile | None = None
