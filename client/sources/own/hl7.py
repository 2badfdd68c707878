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
patient whose PID-30 does not deny it. Patients that were merged (A40 and its kind) are one person.
A result is an OBX at its own time (OBX-14) or its order's (OBR-7), of type NM, SN, ST or coded; one
that was withdrawn later (OBX-11: D, W, X) is not read, one that was corrected counts as corrected.
"""

from collections.abc import Iterator

import polars as pl

from consilium.client.sources.common.source import Counted, Patient, Tally
from consilium.client.sources.own.event_frames import EventRows, static_frame, translation_of
from consilium.client.sources.own.hl7_frames import Admissions, Reader
from consilium.client.sources.own.outcomes import with_outcome
from consilium.client.sources.own.settings import Hl7Settings
from consilium.shared.errors import DataError
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
        reader = Reader(self._settings, self._tally)
        known = reader.admissions()
        stays = static_frame(self._stays(known, study), _people(known), study)
        rows = EventRows(translation, stays, study, self._tally, where=str(path))
        for piece in reader.results(set(translation.codes), known):
            rows.add(piece, where=str(path))
        return rows.patients()

    def _stays(self, known: Admissions, study: Study) -> pl.DataFrame:
        """Return one row per stay, with its label."""
        kept = {
            key: visit
            for key, visit in known.visits.items()
            if not visit.cancelled and visit.patient_class in self._settings.patient_classes
        }
        if not kept:
            raise DataError(
                f"{self._settings.path}: none of its {len(known.visits)} visits is of the classes "
                f"{', '.join(self._settings.patient_classes)} (PV1-2); include ADT messages, or "
                "correct [data] patient_classes in site.toml"
            )
        stays = pl.DataFrame(
            [
                (known.patient(patient), number, visit.start, visit.end)
                for (patient, number), visit in kept.items()
            ],
            schema={
                "patient": pl.String, "stay": pl.String, "start": pl.Int64, "end": pl.Int64,
            },
            orient="row",
        )  # fmt: skip
        return with_outcome(
            stays.unique(maintain_order=True),
            self._settings.outcome,
            study,
            deaths=self._deaths(known),
            conditions=self._onsets(known),
        )

    def _deaths(self, known: Admissions) -> pl.DataFrame:
        """Return when patients died, for ``outcomes.with_outcome``."""
        rows = [
            (
                known.patient(name),
                one.death.us if one.death else None,
                bool(one.death and one.death.day),
            )
            for name, one in known.people.items()
            if one.dead
        ]
        rows += [
            (known.patient(patient), visit.end, False)
            for (patient, _), visit in known.visits.items()
            if visit.disposition in self._settings.died_dispositions and not visit.cancelled
        ]
        dated = {patient for patient, time, _ in rows if time is not None}
        return _dated([row for row in rows if row[1] is not None or row[0] not in dated])

    def _onsets(self, known: Admissions) -> pl.DataFrame:
        """Return when diagnoses began: at their time (DG1-5), or in their visit."""
        codes = set(map(str, self._settings.outcome.codes))
        rows = []
        for patient, number, code, time in known.diagnoses:
            if code in codes:
                visit = known.visits[patient, number]
                at = time.us if time else (visit.end or visit.start)
                rows.append((known.patient(patient), at, bool(time and time.day)))
        return _dated([row for row in rows if row[1] is not None])


def _dated(rows: list[tuple[str, int | None, bool]]) -> pl.DataFrame:
    schema = {"patient": pl.String, "time": pl.Int64, "whole_day": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _people(known: Admissions) -> pl.DataFrame:
    """Return one row each: ``patient``, ``birth``, ``male``; merged patients once."""
    schema = {"patient": pl.String, "birth": pl.Int64, "male": pl.Float64}
    rows = [(known.patient(name), one.birth, one.male) for name, one in known.people.items()]
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.group_by("patient", maintain_order=True).agg(
        pl.col("birth").drop_nulls().last(), pl.col("male").drop_nulls().last()
    )
