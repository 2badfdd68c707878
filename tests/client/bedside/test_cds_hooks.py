"""CDS Hooks over real sockets: discovery, cards, refusals, and requests that mean harm."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from consilium.client.bedside.cds_hooks import CdsHooks
from consilium.client.bedside.decision_log import DecisionLog, Notes
from consilium.client.bedside.ehr_trust import SharedSecret
from consilium.client.bedside.prediction import predict_patients
from consilium.client.hospital.policy import DecisionPolicy
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import SettingsError
from consilium.shared.export.signed_model import SignedModel
from consilium.shared.study.definition import with_changes
from tests.client.bedside.bedside_resources import (
    HEART_RATE,
    NOW,
    STUDY,
    bundle,
    encounter,
    observation,
    observations,
    patient,
    prefetch,
)
from tests.signed_models import some_signed
from tests.web_served import served

VIEW = "/cds-services/bedside-patient-view"
POLICY = DecisionPolicy()


def model(*, simulated: bool = False) -> SignedModel:
    signed = some_signed(STUDY)
    return replace(signed, manifest=signed.manifest.model_copy(update={"simulated": simulated}))


class Ehr:
    """An EHR that knows the service's token."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        token = SharedSecret(folder).file.read_text().strip()
        self.client = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {token}"},
            timeout=120,
            trust_env=False,
        )

    def ask(self, given: Any, path: str = VIEW, **context: Any) -> httpx.Response:
        hook = path.rpartition("bedside-")[2]
        whose = {"patientId": "p1", "userId": "Practitioner/7"} | context
        body = {"hook": hook, "hookInstance": "d1577c69", "context": whose, "prefetch": given}
        return self.client.post(path, json=body)

    def card(self, given: Any, **context: Any) -> dict[str, Any]:
        answer = self.ask(given, **context)
        assert answer.status_code == 200, answer.text
        (card,) = answer.json()["cards"]
        return card


@pytest.fixture(scope="module")
def ehr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ehr]:
    folder = tmp_path_factory.mktemp("site")
    service = CdsHooks(
        model(),
        None,
        trust=SharedSecret(folder),
        notes=Notes(folder, POLICY, model="ab" * 32, study="bedside"),
        warning="sensitivity 0.9",
        clock=lambda: NOW,
    )
    with served(service) as address:
        yield Ehr(folder, address)


def test_discovery_names_both_hooks_and_what_to_send(ehr: Ehr) -> None:
    answer = httpx.get(f"{ehr.client.base_url}/cds-services", trust_env=False)
    assert answer.status_code == 200
    services = answer.json()["services"]
    assert [one["hook"] for one in services] == ["patient-view", "order-select"]
    for one in services:
        assert one["id"] == f"bedside-{one['hook']}"
        assert one["prefetch"]["patient"] == "Patient/{{context.patientId}}"
        assert f"http://loinc.org|{HEART_RATE}" in one["prefetch"]["observations"]


def test_a_card_says_what_predict_says_of_the_same_stay(ehr: Ehr, tmp_path: Path) -> None:
    ended = encounter(period={"start": "2026-03-01T08:00:00Z", "end": NOW.isoformat()})
    (tmp_path / "all.ndjson").write_text(
        "".join(json.dumps(one) + "\n" for one in (patient(), ended, *observations()))
    )
    table = {"source": "fhir", "path": str(tmp_path)}
    source = open_source(read_data_settings(table, where="test", folder=tmp_path), STUDY)
    (said,) = predict_patients(model().trained, source.read_patients(STUDY))
    card = ehr.card(prefetch())
    assert card["summary"].startswith(f"{100 * float(said.scores[0]):.1f} % risk: death (")
    assert len(card["summary"]) < 140
    assert "Of validation patients with a risk like this" in card["detail"]
    assert "Moved most by" in card["detail"]
    assert "Not measured in the window: Lactate." in card["detail"]
    assert "From 2026-03-01 08:00 to 2026-03-01 12:30 UTC." in card["detail"]
    assert "does not replace it" in card["detail"]
    assert card["source"]["label"] == "Consilium: Death in hospital"
    assert card["uuid"] != ehr.card(prefetch())["uuid"]


def test_a_card_is_a_warning_only_from_the_threshold_that_was_named(ehr: Ehr) -> None:
    card = ehr.card(prefetch())
    assert card["indicator"] == "warning"
    assert "Alarm from" in card["detail"]
    with pytest.raises(SettingsError, match="is no threshold of this model, which has: alarms"):
        CdsHooks(
            model(), None, trust=SharedSecret(ehr.folder), critical="x",
            notes=Notes(ehr.folder, None, model="", study=""),
        )  # fmt: skip


def test_order_select_answers_alike_and_an_encounter_may_be_named(ehr: Ehr) -> None:
    view = ehr.card(prefetch())["summary"]
    answer = ehr.ask(prefetch(), path="/cds-services/bedside-order-select", encounterId="e1")
    assert answer.json()["cards"][0]["summary"] == view


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"patient": patient(birthDate="2015-01-01")}, "of patients aged 18 to 120 years"),
        ({"observations": None}, "nothing that the model reads was measured"),
        ({"observations": bundle(observations()[-1])}, "nothing that the model reads was measured"),
        ({"encounters": None}, "is now in no stay"),
        ({"encounters": bundle(encounter(status="finished"))}, "is now in no stay"),
        ({"encounters": bundle(encounter(**{"class": {"code": "AMB"}}))}, "have another class"),
        (
            {
                "observations": bundle(
                    observation("o", HEART_RATE, 80, "kg", "2026-03-01T09:10:00Z")
                )
            },
            "'kg' cannot be converted to '/min'",
        ),
    ],
)
def test_who_cannot_be_scored_gets_a_sentence_and_no_number(
    ehr: Ehr, changed: dict[str, Any], sentence: str
) -> None:
    card = ehr.card(prefetch(**changed))
    assert card["summary"].startswith("No risk is given")
    assert card["indicator"] == "info"
    assert sentence in card["detail"]
    assert "% risk" not in card["summary"]


def test_another_patients_encounter_is_never_answered_for_this_one(ehr: Ehr) -> None:
    mixed = prefetch(
        patient=bundle(patient(), patient("p2")),
        encounters=bundle(encounter("e2", "p2")),
        observations=bundle(
            observation("o", HEART_RATE, 80, "/min", "2026-03-01T09:10:00Z", "p2")
            | {"encounter": {"reference": "Encounter/e2"}}
        ),
    )
    assert "is now in no stay" in ehr.card(mixed, encounterId="e2")["summary"]
    assert ehr.ask(mixed, patientId="p3").status_code == 412


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"patient": patient()},
        prefetch(observations={"resourceType": "OperationOutcome", "issue": []}),
        prefetch(observations=bundle() | {"link": [{"relation": "next", "url": "https://x"}]}),
        prefetch(encounters=bundle({"resourceType": "OperationOutcome",
                                    "issue": [{"severity": "error"}]})),
        prefetch(patient=patient("p2")),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_and_never_fetched(ehr: Ehr, given: Any) -> None:
    answer = ehr.ask(given)
    assert answer.status_code == 412
    assert "prefetch" in answer.json()["error"]


GOOD = {"hook": "patient-view", "hookInstance": "x", "context": {"patientId": "p1"},
        "prefetch": prefetch()}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[]", 400),
        (b'{"hook": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 900 + b"1" + b"}" * 900, 400),
        (b'{"hook": ' + b"9" * 5000 + b"}", 400),
        (json.dumps(GOOD | {"hook": "order-sign"}).encode(), 400),
        (json.dumps(GOOD | {"hookInstance": 7}).encode(), 400),
        (json.dumps(GOOD | {"context": ["p1"]}).encode(), 400),
        (json.dumps(GOOD | {"context": {"patientId": "../p1"}}).encode(), 400),
        (json.dumps(GOOD | {"context": {"patientId": {"a": 1}}}).encode(), 400),
        (json.dumps(GOOD | {"prefetch": "all"}).encode(), 400),
        (json.dumps(GOOD | {"prefetch": prefetch(patient="p1")}).encode(), 412),
        (b" " * ((16 << 20) + 1), 413),
    ],
)
def test_bodies_that_mean_harm_get_one_sentence(ehr: Ehr, body: bytes, status: int) -> None:
    answer = ehr.client.post(VIEW, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]


def test_wrong_types_inside_resources_change_no_status(ehr: Ehr) -> None:
    nested: Any = "x"
    for _ in range(100):
        nested = {"entry": [{"resource": nested}], "resourceType": "Bundle"}
    odd = observation("o", HEART_RATE, 80, "/min", "2026-03-01T09:10:00Z")
    for thing in (7, "x", [], {"value": []}, {"value": 1e300, "unit": {}}, nested):
        found = bundle(*observations(), odd | {"valueQuantity": thing}, odd | {"code": thing})
        assert ehr.ask(prefetch(observations=found)).status_code in (200, 400)
    answer = ehr.ask(prefetch(observations=nested))
    assert answer.status_code in (200, 400)


def test_only_the_ehr_on_this_machine_is_answered(ehr: Ehr) -> None:
    for head in ({"Host": "evil.example"}, {"Origin": "https://ehr.example"}):
        assert ehr.client.get("/cds-services", headers=head).status_code == 403
        assert ehr.client.post(VIEW, json=GOOD, headers=head).status_code == 403
    for token in ("", "Bearer", "Bearer wrong", "Basic eDp5"):
        answer = ehr.client.post(VIEW, json=GOOD, headers={"Authorization": token})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert ehr.client.post("/cds-services/other", json=GOOD).status_code == 404
    assert ehr.client.get(VIEW).status_code == 405
    kind = {"Content-Type": "text/plain"}
    assert ehr.client.post(VIEW, content=b"{}", headers=kind).status_code == 415


def test_the_example_of_the_page_is_answered(ehr: Ehr) -> None:
    page = (Path(__file__).parents[3] / "docs" / "bedside.md").read_text()
    (example,) = re.findall(r"```json\n(\{\"hook\".*?)```", page, re.DOTALL)
    answer = ehr.client.post(VIEW, json=json.loads(example))
    assert answer.status_code == 200
    assert "% risk: death" in answer.json()["cards"][0]["summary"]


def test_feedback_is_taken_and_not_kept(ehr: Ehr) -> None:
    said = {"card": "u", "outcome": "overridden", "overrideReason": {"userComment": "MARK-said"}}
    path = f"{VIEW}/feedback"
    assert ehr.client.post(path, json={"feedback": [said]}).status_code == 200
    assert ehr.client.post(path, json={"feedback": [7]}).status_code == 400
    for file in ehr.folder.rglob("*"):
        assert file.is_dir() or b"MARK" not in file.read_bytes()


def test_marks_planted_in_every_field_do_not_leave(ehr: Ehr) -> None:
    def marked(one: dict[str, Any]) -> dict[str, Any]:
        more = {"text": {"div": "MARK"}, "note": [{"text": "MARK"}], "MARK": "MARK",
                "identifier": [{"value": "MARK"}], "name": [{"family": "MARK"}]}  # fmt: skip
        return more | one

    found = [marked(one) | {"interpretation": [{"text": "MARK"}]} for one in observations()]
    found[0]["code"]["text"] = found[1]["valueQuantity"]["extension"] = "MARK"
    bad = marked(observation("o9", HEART_RATE, 80, "MARK", "2026-03-01T09:10:00Z"))
    for listed in (found, [*found, bad]):
        answer = ehr.ask(
            prefetch(
                patient=marked(patient()),
                encounters=bundle(marked(encounter())),
                observations=bundle(*listed),
            ),
            MARK="MARK",
        )
        assert answer.status_code == 200
        assert "MARK" not in answer.text
    for file in ehr.folder.rglob("*"):
        assert file.is_dir() or b"MARK" not in file.read_bytes()


def test_each_answer_is_noted_before_it_is_given(ehr: Ehr, monkeypatch: Any) -> None:
    before = len(list(DecisionLog(ehr.folder, POLICY).lines()))
    ehr.card(prefetch())
    ehr.card(prefetch(patient=patient(birthDate="2015-01-01")))
    lines = [line for line, _ in DecisionLog(ehr.folder, POLICY).lines()][before:]
    assert [line["result"] for line in lines] == ["scored", "refused"]
    assert lines[0]["by"] == "EHR, patient-view, Practitioner/7"
    assert lines[0]["patient"] == DecisionLog(ehr.folder, POLICY).digest("patient", "p1")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DecisionLog, "_append", full)
    answer = ehr.ask(prefetch())
    assert answer.status_code == 507
    assert answer.json() == {
        "error": "no risk is given, since the decision log that this site wants cannot be written"
    }


def test_a_simulated_models_card_says_so_first(tmp_path: Path) -> None:
    service = CdsHooks(
        model(simulated=True), None, trust=SharedSecret(tmp_path), clock=lambda: NOW,
        notes=Notes(tmp_path, None, model="", study=""),
    )  # fmt: skip
    with served(service) as address:
        assert Ehr(tmp_path, address).card(prefetch())["summary"].startswith("SIMULATION, not for")


def test_a_model_of_quantities_has_no_cards(tmp_path: Path) -> None:
    quantities = with_changes(STUDY, task={"kind": "regression", "center": 1.0, "spread": 1.0})
    with pytest.raises(SettingsError, match="holds risks"):
        CdsHooks(
            some_signed(quantities), None, trust=SharedSecret(tmp_path),
            notes=Notes(tmp_path, None, model="", study=""),
        )  # fmt: skip
