"""One stay assessed by a finished model: its answer, or in a sentence why there is none.

Every program at the bedside that speaks FHIR asks here: the stays come through the one reader of
FHIR and the one door of records, are cut as ``predict`` cuts them, and become inputs by the code
that training used.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from consilium.client.bedside.prediction import inputs_of, unlabelled
from consilium.client.explain.answers import answers_of
from consilium.client.explain.stay_stream import StreamedModel
from consilium.client.records.features import to_grid, to_tensors
from consilium.client.records.running_features import Layout
from consilium.client.records.windows import cut_for_scoring, scoring_span, used_events
from consilium.client.sources.common.door import behind_door
from consilium.client.sources.common.source import Patient, Source, Stay
from consilium.client.sources.own.fhir.fhir import Fhir
from consilium.client.sources.own.fhir.given import Given
from consilium.client.sources.own.fhir.provenance import Provenance
from consilium.client.sources.own.settings.systems import FhirSettings
from consilium.shared.export.signed_model import SignedModel
from consilium.shared.study.definition import Study

POPULATION = ("Age",)  # a value outside the study's range means another population, not a slip


@dataclass(frozen=True, kw_only=True, repr=False)
class Assessment:
    """What a model says of a stay.

    Attributes:
        patient_id, stay_id: whose.
        refused: why there is no answer, one sentence; empty if there is one.
        outputs: as :func:`consilium.client.explain.answers.answers_of` has them.
        missing: variables without a value in the window.
        basis: references to the resources that were used, if they are known.
        begin, end: of the window, UTC; None if the stay's start has no date.
        inputs: the bytes of what the model read, for a digest.
    """

    patient_id: str
    stay_id: str
    refused: str = ""
    outputs: tuple[dict[str, Any], ...] = ()
    missing: tuple[str, ...] = ()
    basis: tuple[str, ...] = ()
    begin: datetime | None = None
    end: datetime | None = None
    inputs: bytes = b""

    def __repr__(self) -> str:
        return "Assessment(...)"


class Assessor:
    """Assesses stays by one model.

    Args:
        signed: the model.
    """

    def __init__(self, signed: SignedModel) -> None:
        self.signed, self.study = signed, signed.trained.study
        self._layout = Layout(self.study)
        self._model = StreamedModel(signed.trained.model, self._layout, reasons=True)
        self._series = [
            place for place, one in enumerate(self.study.variables.values()) if one.role == "series"
        ]

    def assess(
        self, patients: Iterable[Patient], source: Fhir | None = None
    ) -> Iterator[Assessment]:
        """Yield every stay's assessment, in order.

        Args:
            patients: as a source yields them.
            source: the FHIR source that yields them, if it is one that names its resources.

        Raises:
            DataError: the records cannot be read.
        """
        known: Provenance | None = None
        for patient in patients:
            if known is None and source is not None:
                known = source.provenance  # complete, as a source yields after it has read
            for stay in patient.stays:
                yield self._assess(patient, stay, known)

    def _assess(self, patient: Patient, stay: Stay, known: Provenance | None) -> Assessment:
        none = Assessment(patient_id=patient.patient_id, stay_id=stay.stay_id)
        span = scoring_span(stay, self.study)
        if span is None:
            return replace(none, refused=_no_window(self.study))
        used_E = used_events(stay, span, self.study)
        if not np.isin(stay.variable_E[used_E], self._measured_over_time()).any():
            return replace(
                none,
                refused="No risk is given: nothing that the model reads was measured in the "
                f"window ({self.signed.manifest.window}).",
            )
        if outside := self._outside(patient.patient_id, stay, known):
            return replace(none, refused=outside)
        (cut,) = cut_for_scoring(
            [unlabelled(Patient(patient_id="", stays=(stay,)), self.study)], self.study
        )
        grid = to_grid([cut], self.study)
        inputs = to_tensors(grid, self.signed.trained.normalisation, self.study)
        steps = int(inputs.mask_NT[0].sum())
        measured_C = np.any(~np.isnan(grid.value_NTV[0, :steps]), axis=0)
        logits_NK = self._model.read_window(inputs.x_NTF[0, :steps].numpy(), measured_C)
        names = self._layout.names
        return replace(
            none,
            outputs=tuple(answers_of(self.signed, logits_NK, names, reasons=True)),
            missing=tuple(np.array(names)[~measured_C].tolist()),
            basis=() if known is None else known.references(patient.patient_id, stay, used_E),
            begin=_time(stay, max(0.0, span[0])),
            end=_time(stay, span[1]),
            inputs=inputs_of(cut.stays[0], steps),
        )

    def _measured_over_time(self) -> list[int]:
        """Columns without which there is nothing to say: the series, or all if there is none."""
        codes = range(len(self.study.variables), len(self._layout.names))
        return [*self._series, *codes] or list(range(len(self._layout.names)))

    def _outside(self, patient_id: str, stay: Stay, known: Provenance | None) -> str:
        """Return why the stay is of another population than the study's, or nothing."""
        if known is None:
            return ""
        for place, (name, variable) in enumerate(self.study.variables.items()):
            if name not in POPULATION or variable.role != "static":
                continue
            values = known.static_values(patient_id, stay.stay_id, place)
            if not all(variable.low <= value <= variable.high for value in values):
                return (
                    f"No risk is given: the study is of patients aged {variable.low:g} to "
                    f"{variable.high:g} years, and this patient is not."
                )
        return ""


def fhir_source(
    settings: FhirSettings | None, *, given: Given | None = None
) -> tuple[Source, Fhir]:
    """Return the source behind the door of records, and the reader behind the door.

    Args:
        settings: of the site's FHIR records; None where it has none: codes are LOINC's then.
        given: resources to read instead of the settings' folder or server.
    """
    chosen = written_in_fhir(settings)
    reader = Fhir(chosen, given=given, named=True).without_labels()
    return behind_door(reader, opted_out=chosen.opted_out, counts_units=False), reader


def written_in_fhir(settings: FhirSettings | None) -> FhirSettings:
    """Return how the hospital writes FHIR; by default with LOINC's codes and units of UCUM."""
    return settings or FhirSettings(source="fhir", path=Path("none"))


def _no_window(study: Study) -> str:
    after = study.data.after_event
    if after is None:
        return "No risk is given: the stay has no hours that the model could read."
    return (
        f"No risk is given: the model reads a stay from when {after.variable} is first "
        f"{after.least:g} or more, and it has not been."
    )


def _time(stay: Stay, hours: float) -> datetime | None:
    if stay.start_us is None:
        return None
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=stay.start_us)
    return moment + timedelta(hours=float(hours))
