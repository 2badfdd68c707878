"""HL7 version 2 messages in files: stays and deaths from ADT, results from ORU.

::

    [data]
    source = "hl7"
    path = "messages"                 # a file, a pattern or a folder
    patient_classes = ["I"]           # PV1-2 of the visits that count as stays

    [data.variables.HR]
    codes = ["LN|8867-4"]             # the default, LOINC; a code alone counts in any system

A stay is a visit (PV1-19), from its admission (PV1-44, or the time of A01 or A04) to its discharge
(PV1-45, or the time of A03); A08 corrects it, A11 and A13 cancel it. A death is PID-29, for a
patient whose PID-30 does not deny it. Patients that were merged (A40 and its kind) are one person,
who has opted out if the file names any of their identifiers.
A result is an OBX at its own time (OBX-14) or its order's (OBR-7), of type NM, SN, ST or coded; one
that was withdrawn later (OBX-11: D, W, X) is not read, one that was corrected counts as corrected.
"""

from collections.abc import Iterator

import polars as pl

from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.client.sources.own.hl7.hl7_frames import Admissions, Reader
from consilium.client.sources.own.patients.event_frames import (
    EventRows,
    static_frame,
    translation_of,
)
from consilium.client.sources.own.patients.one_person import with_former
from consilium.client.sources.own.patients.outcomes import with_outcome
from consilium.client.sources.own.patients.text_times import TextTimes
from consilium.client.sources.own.settings.systems import Hl7Settings
from consilium.client.sources.own.times.axis import Axis
from consilium.client.sources.own.times.clock import clock_of
from consilium.shared.study.definition import Study

LOINC = "LN"


class Hl7(Counted):
    """A hospital's HL7 messages.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
    """

    name = "hl7"

    def __init__(self, settings: Hl7Settings) -> None:
        self._settings = settings
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every patient who has a stay, in the order of their identifiers.

        Raises:
            DataError: the messages cannot be read, or do not fit the study.
            SettingsError: the settings contradict themselves.
        """
        self._tally = Tally()
        path = self._settings.path
        translation = translation_of(
            study, self._settings, lambda known: known.loinc and f"{LOINC}|{known.loinc}"
        )
        axis = Axis(clock_of(self._settings.time_zone))
        times = TextTimes(axis, self._settings.midnight, self._tally)
        reader = Reader(self._settings, self._tally)
        known = reader.admissions()
        # The visits' times come first: they say whether all have zones, and of which clock.
        visits = self._visits(known, times)
        people = times.column(_people(known), "birth")
        stays = static_frame(self._labelled(visits, known, times, study), people, study)
        rows = EventRows(
            translation,
            stays,
            study,
            self._tally,
            where=str(path),
            if_none=self._if_none(known),
            clock=axis.clock,
        )
        results = reader.results(set(translation.codes), known)
        rows_of = ((times.events(piece), str(path), "OBX") for piece in results)
        merged = {old: known.patient(old) for old in known.merged}
        return with_former(rows.patients_with(rows_of), merged)

    def _visits(self, known: Admissions, times: TextTimes) -> pl.DataFrame:
        """Return one row per stay: ``patient``, ``stay``, ``start``, ``end``, ``died``."""
        kept = {
            key: visit
            for key, visit in known.visits.items()
            if not visit.cancelled and visit.patient_class in self._settings.patient_classes
        }
        dispositions = self._settings.died_dispositions
        rows = [
            (known.patient(patient), number, one.start, one.end, one.disposition in dispositions)
            for (patient, number), one in kept.items()
        ]
        schema = dict.fromkeys(("patient", "stay", "start", "end"), pl.String())
        frame = pl.DataFrame(rows, schema={**schema, "died": pl.Boolean()}, orient="row")
        frame = times.column(times.column(frame.unique(maintain_order=True), "start"), "end")
        return times.axis.stays_read(frame, times.midnight, self._tally)

    def _if_none(self, known: Admissions) -> str:
        return (
            f"none of its {len(known.visits)} visits is of the classes "
            f"{', '.join(self._settings.patient_classes)} (PV1-2) and was not cancelled; include "
            "ADT messages, or correct [data] patient_classes in site.toml"
        )

    def _labelled(
        self, stays: pl.DataFrame, known: Admissions, times: TextTimes, study: Study
    ) -> pl.DataFrame:
        """Return the stays with their labels."""
        rows = [(known.patient(name), one.death) for name, one in known.people.items() if one.dead]
        schema = {"patient": pl.String, "time": pl.String}
        dated = pl.DataFrame(rows, schema=schema, orient="row").unique(maintain_order=True)
        left = stays.filter("died").select("patient", pl.col("end").alias("time"))
        deaths = pl.concat([times.column(dated, "time", or_day=True), left])
        timed = deaths.drop_nulls("time")
        codes = set(map(str, self._settings.outcome.codes))
        found = [
            (known.patient(patient), number, time)
            for patient, number, code, time in known.diagnoses
            if code in codes
        ]
        schema = {"patient": pl.String, "stay": pl.String, "time": pl.String}
        diagnoses = times.column(
            pl.DataFrame(found, schema=schema, orient="row"), "time", or_day=True
        )
        ends = stays.select("stay", within=pl.coalesce("end", "start")).unique("stay")
        onsets = diagnoses.join(ends, on="stay", how="left", maintain_order="left").select(
            "patient", time=pl.coalesce("time", "within")
        )
        return with_outcome(
            stays,
            self._settings.outcome,
            study,
            self._tally,
            deaths=pl.concat([timed, deaths.join(timed, on="patient", how="anti")]),
            conditions=onsets.drop_nulls("time"),
        )


def _people(known: Admissions) -> pl.DataFrame:
    """Return one row each: ``patient``, ``birth``, ``male``; merged patients once."""
    schema = {"patient": pl.String, "birth": pl.String, "male": pl.Float64}
    rows = [
        (known.patient(name), (one.birth or "")[:10] or None, one.male)
        for name, one in known.people.items()
    ]
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.group_by("patient", maintain_order=True).agg(
        pl.col("birth").drop_nulls().last(), pl.col("male").drop_nulls().last()
    )
