"""The one door of records: what holds for every source, whatever it reads.

Persons who opted out do not pass it. A unit that is not understood ends the reading, with all such
spellings at once, unless the caller asks for their counts.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from consilium.client.sources.common.opt_outs import OptOuts
from consilium.client.sources.common.source import (
    Patient,
    ReadReport,
    Source,
    UnknownUnit,
    WithColumns,
    WithoutLabels,
)
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.unit_spellings import ucum_of
from consilium.shared.study.units import UnitError

MANY_LOST = 0.05  # share of a variable's rows; a reading that loses more is not what was meant
MOST_LINES = 40


class Door:
    """A source behind the door.

    Args:
        source: the records.
        opted_out: file of the persons who opted out, None if the hospital keeps none.
        counts_units: whether rows in a unit that is not understood are left out and counted, for
            ``check`` and for a running site, or end the reading.
    """

    def __init__(self, source: Source, *, opted_out: Path | None, counts_units: bool) -> None:
        self._source, self._file, self._counts_units = source, opted_out, counts_units
        self._named, self._left, self._passed = 0, 0, (0, 0, 0)

    @property
    def name(self) -> str:
        """See :class:`consilium.client.sources.common.source.Source`."""
        return self._source.name

    @property
    def leaves_out(self) -> bool:
        """Whether persons are left out who opted out, so that perhaps nobody is left."""
        return self._file is not None

    @property
    def report(self) -> ReadReport:
        """Counts of the latest reading; of persons who opted out only how many."""
        report = self._source.report
        if self._file is None:
            return report
        patients, stays, events = self._passed
        return replace(
            report,
            patients=patients,
            stays=stays,
            events=events,
            opted_out=(self._left, self._named),
        )

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield the source's patients but those who opted out.

        Raises:
            DataError: as the source does; the file of those who opted out cannot be read; or more
                than 5 % of a variable's rows are in units that are not understood.
        """
        opted = OptOuts() if self._file is None else OptOuts.read(self._file)
        self._named, self._left, self._passed = len(opted), 0, (0, 0, 0)
        return self._pass(self._source.read_patients(study), opted)

    def _pass(self, patients: Iterator[Patient], opted: OptOuts) -> Iterator[Patient]:
        checked = self._counts_units
        for patient in patients:
            if not checked:
                checked = True
                refuse_units(self._source.report)
            if opted.persons and opted.name(patient.patient_id, *patient.former_ids):
                self._left += 1
                continue
            if self._file is not None:
                before, stays = self._passed, patient.stays
                events = sum(len(stay.hours_E) for stay in stays)
                self._passed = (before[0] + 1, before[1] + len(stays), before[2] + events)
            yield patient


class DoorWithoutLabels(Door):
    """The same for a source that can be read without outcomes, for prediction."""

    def without_labels(self) -> Self:
        """See :class:`consilium.client.sources.common.source.WithoutLabels`."""
        source = self._source
        assert isinstance(source, WithoutLabels)  # noqa: S101 - behind_door makes no other
        return type(self)(
            source.without_labels(), opted_out=self._file, counts_units=self._counts_units
        )


class DoorWithColumns(Door):
    """The same for a source that tells a column of its stays, for dealing persons out."""

    def stay_column(self, column: str) -> Mapping[str, str]:
        """See :class:`consilium.client.sources.common.source.WithColumns`."""
        source = self._source
        assert isinstance(source, WithColumns)  # noqa: S101 - behind_door makes no other
        return source.stay_column(column)


class DoorWithBoth(DoorWithoutLabels, DoorWithColumns):
    """The same for a source that can do both."""


def behind_door(source: Source, *, opted_out: Path | None, counts_units: bool) -> Door:
    """Put a source behind the door."""
    kinds = {
        (False, False): Door,
        (True, False): DoorWithoutLabels,
        (False, True): DoorWithColumns,
        (True, True): DoorWithBoth,
    }
    kind = kinds[isinstance(source, WithoutLabels), isinstance(source, WithColumns)]
    return kind(source, opted_out=opted_out, counts_units=counts_units)


def refuse_units(report: ReadReport) -> None:
    """Refuse records of which many rows are in units that are not understood.

    Raises:
        DataError: more than 5 % of a variable's rows are; the sentence names the first spelling,
            counts the others, and shows what to write in site.toml.
    """
    of_variable: dict[str, int] = {}
    for one in report.unknown_units:
        of_variable[one.variable] = of_variable.get(one.variable, 0) + one.rows
    many = {
        name for name, rows in of_variable.items() if rows > MANY_LOST * max(1, report.rows(name))
    }
    found = [one for one in report.unknown_units if one.variable in many]
    if not found:
        return
    first, line = found[0], units_line(report.unknown_units)
    more = ""
    if len(found) > 1:
        more = f"; {len(found) - 1} more spellings of units are not understood"
        more += f", so write [data] {line}" if line else ""
    raise DataError(f"{first.where}: {first.told}{more}")


def units_line(unknown: Iterable[UnknownUnit]) -> str:
    """Return ``units = { "spelling" = "?", ... }``: what the hospital has to explain, or nothing.

    A question mark that is left is no unit, so nothing is guessed.
    """
    pairs = dict.fromkeys(
        f'{_toml(one.unit)} = "?"' for one in unknown if one.unit and needs_line(one.unit)
    )
    return f"units = {{ {', '.join(list(pairs)[:MOST_LINES])} }}" if pairs else ""


def needs_line(unit: str) -> bool:
    """Whether a spelling is not known, so that the hospital has to say what it means."""
    try:
        ucum_of(unit)
    except UnitError:
        return True
    return False


def _toml(text: str) -> str:
    shown = text.replace("\\", "\\\\").replace('"', '\\"')
    return (
        '"' + "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in shown) + '"'
    )
