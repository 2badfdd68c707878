"""Data frames of stays and events as a hospital's tables, so that the same code reads both.

The frames lie in a temporary folder as Parquet, as long as the records that were made of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import static_names
from consilium.simulations.api.folders import Folder
from consilium.simulations.api.frames import INSTALL
from consilium.simulations.cohorts.records_file import RecordsFile
from consilium.simulations.cohorts.records_plan import Collection

if TYPE_CHECKING:
    import polars as pl

_OF_STAYS = ("start", "end", "birth", "outcome_time", "label")
_OF_EVENTS = ("time", "hours", "variable", "value", "unit")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the frames' columns; None if the usual name is meant, if it is there at all."""

    person: str
    stay: str | None = None
    start: str | None = None
    end: str | None = None
    birth: str | None = None
    outcome_time: str | None = None
    label: str | None = None
    time: str | None = None
    hours: str | None = None
    variable: str | None = None
    value: str | None = None
    unit: str | None = None

    @classmethod
    def of(cls, person: str, names: Mapping[str, str | None]) -> Self:
        """Return the names given.

        Raises:
            SettingsError: there is no such column to be named.
        """
        known = [one.name for one in fields(cls) if one.name != "person"]
        if unknown := [name for name in names if name not in known]:
            raise SettingsError(
                f"records: {unknown[0]!r} is no column that can be named; choose among "
                f"{', '.join(known)}"
            )
        return cls(person=person, **names)


class FrameRecords:
    """Frames of stays and events.

    Args:
        stays: polars, pandas, or another frame that exports Arrow or the interchange protocol.
        events: the same.
        columns: the names of their columns.
        variables: as ``[data.variables]``.
        units: as ``[data] units``.
        in_study_units: whether values without a unit are in the study's.

    Raises:
        SettingsError: polars is not installed, these are no frames, or a column is missing.
    """

    def __init__(
        self,
        stays: Any,
        events: Any,
        columns: Columns,
        *,
        variables: Mapping[str, Mapping[str, Any]],
        units: Mapping[str, str],
        in_study_units: bool,
    ) -> None:
        self._stays, self._events = _polars(stays, "stays"), _polars(events, "events")
        self._columns, self._in_study_units = columns, in_study_units
        self._variables = {name: dict(table) for name, table in variables.items()}
        self._units = dict(units)
        self._tables = {"stays": self._stay_table(), "events": [self._event_table()]}
        self._folder = Folder()
        for name, frame in (("stays", self._stays), ("events", self._events)):
            frame.write_parquet(self._folder.path / f"{name}.parquet")

    def collection(self, study: Study) -> Collection:
        """Return the frames as settings of records, with the columns of the study's variables."""
        variables = {name: dict(table) for name, table in self._variables.items()}
        for name in static_names(study):
            table = variables.setdefault(name, {})
            if "column" not in table and name in self._stays.columns:
                table["column"] = name
        if self._in_study_units:
            for name, variable in study.variables.items():
                variables.setdefault(name, {}).setdefault("unit", variable.unit)
        used = {name: table for name, table in variables.items() if table}
        data = {"source": "tables", **self._tables, "variables": used, "units": self._units}
        return Collection(
            file=RecordsFile(data=data),
            where="the frames",
            base=self._folder.path,
            keeps=self._folder,
        )

    def _stay_table(self) -> dict[str, Any]:
        names = self._columns
        table: dict[str, Any] = {"file": "stays.parquet", "patient": names.person}
        _require(self._stays, names.person, "stays")
        for key in ("stay", *_OF_STAYS):
            found = _column(self._stays, key, getattr(names, key), "stays")
            if found is not None:
                table[key] = found
        return table

    def _event_table(self) -> dict[str, Any]:
        names, events = self._columns, self._events
        stay = self._tables_stay()
        table: dict[str, Any] = {"file": "events.parquet", "stay": stay}
        if stay not in events.columns and names.person in events.columns and names.hours is None:
            table = {"file": "events.parquet", "patient": names.person}
        else:
            _require(events, stay, "events")
        for key in _OF_EVENTS:
            found = _column(events, key, getattr(names, key), "events")
            if found is not None:
                table[key] = found
        if "variable" not in table:
            table["layout"] = "wide"
            for key in ("value", "unit"):
                table.pop(key, None)
        if "time" in table and "hours" in table:
            table.pop("hours" if names.hours is None else "time")
        return table

    def _tables_stay(self) -> str:
        """Return the column of the events that names the stay; the person's, if each has one."""
        stay = _column(self._stays, "stay", self._columns.stay, "stays")
        return stay if stay is not None else self._columns.person


def _column(frame: "pl.DataFrame", usual: str, given: str | None, what: str) -> str | None:
    if given is not None:
        _require(frame, given, what)
        return given
    return usual if usual in frame.columns else None


def _require(frame: "pl.DataFrame", name: str, what: str) -> None:
    if name not in frame.columns:
        raise SettingsError(
            f"records: the frame of {what} has no column {name!r}; its columns are "
            f"{', '.join(map(str, frame.columns[:12]))}"
        )


def _polars(given: Any, what: str) -> "pl.DataFrame":
    """Return a frame as one of polars.

    Raises:
        SettingsError: polars is not installed, or this is no frame.
    """
    try:
        import polars as pl
    except ImportError as error:
        raise SettingsError(
            f"records: frames need polars, which is not installed; {INSTALL}"
        ) from error
    if isinstance(given, pl.LazyFrame):
        return given.collect()
    if isinstance(given, pl.DataFrame):
        return given
    for convert, offered in (
        (pl.DataFrame, "__arrow_c_stream__"),
        (pl.from_dataframe, "__dataframe__"),
    ):
        if not hasattr(given, offered):
            continue
        try:
            return convert(given)
        except ImportError:  # pandas needs pyarrow for Arrow; the other protocol may do without
            continue
        except Exception as error:
            raise SettingsError(
                f"records: the frame of {what} cannot be taken over; give each column one kind of "
                "values, texts, numbers or times, or make it a frame of polars"
            ) from error
    raise SettingsError(
        f"records: {what} is a {type(given).__name__}, not a data frame of polars or pandas; give "
        "one of these"
    )
