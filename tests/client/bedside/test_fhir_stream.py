"""FHIR resources in the stream: read as the FHIR source reads them, corrected and withdrawn."""

import json
from pathlib import Path
from typing import Any

import pytest

from consilium.client.bedside.decision_log import DecisionLog, Notes
from consilium.client.bedside.fhir_stream import FhirStream
from consilium.client.bedside.noted_scorer import NotedScorer
from consilium.client.bedside.prediction import predict_patients
from consilium.client.bedside.scorer import Scorer
from consilium.client.bedside.stream_service import answer_line
from consilium.client.hospital.policy import DecisionPolicy
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import with_changes
from tests.client.bedside.bedside_resources import (
    HEART_RATE,
    LACTATE,
    RETRACTED,
    STUDY,
    TEMPERATURE,
    UCUM,
    encounter,
    observation,
    patient,
)
from tests.signed_models import some_signed

SIGNED = some_signed(STUDY)
FIRST = observation("o1", HEART_RATE, 120, "/min", "2026-03-01T09:10:00Z")
LAST = observation("o2", HEART_RATE, 95, "/min", "2026-03-01T19:30:00Z")
BOTH = {
    "resourceType": "Observation", "id": "o3", "status": "final", "code": {"text": "panel"},
    "subject": {"reference": "Patient/p1"}, "effectiveDateTime": "2026-03-01T11:00:00+02:00",
    "component": [
        {"code": {"coding": [{"system": "http://loinc.org", "code": code}]},
         "valueQuantity": {"value": value, "system": UCUM, "code": unit}}
        for code, value, unit in ((TEMPERATURE, 101.3, "[degF]"), (LACTATE, 36.0, "mg/dL"))
    ],
}  # fmt: skip


def stream(**changes: Any) -> NotedScorer:
    signed = some_signed(with_changes(STUDY, **changes)) if changes else SIGNED
    scorer = Scorer(signed)
    nothing = Notes(Path("none"), None, model="", study="")
    return NotedScorer(scorer, nothing, by="test", fhir=lambda: FhirStream(signed, None, scorer))


def begun() -> NotedScorer:
    made = stream()
    made.take(patient())
    made.take(encounter())
    return made


def value(answer: dict[str, Any]) -> float:
    return float(answer["outputs"][0]["value"])


def test_the_last_answer_is_what_predict_says_of_the_same_resources(tmp_path: Path) -> None:
    made = begun()
    for one in (FIRST, BOTH, LAST):
        answer = made.take(one)
    assert answer["stay"] == "e1"
    ended = encounter(period={"start": "2026-03-01T08:00:00Z", "end": "2026-03-02T08:00:00Z"})
    (tmp_path / "all.ndjson").write_text(
        "".join(json.dumps(one) + "\n" for one in (patient(), ended, FIRST, BOTH, LAST))
    )
    table = {"source": "fhir", "path": str(tmp_path)}
    source = open_source(read_data_settings(table, where="test", folder=tmp_path), STUDY)
    (said,) = predict_patients(SIGNED.trained, source.read_patients(STUDY))
    assert value(answer) == pytest.approx(float(said.scores[0]), abs=1e-5)


def test_a_patient_who_comes_after_the_stay_counts_as_one_who_came_before() -> None:
    late = stream()
    late.take(encounter())
    late.take(FIRST)
    assert late.take(patient()) == {"patient": "p1", "stays": ["e1"]}
    early = begun()
    early.take(FIRST)
    assert value(late.take(LAST)) == pytest.approx(value(early.take(LAST)), abs=1e-6)


def test_a_correction_replaces_and_an_error_withdraws() -> None:
    wrong = LAST | {"valueQuantity": LAST["valueQuantity"] | {"value": 200}}
    made, plain = begun(), begun()
    made.take(FIRST)
    made.take(wrong)
    plain.take(FIRST)
    expected = value(plain.take(LAST))
    corrected = made.take(LAST | {"status": "corrected"})
    assert value(corrected) == pytest.approx(expected, abs=1e-6)
    without = made.take(LAST | {"status": RETRACTED})
    only = begun()
    assert value(without) == pytest.approx(value(only.take(FIRST)), abs=1e-6)
    with pytest.raises(DataError, match="is withdrawn, and was not used"):
        made.take(LAST | {"status": RETRACTED})
    assert made.take(encounter(status="finished")) == {"stay": "e1", "ended": True}
    assert made.stays == 0


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (LAST | {"valueQuantity": {"value": 80, "unit": "kg"}}, "cannot be converted to '/min'"),
        (LAST | {"valueQuantity": {"unit": "/min"}}, "is no number"),
        (LAST | {"valueString": "MARK", "valueQuantity": None}, "is no number"),
        (LAST | {"effectiveDateTime": "2026-03-01T19:30:00"}, "no effective time"),
        (LAST | {"effectiveDateTime": "2026-03"}, "no effective time"),
        (LAST | {"effectiveDateTime": None}, "no effective time"),
        (LAST | {"effectiveDateTime": "2026-03-04T19:30:00Z"}, "first 12 hours"),
        (LAST | {"code": {"coding": [{"code": "MARK"}]}}, "no code of this model"),
        (LAST | {"subject": {"reference": "Patient/MARK"}}, "no stay known here"),
        (LAST | {"id": "MARK/../x"}, "has no id"),
        (encounter("e9", status="planned"), "have not begun"),
        (encounter("e9", **{"class": {"code": "AMB"}}), "have another class"),
        (encounter("e9", status="finished"), "no stay of it is known"),
        ({"resourceType": "Condition", "id": "c"}, "resources of the stream are"),
        ({"resourceType": ["Observation"], "id": "c"}, "resources of the stream are"),
    ],
)
def test_what_cannot_be_used_gets_a_sentence_and_changes_nothing(
    line: dict[str, Any], sentence: str
) -> None:
    made = begun()
    before = value(made.take(FIRST))
    content, taken = answer_line(made, json.dumps(line).encode())
    assert not taken
    assert sentence in json.loads(content)["error"]
    assert "MARK" not in content.decode()
    assert value(made.take({"stay": "e1", "hours": 1.0})) == pytest.approx(before, abs=1e-9)


def test_a_window_that_does_not_begin_with_the_stay_takes_no_resources() -> None:
    made = stream(data={"landmarks": {"every_h": 12, "horizon_h": 24}})
    with pytest.raises(DataError, match="window does not begin with the stay"):
        made.take(encounter())


def test_each_score_is_noted_with_what_was_read_so_far(tmp_path: Path) -> None:
    scorer, policy = Scorer(SIGNED), DecisionPolicy()
    notes = Notes(tmp_path, policy, model="ab", study="bedside")
    made = NotedScorer(scorer, notes, by="stream", fhir=lambda: FhirStream(SIGNED, None, scorer))
    for one in (encounter(), FIRST, {"stay": "e1", "hours": 5}):
        made.take(one)
    lines = [line for line, _ in DecisionLog(tmp_path, policy).lines()]
    assert len({line["inputs"] for line in lines}) == len(lines) == 3
