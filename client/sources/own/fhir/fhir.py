"""FHIR R4, from a folder or a server: what was observed, diagnosed and given to patients.

::

    [data]
    source = "fhir"
    path = "export"                             # Patient.000.ndjson.gz, Bundles; or server = ...
    encounter_classes = ["IMP", "ACUTE"]

    [data.variables.HR]
    codes = ["http://loinc.org|8867-4"]         # the default; a code alone fits any system

    [data.outcome]
    kind = "condition"
    codes = ["http://snomed.info/sct|91302008"]

Codes are looked up in an Observation and in each of its components. An Observation that has only a
date, not a time, counts from the end of that day (``docs/time.md``). It belongs to the encounter
that it names, if that is a stay, or to every stay that holds its time. A Condition or a
MedicationAdministration has no number, so its variable's settings give one (``present``). A
MedicationRequest is not read: it is an order, which may not have been followed. A stay ends in
death if Patient.deceased lies within it, or if its discharge disposition is ``exp``. A Condition
counts from its onset; if that is missing, in its encounter; or else from when it was recorded.
Patients linked with each other (Patient.link) are one person, who has opted out if the file names
any of their identifiers. HL7,
"FHIR R4 (v4.0.1)", https://hl7.org/fhir/R4/, and "Bulk Data Access",
https://hl7.org/fhir/uv/bulkdata/
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from consilium.client.sources.common.source import CountedWithoutLabels, Patient, Tally
from consilium.client.sources.own.fhir import fhir_frames as frames
from consilium.client.sources.own.fhir.ndjson import Export, has_files
from consilium.client.sources.own.fhir.provenance import Provenance
from consilium.client.sources.own.patients.event_frames import (
    EventRows,
    static_frame,
    translation_of,
    without_values,
)
from consilium.client.sources.own.patients.one_person import with_former
from consilium.client.sources.own.patients.outcomes import with_outcome
from consilium.client.sources.own.patients.text_times import TextTimes
from consilium.client.sources.own.patients.translation import Translation
from consilium.client.sources.own.settings.systems import FhirSettings
from consilium.client.sources.own.times.axis import Axis
from consilium.client.sources.own.times.clock import clock_of
from consilium.shared.study.definition import Study

LOINC = "http://loinc.org"


def fhir_translation(study: Study, settings: FhirSettings) -> Translation:
    """Return the translation of codes and units; LOINC's codes where the settings give none.

    Raises:
        DataError: the study counts time in positions, or wants columns of codes.
        SettingsError: the settings contradict themselves.
    """
    return translation_of(study, settings, lambda known: known.loinc and f"{LOINC}|{known.loinc}")


class Fhir(CountedWithoutLabels):
    """A hospital's FHIR resources.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
        given: the resources, if they are neither in the settings' folder nor on their server.
        named: whether it is kept which resource each event comes from (:attr:`provenance`).
    """

    name = "fhir"
    person_key = "the Patient"

    def __init__(
        self, settings: FhirSettings, *, given: Export | None = None, named: bool = False
    ) -> None:
        self._settings, self._given, self._named = settings, given, named
        self._tally = Tally()
        self._rows: EventRows | None = None

    @property
    def provenance(self) -> Provenance:
        """Where the events of the latest reading come from."""
        assert self._rows is not None  # noqa: S101  # it was read
        return Provenance(self._rows.stays, self._rows.origins)

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every Patient who has a stay, in the order of their identifiers.

        Raises:
            DataError: the export cannot be read, or does not fit the study.
            SettingsError: the settings contradict themselves.
        """
        self._tally = Tally()
        translation = fhir_translation(study, self._settings)
        with self._export(drugs=bool(translation.wordless_codes)) as export:
            return self._read(export, translation, study)

    @contextmanager
    def _export(self, *, drugs: bool) -> Iterator[Path | Export]:
        """Give the resources or the folder of the export, or fetch it from the server."""
        if self._given is not None:
            yield self._given
            return
        if self._settings.path is not None:
            yield self._settings.path
            return
        from consilium.client.sources.own.fhir.fhir_server import fetched

        kinds = ["Patient", "Encounter", "Observation"]
        outcome = self._labelled and self._settings.outcome.codes
        kinds += ["Condition"] if drugs or outcome else []
        kinds += ["MedicationAdministration", "Medication"] if drugs else []
        with fetched(self._settings, kinds) as export:
            yield export

    def _read(
        self, folder: Path | Export, translation: Translation, study: Study
    ) -> Iterator[Patient]:
        axis = Axis(clock_of(self._settings.time_zone))
        times = TextTimes(axis, self._settings.midnight, self._tally)
        people, merged = frames.people(folder, self._tally)
        # The encounters' times come first: they say whether all have zones, and of which clock.
        encounters = frames.encounters(folder, self._settings, times, self._tally)
        encounters = frames.of_one(encounters, merged)
        people = frames.with_times(people, times)
        stays = static_frame(
            self._stays(folder, encounters, people, merged, times, study), people, study
        )
        rows = EventRows(
            translation,
            stays,
            study,
            self._tally,
            where=str(folder),
            if_none=frames.why_no_stay(self._settings, self._tally),
            clock=axis.clock,
        )
        self._rows = rows if self._named else None
        events = (
            (frames.of_one(piece, merged), where, kind)
            for piece, where, kind in self._events(folder, translation, times)
        )
        return with_former(rows.patients_with(events), merged)

    def _events(
        self, folder: Path | Export, translation: Translation, times: TextTimes
    ) -> Iterator[tuple[pl.DataFrame, str, str]]:
        """Yield rows of events, with their file and the kind of their resources."""
        codes = set(translation.codes)
        for piece, path in frames.observations(
            folder, codes, times, self._tally, named=self._named
        ):
            yield piece, str(path), "Observation"
        wordless = set(translation.wordless_codes)
        self._tally.absent.extend(
            f"{kind}.ndjson"
            for kind in ("Condition", "MedicationAdministration")
            if wordless and not has_files(folder, kind)
        )
        happened = frames.conditions(folder, wordless, self._tally, required=False)
        given = frames.administrations(folder, wordless, self._tally)
        for frame, kind in ((happened, "Condition"), (given, "MedicationAdministration")):
            rows = frame if self._named else frame.drop("reference")
            yield without_values(times.events(rows)), f"{folder}: {kind}", kind

    def _stays(
        self,
        folder: Path | Export,
        stays: pl.DataFrame,
        people: pl.DataFrame,
        merged: Mapping[str, str],
        times: TextTimes,
        study: Study,
    ) -> pl.DataFrame:
        """Return one row per stay, with its label; without labels it is 0 and means nothing."""
        if not self._labelled:
            return stays.with_columns(pl.lit(0.0).alias("label"))
        outcome = self._settings.outcome
        codes = set(map(str, outcome.codes))
        diagnoses = frames.conditions(folder, codes, self._tally, required=bool(codes))
        diagnoses = frames.of_one(diagnoses, merged)
        return with_outcome(
            stays,
            outcome,
            study,
            self._tally,
            deaths=frames.deaths(people, stays),
            conditions=frames.onsets(diagnoses, stays, times),
        )
