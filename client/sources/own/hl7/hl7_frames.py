"""HL7 messages as tables: stays and deaths from ADT, results from ORU.

The messages are read twice, since a later one may change what an earlier one said: first the
admissions, discharges, cancellations and merges of patients, and which results were withdrawn; then
the results. Messages of ADT count in the order of their times (MSH-7).
"""

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import polars as pl

from consilium.client.sources.common.reasons import BEYOND_LIMIT, INCOMPLETE, RETRACTED, UNREADABLE
from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.hl7.hl7_messages import Message, files_of, messages
from consilium.client.sources.own.patients.event_frames import SCHEMA
from consilium.client.sources.own.settings.systems import Hl7Settings
from consilium.shared.errors import DataError

SEX = {"M": 1.0, "F": 0.0}
PIECE_ROWS = 50_000
RAW: dict[str, type[pl.DataType]] = {**SCHEMA, "time": pl.String, "stay": pl.String}
_ADMITS = frozenset({"A01", "A02", "A03", "A04", "A06", "A07", "A08", "A13"})
_MERGES = frozenset({"A18", "A34", "A36", "A39", "A40", "A46", "A47"})
_WITHDRAWN = frozenset("DWX")  # deleted, wrong, cannot be obtained
_NO_RESULT = frozenset("IOS")  # in the laboratory, ordered only, partial
_TIME = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?"
    r"([+-]\d{4})?"
)
_LIMIT = re.compile(r"(<=|>=|<|>)\s*([+-]?\d*\.?\d+)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


@lru_cache(maxsize=1 << 16)
def iso(written: str, zone: str = "") -> str | None:
    """Return a time of HL7 (TS, DTM) as ISO 8601 writes it, as precise as it is; None for others.

    Args:
        written: ``YYYY[MM[DD[HH[MM[SS[.S]]]]]][+ZZZZ]``.
        zone: the message's offset (of MSH-7), for a time with an hour that says none.
    """
    found = _TIME.fullmatch(written)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    days = "-".join(filter(None, (year, month, day)))
    if hour is None:
        return days
    clock = f"{days}T{hour}:{minute or '00'}:{second or '00'}" + (
        f".{fraction}" if fraction else ""
    )
    offset = offset or zone
    return f"{clock}{offset[:3]}:{offset[3:]}" if offset else clock


@dataclass
class Visit:
    """What the messages so far say of one visit."""

    patient_class: str = ""
    start: str | None = None
    end: str | None = None
    disposition: str = ""
    cancelled: bool = False


@dataclass
class Person:
    """What the messages so far say of one patient."""

    male: float | None = None
    birth: str | None = None
    death: str | None = None
    dead: bool = False


@dataclass(repr=False)
class Admissions:
    """What all ADT messages together say, and which results were withdrawn; times in ISO 8601.

    ``merged`` leads from an identifier that is used no more to the patient's.
    """

    people: dict[str, Person] = field(default_factory=dict)
    visits: dict[tuple[str, str], Visit] = field(default_factory=dict)
    diagnoses: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    merged: dict[str, str] = field(default_factory=dict)
    withdrawn: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def patient(self, identifier: str) -> str:
        """Return the identifier to which all merges lead."""
        seen = set()
        while identifier in self.merged and identifier not in seen:
            seen.add(identifier)
            identifier = self.merged[identifier]
        return identifier


class Reader:
    """Reads one folder of messages.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
        tally: counts what is set aside.
    """

    def __init__(self, settings: Hl7Settings, tally: Tally) -> None:
        self._settings, self._tally = settings, tally
        self.assigners: set[str] = set()

    def admissions(self) -> Admissions:
        """Return what all messages say of patients and visits.

        Raises:
            DataError: the messages cannot be read, or identifiers of several assigners mix.
        """
        found = Admissions()
        told: list[tuple[str, int, Message]] = []
        for number, message in self._messages(count=True):
            if message.kind == "ADT":
                sent = message.part(message.first("MSH", 7), 1)
                told.append((sent, number, _kept(message)))
            elif message.kind == "ORU":
                self._note_withdrawn(message, number, found)
        for _, _, message in sorted(told, key=lambda one: one[:2]):
            self._note(message, found)
        if len(self.assigners) > 1:
            raise DataError(
                f"{self._settings.path}: identifiers of patients (PID-3) are of "
                f"{len(self.assigners)} assigners, and one number may stand for several persons; "
                "name the one to use as assigner in [data] of site.toml"
            )
        return found

    def results(self, codes: Set[str], known: Admissions) -> Iterator[pl.DataFrame]:
        """Yield the results with these codes, with texts as times, at least one piece."""
        rows: list[tuple[Any, ...]] = []
        for number, message in self._messages(count=False):
            if message.kind == "ORU":
                rows.extend(self._rows(message, number, codes, known))
            if len(rows) >= PIECE_ROWS:
                yield pl.DataFrame(rows, schema=RAW, orient="row")
                rows = []
        yield pl.DataFrame(rows, schema=RAW, orient="row")

    def _messages(self, *, count: bool) -> Iterator[tuple[int, Message]]:
        number = 0
        for path in files_of(self._settings.path):
            for message in messages(path, self._settings.encoding):
                number += 1
                if message is not None:
                    yield number, message
                elif count:
                    self._tally.count(UNREADABLE, 1)

    def _time(self, message: Message, written: str) -> str | None:
        sent = _TIME.fullmatch(message.part(message.first("MSH", 7), 1))
        return iso(message.part(written, 1), (sent[8] or "") if sent else "")

    def _person(self, message: Message, name: str = "PID", number: int = 3) -> str:
        """Return the patient's identifier, empty if there is none of the assigner wanted."""
        listed = [
            [message.text(part) for part in one.split(message.marks[1])]
            for one in message.repetitions(message.first(name, number))
        ]
        wanted = self._settings.assigner
        if wanted is not None:
            listed = [one for one in listed if _assigner(one, message) == wanted]
        for kind in ("PI", "MR", None):
            for one in listed:
                if one[0] and (kind is None or one[4:5] == [kind]):
                    self.assigners.add(_assigner(one, message))
                    return one[0]
        return ""

    def _visit(self, message: Message) -> str:
        """Return the visit's number, empty if the message names none."""
        where = ("PV1", 19) if self._settings.visit == "PV1-19" else ("PID", 18)
        return message.part(message.first(*where), 1)

    def _note(self, message: Message, found: Admissions) -> None:
        """Take over what one ADT message says."""
        identifier, event = self._person(message), message.event
        old = self._person(message, "MRG", 1) if event in _MERGES else ""
        if old and identifier and old != identifier and found.patient(identifier) != old:
            found.merged[old] = identifier
        if not identifier:
            self._tally.count(INCOMPLETE, 1)
            return
        person = found.people.setdefault(identifier, Person())
        person.birth = self._time(message, message.first("PID", 7)) or person.birth
        person.male = SEX.get(message.first("PID", 8), person.male)
        if (died := message.first("PID", 30)) or message.first("PID", 29):
            person.dead = died != "N"
            person.death = self._time(message, message.first("PID", 29)) if person.dead else None
        self._note_visit(message, identifier, event, found)

    def _note_visit(self, message: Message, identifier: str, event: str, found: Admissions) -> None:
        number = self._visit(message)
        key = (identifier, number)
        if not number:
            if event in _ADMITS:
                self._tally.count(INCOMPLETE, 1)
            return
        if event == "A11":
            if key in found.visits:
                found.visits[key].cancelled = True
            return
        if event not in _ADMITS:
            return
        visit = found.visits.setdefault(key, Visit())
        happened = message.first("EVN", 6) or message.first("EVN", 2)
        admitted = self._time(message, message.first("PV1", 44))
        left = self._time(message, message.first("PV1", 45))
        if event in ("A01", "A04"):
            visit.cancelled = False
            admitted = admitted or self._time(message, happened)
        if event == "A03":
            left = left or self._time(message, happened)
        visit.patient_class = message.first("PV1", 2) or visit.patient_class
        visit.disposition = message.part(message.first("PV1", 36), 1) or visit.disposition
        visit.start, visit.end = admitted or visit.start, left or visit.end
        if event == "A13":
            visit.end, visit.disposition = None, ""
        for one in message.all("DG1"):
            time = self._time(message, message.field(one, 5))
            for code in _codes(message, message.field(one, 3)):
                found.diagnoses.append((identifier, number, code, time))

    def _note_withdrawn(self, message: Message, number: int, found: Admissions) -> None:
        for identifier, code, _, when, obx in self._measured(message):
            if message.field(obx, 11) in _WITHDRAWN:
                found.withdrawn[identifier, code, when] = number

    def _measured(
        self, message: Message
    ) -> Iterator[tuple[str, str, tuple[str, ...], str, list[str]]]:
        """Yield each result: patient, first code, all codes, time as written, its segment."""
        identifier, ordered = self._person(message), ""
        for segment in message.segments:
            if segment[0] == "PID":
                identifier = self._person(message)
            elif segment[0] == "OBR":
                ordered = message.field(segment, 7)
            elif segment[0] == "OBX":
                codes = tuple(_codes(message, message.field(segment, 3)))
                if codes:
                    yield (
                        identifier,
                        codes[0],
                        codes,
                        message.field(segment, 14) or ordered,
                        segment,
                    )

    def _rows(
        self, message: Message, number: int, codes: Set[str], known: Admissions
    ) -> Iterator[tuple[Any, ...]]:
        for identifier, first, written, when, obx in self._measured(message):
            code = next((one for one in written if one in codes), None)
            if code is None:
                continue
            status = message.field(obx, 11)
            if status in _WITHDRAWN or known.withdrawn.get((identifier, first, when), 0) > number:
                self._tally.count(RETRACTED, 1)
                continue
            if status in _NO_RESULT:
                continue
            value, word, limit = _value(message, obx)
            self._tally.count(BEYOND_LIMIT, int(limit))
            unit = message.part(message.field(obx, 6), 1) or None
            stay = self._visit(message) or None
            time = self._time(message, when)
            patient = known.patient(identifier) or None
            yield patient, time, code, value, unit, word, stay


def _assigner(identifier: list[str], message: Message) -> str:
    """Return who gave an identifier out: the first part of CX.4."""
    return identifier[3].split(message.marks[4:5] or "&")[0] if identifier[3:] else ""


def _kept(message: Message) -> Message:
    """Return an ADT message without the segments that are not read."""
    names = ("MSH", "EVN", "PID", "PV1", "DG1", "MRG")
    return Message(tuple(one for one in message.segments if one[0] in names), message.marks)


def _codes(message: Message, field: str) -> Iterator[str]:
    """Yield a coded field's codes, each with its system and alone."""
    parts = [*message.parts(field), "", "", "", "", ""][:6]
    for code, system in ((parts[0], parts[2]), (parts[3], parts[5])):
        if code:
            yield f"{system}|{code}"
            yield code


def _value(message: Message, obx: list[str]) -> tuple[float | None, str | None, bool]:
    """Return a result's number, its word, and whether the number is a limit."""
    kind, written = message.field(obx, 2), message.field(obx, 5)
    if len(message.repetitions(written)) > 1:
        return None, None if kind in ("NM", "SN") else message.text(written) or None, False
    if kind == "SN":
        comparator, first, mark, _ = [*message.parts(written), "", "", "", ""][:4]
        if mark or comparator not in ("", "=", "<", ">", "<=", ">="):
            return None, "a range", False  # or a ratio, or 'not equal'
        number = _number(first)
        return number, None if number is not None else first or None, comparator[:1] in ("<", ">")
    if kind in ("CE", "CWE", "CNE", "CF"):
        parts = message.parts(written)
        return None, next((one for one in parts[:2] if one), None), False
    text = message.text(written)
    if (limit := _LIMIT.fullmatch(text)) is not None:
        return float(limit[2]), None, True
    number = _number(text)
    return number, None if number is not None else text or None, False


def _number(text: str) -> float | None:
    text = text.strip()
    return float(text) if text.isascii() and _NUMBER.fullmatch(text) else None
