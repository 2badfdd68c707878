"""A streaming scorer that takes FHIR, too, and whose answers are noted before they are given."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consilium.client.bedside.decision_log import Notes
from consilium.client.bedside.scorer import Scorer
from consilium.client.bedside.signal_scorer import SignalScorer
from consilium.shared.errors import DataError

if TYPE_CHECKING:
    from consilium.client.bedside.fhir_stream import FhirStream  # which needs polars


@dataclass(frozen=True, kw_only=True)
class _Said:
    patient_id: str
    stay_id: str
    inputs: bytes


class NotedScorer:
    """Passes lines on to a scorer.

    Args:
        scorer: takes events or recordings.
        notes: where answers are noted.
        by: who asks, as it is noted.
        fhir: makes what takes FHIR resources; None if nothing does.
    """

    def __init__(
        self,
        scorer: Scorer | SignalScorer,
        notes: Notes,
        *,
        by: str,
        fhir: "Callable[[], FhirStream] | None" = None,
    ) -> None:
        self._scorer, self._notes, self._by, self._make = scorer, notes, by, fhir
        self._fhir: FhirStream | None = None
        self._read: dict[str, Any] = {}

    @property
    def stays(self) -> int:
        """Number of stays in memory."""
        return self._scorer.stays

    def take(self, line: dict[str, Any]) -> dict[str, Any]:
        """Take a line and answer it.

        Raises:
            DataError: it cannot be used.
            AuditError: the answer cannot be noted, and this hospital wants that.
        """
        try:
            content = json.dumps(line, sort_keys=True).encode() + b"\n"
        except RecursionError:
            raise DataError("the line is nested too deeply; send one event a line") from None
        answer = self._resource(line) if "resourceType" in line else self._scorer.take(line)
        name = str(answer.get("stay", answer.get("recording", "")))
        read = self._read.setdefault(name, hashlib.sha256())
        read.update(content)
        if answer.get("outputs") or answer.get("windows"):
            said = _Said(patient_id="", stay_id=name, inputs=read.digest())
            self._notes.note(said, by=self._by, scored=True)
        if answer.get("ended") or line.get("end") or not name:
            self._read.pop(name, None)
        return answer

    def _resource(self, line: dict[str, Any]) -> dict[str, Any]:
        if self._make is None:
            raise DataError("this model reads recordings, and no FHIR resources; send samples")
        if self._fhir is None:
            self._fhir = self._make()
        return self._fhir.take(line)
