"""FHIR resources as events of the streaming scorer, beside its own lines.

A line that is an Encounter begins a stay, or ends it; one that is a Patient adds age and sex; an
Observation adds what it and its components measured. Codes, units and times are read by the code
of the FHIR source. An Observation that comes again replaces what it said before, and one that was
entered in error withdraws it: the stay is then computed anew from the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from consilium.client.bedside.assessment import written_in_fhir
from consilium.client.bedside.scorer import MOST_STAYS, Scorer
from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.fhir import fhir_frames as frames
from consilium.client.sources.own.fhir.fhir import fhir_translation
from consilium.client.sources.own.fhir.given import Given
from consilium.client.sources.own.fhir.ndjson import at, identity, reference, text
from consilium.client.sources.own.patients.event_frames import static_frame
from consilium.client.sources.own.patients.event_times import vague
from consilium.client.sources.own.patients.stay_frames import stay_table
from consilium.client.sources.own.patients.text_times import TextTimes
from consilium.client.sources.own.settings.systems import FhirSettings
from consilium.client.sources.own.times.axis import Axis
from consilium.client.sources.own.times.clock import clock_of
from consilium.client.sources.own.times.spans import US_PER_HOUR
from consilium.shared.errors import DataError
from consilium.shared.export.signed_model import SignedModel

KINDS = ("Encounter", "Patient", "Observation")
RETRACTED = ("entered-in-error", "cancelled")
OVER = ("finished", *RETRACTED)
STATIC = "static"  # under which a stay's static values are kept among its events
Resource = Mapping[str, Any]


@dataclass(kw_only=True, repr=False)
class _Known:
    """A stay: its Encounter, its start (microseconds since 1970), its events by their resource."""

    encounter: dict[str, Any]
    patient: str
    start_us: int
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class FhirStream:
    """A scorer that takes FHIR resources, too.

    Args:
        signed: the model.
        settings: how this hospital writes FHIR; None takes LOINC's codes.
        scorer: takes the events.

    Raises:
        DataError: the model does not read the first hours of a stay.
        SettingsError: the settings contradict themselves.
    """

    def __init__(self, signed: SignedModel, settings: FhirSettings | None, scorer: Scorer) -> None:
        self._study, self._scorer = signed.trained.study, scorer
        if not self._study.data.fixed:
            raise DataError(
                "this model's window does not begin with the stay, so the hours of a FHIR resource "
                "are not those of the model; send events with their hours"
            )
        self._settings = written_in_fhir(settings)
        self._translation = fhir_translation(self._study, self._settings)
        self._axis = Axis(clock_of(self._settings.time_zone))
        self._patients: dict[str, dict[str, Any]] = {}
        self._known: dict[str, _Known] = {}

    def take(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Take one resource and answer it.

        Raises:
            DataError: it cannot be used; nothing of it is kept.
        """
        kind = resource.get("resourceType")
        if kind not in KINDS:
            raise DataError(f"resources of the stream are {', '.join(KINDS)}; send one of them")
        own = text(resource, "id")
        if reference(resource) is None or own is None:
            raise DataError(f"the {kind} has no id as FHIR has them; send it with its id")
        if kind == "Encounter":
            return self._encounter(own, resource)
        if kind == "Patient":
            return self._patient(own, resource)
        return self._observation(f"{kind}/{own}", resource)

    def _times(self, tally: Tally) -> TextTimes:
        return TextTimes(self._axis, self._settings.midnight, tally)

    def _encounter(self, own: str, resource: dict[str, Any]) -> dict[str, Any]:
        if text(resource, "status") in OVER:
            if self._known.pop(own, None) is None:
                raise DataError("the Encounter is over, and no stay of it is known here")
            if text(resource, "status") in RETRACTED:
                self._scorer.forget(own)
            else:
                self._scorer.take({"stay": own, "end": True})
            self._forget_patients()
            return {"stay": own, "ended": True}
        if own not in self._known and len(self._known) >= MOST_STAYS:
            raise DataError(f"{MOST_STAYS} stays are kept already; send the Encounters that ended")
        before = self._known.get(own)
        known = self._stay(resource)
        if before is not None:
            known.events = {**before.events, **known.events}
            if known.start_us != before.start_us:
                raise DataError("the Encounter's start has changed; end it, and send it all again")
        self._known[own] = known
        return self._again(own) if before is not None else self._answer(own, known.events[STATIC])

    def _stay(self, encounter: dict[str, Any]) -> _Known:
        """Return the stay of an Encounter, with the static values that are known."""
        tally = Tally()
        patient = identity(at(encounter, "subject")) or ""
        given = Given([encounter, *filter(None, [self._patients.get(patient)])], name="the stream")
        times = self._times(tally)
        stays = frames.encounters(given, self._settings, times, tally)
        people = frames.with_times(frames.people(given, tally)[0], times)
        table = stay_table(
            static_frame(stays.with_columns(pl.lit(0.0).alias("label")), people, self._study),
            self._study,
            tally,
            where="the stream",
            if_none=frames.why_no_stay(self._settings, tally),
        )
        names, stay = list(self._study.variables), text(encounter, "id")
        static = [
            self._event(str(stay), 0.0, names[index], float(values[0]))
            for index, values in table.static.items()
            if values[0] == values[0]  # is known
        ]
        return _Known(
            encounter=encounter,
            patient=patient,
            start_us=int(table.start_N[0]),
            events={STATIC: static},
        )

    def _patient(self, own: str, resource: dict[str, Any]) -> dict[str, Any]:
        if own not in self._patients and len(self._patients) >= MOST_STAYS:
            raise DataError(
                f"{MOST_STAYS} patients are kept already; send the Encounters that ended"
            )
        self._patients[own] = resource
        stays = [name for name, known in self._known.items() if known.patient == own]
        for name in stays:
            self._known[name].events |= self._stay(self._known[name].encounter).events
            self._again(name)
        return {"patient": own, "stays": stays}

    def _observation(self, own: str, resource: dict[str, Any]) -> dict[str, Any]:
        if text(resource, "status") in RETRACTED:
            for name, known in self._known.items():
                if known.events.pop(own, None) is not None:
                    return self._again(name)
            raise DataError("the Observation is withdrawn, and was not used here")
        name, events = self._events(resource)
        known = self._known[name]
        replaces = own in known.events
        if not replaces:
            answer = self._answer(name, events)
            known.events[own] = events
            return answer
        known.events[own] = events
        return self._again(name)

    def _events(self, resource: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
        """Return the stay of an Observation and its events.

        Raises:
            DataError: it names no stay known here, no variable, no usable time, number or unit.
        """
        tally, codes = Tally(), set(self._translation.codes)
        given = Given([resource], name="the Observation")
        ((rows, _),) = frames.observations(given, codes, self._times(tally), tally)
        if rows.is_empty():
            raise DataError("the Observation has no code of this model's variables")
        if rows["time"].null_count() or "zoneless" in rows.columns or vague(rows).any():
            raise DataError(
                "the Observation has no effective time that says the day, and a zone if it says "
                "the hour; send it with one"
            )
        done = self._translation.translate(rows, tally, where="the Observation", when="time")
        for unknown in tally.unknown_units.values():
            raise DataError(f"the Observation: {unknown.told}")
        if len(done) < len(rows):
            raise DataError("the Observation has a value that is no number; send a valueQuantity")
        when = done["until" if "until" in done.columns else "time"].to_list()
        name = self._stay_of(resource, min(when))
        names, start = list(self._study.variables), self._known[name].start_us
        events = [
            self._event(name, (moment - start) / US_PER_HOUR, names[variable], value)
            for moment, variable, value in zip(when, done["variable"], done["value"], strict=True)
        ]
        if not all(0 <= event["hours"] <= self._study.data.window_h for event in events):
            raise DataError(
                f"the Observation is not of the first {self._study.data.window_h} hours, which the "
                "model reads"
            )
        return name, events

    def _stay_of(self, resource: Resource, moment: int) -> str:
        """Return the stay that an Observation names, or its patient's last one begun by then."""
        named, patient = identity(at(resource, "encounter")), identity(at(resource, "subject"))
        if named in self._known and self._known[str(named)].patient == patient:
            return str(named)
        begun = [
            (known.start_us, name)
            for name, known in self._known.items()
            if known.patient == patient and known.start_us <= moment
        ]
        if patient is None or not begun:
            raise DataError("the Observation is of no stay known here; send its Encounter first")
        return max(begun)[1]

    def _event(self, stay: str, hours: float, variable: str, value: float) -> dict[str, Any]:
        unit = self._study.variables[variable].unit
        return {"stay": stay, "hours": hours, "variable": variable, "value": value, "unit": unit}

    def _again(self, name: str) -> dict[str, Any]:
        """Compute a stay anew from its events."""
        self._scorer.forget(name)
        events = [event for listed in self._known[name].events.values() for event in listed]
        return self._answer(name, sorted(events, key=lambda event: float(event["hours"])))

    def _answer(self, name: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        """Give events to the scorer; return its last answer, with the warnings of all."""
        answer, warnings = self._scorer.take({"stay": name, "hours": 0.0}), list[str]()
        for event in events:
            answer = self._scorer.take(event)
            warnings += answer["warnings"]
        return answer | {"warnings": warnings}

    def _forget_patients(self) -> None:
        wanted = {known.patient for known in self._known.values()}
        self._patients = {own: one for own, one in self._patients.items() if own in wanted}
