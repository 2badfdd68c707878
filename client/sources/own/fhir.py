"""FHIR R4 bulk exports: what was observed, diagnosed and given to patients, as NDJSON.

::

    [data]
    source = "fhir"
    path = "export"                             # Patient.000.ndjson.gz and so on
    encounter_classes = ["IMP", "ACUTE"]

    [data.variables.HR]
    codes = ["http://loinc.org|8867-4"]         # the default; a code alone fits any system

    [data.outcome]
    kind = "condition"
    codes = ["http://snomed.info/sct|91302008"]

Codes are looked up in an Observation and in each of its components. An Observation that has only a
date, not a time, is set aside, since the hour is not known. A Condition or a
MedicationAdministration has no number, so its variable's settings give one (``present``). A
MedicationRequest is not read: it is an order, which may not have been followed. A stay ends in
death if Patient.deceased lies within it, or if its discharge disposition is ``exp``. A Condition
counts from its onset; if that is missing, in its encounter; or else from when it was recorded. HL7,
"FHIR R4 (v4.0.1)", https://hl7.org/fhir/R4/, and "Bulk Data Access",
https://hl7.org/fhir/uv/bulkdata/
"""

from collections.abc import Iterator

import polars as pl

from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.client.sources.own import fhir_frames as frames
from consilium.client.sources.own.event_frames import (
    EventRows,
    static_frame,
    translation_of,
    without_values,
)
from consilium.client.sources.own.ndjson import has_files
from consilium.client.sources.own.outcomes import with_outcome
from consilium.client.sources.own.settings import FhirSettings
from consilium.shared.study.definition import Study

LOINC = "http://loinc.org"


class Fhir(Counted):
    """A hospital's bulk export.

    Args:
        settings: the ``[data]`` table of ``site.toml``.
    """

    name = "fhir"

    def __init__(self, settings: FhirSettings) -> None:
        self._settings = settings
        self._tally = Tally()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every Patient who has a stay, in the order of their identifiers.

        Raises:
            DataError: the export cannot be read, or does not fit the study.
            SettingsError: the settings contradict themselves.
        """
        self._tally = Tally()
        folder = self._settings.path
        translation = translation_of(
            study, self._settings, lambda known: known.loinc and f"{LOINC}|{known.loinc}"
        )
        people = frames.people(folder, self._tally)
        stays = static_frame(self._stays(people, study), people, study)
        rows = EventRows(
            translation,
            stays,
            study,
            self._tally,
            where=str(folder),
            if_none=frames.why_no_stay(self._settings, self._tally),
        )
        for piece, path in frames.observations(folder, set(translation.codes), self._tally):
            rows.add(piece, where=str(path))
        wordless = set(translation.wordless_codes)
        self._tally.absent.extend(
            f"{kind}.ndjson"
            for kind in ("Condition", "MedicationAdministration")
            if wordless and not has_files(folder, kind)
        )
        happened = frames.conditions(folder, wordless, self._tally, required=False)
        rows.add(without_values(happened), where=f"{folder}: Condition")
        given = frames.administrations(folder, wordless, self._tally)
        rows.add(without_values(given), where=f"{folder}: MedicationAdministration")
        return rows.patients()

    def _stays(self, people: pl.DataFrame, study: Study) -> pl.DataFrame:
        """Return one row per stay, with its label."""
        folder, outcome = self._settings.path, self._settings.outcome
        stays = frames.encounters(folder, self._settings, self._tally)
        codes = set(map(str, outcome.codes))
        diagnoses = frames.conditions(folder, codes, self._tally, required=bool(codes))
        return with_outcome(
            stays,
            outcome,
            study,
            deaths=frames.deaths(people, stays),
            conditions=frames.onsets(diagnoses, stays),
        )
