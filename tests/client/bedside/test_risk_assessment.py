"""predict --fhir: RiskAssessments as FHIR R4 has them, wherever and whenever they are written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from consilium.client.cli import app
from tests.client.bedside.bedside_resources import (
    HEART_RATE,
    STUDY,
    encounter,
    observation,
    observations,
    patient,
    site_with_model,
)

# Of R4's RiskAssessment, https://hl7.org/fhir/R4/riskassessment.html: those that are written.
ELEMENTS = {
    "resourceType", "id", "meta", "contained", "identifier", "status", "method", "code", "subject",
    "encounter", "occurrenceDateTime", "performer", "basis", "prediction", "note",
}  # fmt: skip
INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
YOUNG = observation("o9", HEART_RATE, 100, "/min", "2026-03-01T09:10:00Z", of="p2")


def strict(content: str) -> Any:
    """JSON without NaN and without a key twice."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(found)) == len(found)
        return dict(found)

    def constant(name: str) -> Any:
        raise AssertionError(name)

    return json.loads(content, object_pairs_hook=pairs, parse_constant=constant)


class Site:
    def __init__(self, folder: Path, policy: str = "") -> None:
        self.folder = folder
        self.site, self.model = site_with_model(folder, policy)
        export = folder / "export"
        export.mkdir()
        ended = {"period": {"start": "2026-03-01T09:00:00+01:00", "end": "2026-03-02T09:00:00Z"}}
        for kind, found in {
            "Patient": [patient(), patient("p2", birthDate="2015-01-01")],
            "Encounter": [encounter(**ended), encounter("e2", "p2", **ended)],
            "Observation": [*observations(), YOUNG | {"encounter": {"reference": "Encounter/e2"}}],
        }.items():
            lines = "".join(json.dumps(one) + "\n" for one in found)
            (export / f"{kind}.ndjson").write_text(lines)
        settings = 'site = "north"\n[data]\nsource = "fhir"\npath = "../export"\n'
        (self.site.path / "site.toml").write_text(settings)

    def run(self, *arguments: str) -> tuple[int, str]:
        found = CliRunner().invoke(app, [*arguments, "--folder", str(self.site.path)])
        return found.exit_code, found.output + str(found.exception or "")

    def predict(self, out: str, *more: str) -> tuple[int, str]:
        return self.run("predict", str(self.model), "--out", str(self.folder / out), *more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("bedside"), "\n[decisions]\n")


def test_a_stay_becomes_a_risk_assessment_of_r4(site: Site) -> None:
    code, told = site.predict("risks.ndjson", "--fhir")
    assert code == 0, told
    assert "1 stays without one. No risk is given: the study is of patients aged 18" in told
    file = site.folder / "risks.ndjson"
    assert file.stat().st_mode & 0o077 == 0
    (one,) = map(strict, file.read_text().splitlines())
    assert set(one) <= ELEMENTS
    assert (one["resourceType"], one["status"]) == ("RiskAssessment", "final")
    assert one["subject"] == {"reference": "Patient/p1", "type": "Patient"}
    assert one["encounter"] == {"reference": "Encounter/e1", "type": "Encounter"}
    assert INSTANT.fullmatch(one["occurrenceDateTime"])
    # Neither what was entered in error, nor what was before the stay.
    assert [basis["reference"] for basis in one["basis"]] == [
        "Observation/o2", "Observation/o1", "Observation/o3",
    ]  # fmt: skip
    (prediction,) = one["prediction"]
    assert prediction["outcome"] == {"text": "death"}
    assert "qualitativeRisk" not in prediction
    code, _ = site.predict("risks.jsonl")
    assert code == 0
    plain = [json.loads(line) for line in (site.folder / "risks.jsonl").read_text().splitlines()]
    (value,) = [row["outputs"][0]["value"] for row in plain if row["stay"] == "e1"]
    assert prediction["probabilityDecimal"] == pytest.approx(100 * value, abs=1e-3)  # per cent
    assert "had the outcome (95 % interval" in prediction["rationale"]
    (device,) = one["contained"]
    assert one["performer"]["reference"] == f"#{device['id']}"
    manifest = json.loads(site.run("model", str(site.model), "--json")[1])
    assert device["deviceName"] == [{"name": manifest["study"], "type": "model-name"}]
    assert re.fullmatch(r"[0-9a-f]{64}", device["version"][0]["value"])
    assert one["method"]["coding"][0]["code"] == STUDY.digest.hex()
    assert "Not measured in the window: Lactate." in one["note"][0]["text"]
    assert "Window from 2026-03-01T08:00:00Z to 2026-03-01T20:00:00Z." in one["note"][0]["text"]


def test_a_bundle_is_collected_or_sent(site: Site) -> None:
    for arguments, kind in (
        (("--fhir",), "collection"),
        (("--fhir", "--transaction"), "transaction"),
    ):
        code, told = site.predict("risks.json", *arguments)
        assert code == 0, told
        bundle = strict((site.folder / "risks.json").read_text())
        assert (bundle["resourceType"], bundle["type"]) == ("Bundle", kind)
        (entry,) = bundle["entry"]
        assert ("timestamp" in bundle, "request" in entry) == (
            kind == "collection",
            kind != "collection",
        )
        assert entry["fullUrl"] == f"urn:uuid:{entry['resource']['id']}"
    again = entry["resource"]["id"]
    assert entry["request"]["ifNoneExist"].endswith(f"|{again}")
    site.predict("risks.json", "--fhir")
    (entry,) = strict((site.folder / "risks.json").read_text())["entry"]
    assert entry["resource"]["id"] == again  # what is sent twice is known as the same


def test_names_that_do_not_fit_are_refused(site: Site) -> None:
    for out, more in (("x.csv", ["--fhir"]), ("x.ndjson", []), ("x.csv", ["--transaction"])):
        code, told = site.predict(out, *more)
        assert code == 1
        assert "must end" in told or "--transaction is of a Bundle" in told


def test_every_score_is_in_the_decision_log_and_a_change_is_found(site: Site) -> None:
    site.predict("risks.ndjson", "--fhir")
    code, told = site.run("decision-log", "--json", "--patient", "p2")
    assert code == 0, told
    assert {json.loads(line)["result"] for line in told.splitlines()} >= {"refused"}
    for file in (site.site.path / "decisions").glob("*.jsonl"):
        assert not {b"p1", b"e1"} & set(re.findall(rb"\w+", file.read_bytes()))
        file.write_text(file.read_text().replace('"refused"', '"scored"', 1))
    code, told = site.run("decision-log")
    assert code == 1
    assert "DOES NOT FIT" in told


def test_without_the_policys_table_nothing_is_noted(tmp_path: Path) -> None:
    quiet = Site(tmp_path)
    assert quiet.predict("risks.ndjson", "--fhir")[0] == 0
    assert not (quiet.site.path / "decisions").exists()
    code, told = quiet.run("decision-log")
    assert code == 1
    assert "has no [decisions]" in told


@pytest.mark.parametrize("zone", ["Pacific/Apia", "America/St_Johns"])
def test_the_machines_zone_changes_nothing(
    site: Site, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        site.predict("zoned.ndjson", "--fhir")
    finally:
        monkeypatch.undo()
        time.tzset()
    site.predict("risks.ndjson", "--fhir")
    zoned, plain = (
        strict((site.folder / name).read_text()) for name in ("zoned.ndjson", "risks.ndjson")
    )
    for one in (zoned, plain):
        del one["occurrenceDateTime"], one["note"][0]["time"]
    assert zoned == plain
