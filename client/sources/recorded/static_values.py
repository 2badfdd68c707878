"""Static variables of records and scans: from the table beside them, or from their own headers."""

import math
from collections.abc import Collection, Mapping

from consilium.client.sources.common.reasons import NOT_A_NUMBER, STAGE_NO_NUMBER
from consilium.client.sources.common.source import Tally
from consilium.client.sources.recorded.record_settings import StaticVariable
from consilium.client.sources.recorded.record_table import RecordTable, cell_number
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study
from consilium.shared.study.units import conversion

UNKNOWN = frozenset({"?", "-", "n/a", "na", "nan", "none", "null", "unknown"})


def require_places(
    names: Collection[str], said: Mapping[str, StaticVariable], header: str, study: Study
) -> None:
    """Check that of each static variable the settings say one place.

    Args:
        names: the static variables that are not computed.
        said: ``[data.variables]``.
        header: the other place than a column, for the error: ``comment`` or ``attribute``.
        study: has the variables.

    Raises:
        SettingsError: of one they say none or several.
    """
    for name in names:
        one = said.get(name)
        if one is None or (one.column is None) == (getattr(one, header) is None):
            raise SettingsError(
                f"[data.variables.{name}] must say the column or the {header} of a static variable "
                f"of study {study.name}; name one of the two"
            )


def require_columns(said: Mapping[str, StaticVariable], table: RecordTable | None) -> None:
    """Check that the table has the columns that the settings name.

    Raises:
        SettingsError: there is no table.
        DataError: a column is not in it.
    """
    for name, one in said.items():
        if one.column is None:
            continue
        if table is None:
            raise SettingsError(
                f"[data.variables.{name}] names column {one.column!r}, and there is no table; name "
                "it as [data.labels] file"
            )
        if one.column not in table.columns:
            raise DataError(
                f"labels {table.path} have no column {one.column!r}, which [data.variables.{name}] "
                f"names; it has {', '.join(map(repr, table.columns))}"
            )


def static_value(
    cell: str, said: StaticVariable, name: str, study: Study, tally: Tally, *, unit: str | None
) -> float:
    """Return a static variable's value in the study's unit; NaN if it is not known.

    Args:
        cell: as written, with its blanks.
        said: gives words their numbers.
        name: the variable's name in the study.
        study: has the variable's unit.
        tally: counts values that are not known, and those that are no number.
        unit: UCUM unit of the number; None if it is the study's.

    Raises:
        UnitError: the unit measures something else than the study's.
    """
    try:
        value = cell_number(cell, said.values)
    except ValueError:
        value = math.nan
        if cell.strip().casefold() not in UNKNOWN:
            tally.count(NOT_A_NUMBER, 1)
            tally.ends(STAGE_NO_NUMBER, name, 1)
    if math.isnan(value):
        tally.missing_static[name] = tally.missing_static.get(name, 0) + 1
        return value
    if unit is None:
        return value
    return conversion(unit, study.variables[name].unit, variable=name)(value)
