"""FHIR R4 RiskAssessments: the form in which hospitals' systems take a model's risks.

HL7, "FHIR R4 (v4.0.1), RiskAssessment", https://hl7.org/fhir/R4/riskassessment.html. There
``probabilityDecimal`` is a percentage ("Decimal values are expressed as percentages as well (max =
100)"), so a risk of 0.234 is 23.4. ``qualitativeRisk`` is left out: no study says what is low or
high. A resource's identifier depends on model, stay and inputs alone, so what is sent twice is
known as the same.
"""

import json
import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from consilium.client.bedside.assessment import Assessment
from consilium.client.sources.own.fhir.ndjson import IDENTIFIER
from consilium.shared.crypto.transcript import digest
from consilium.shared.errors import SettingsError
from consilium.shared.export.limits import limits_of
from consilium.shared.export.signed_model import SignedModel
from consilium.shared.files.atomic_file import write_private_output
from consilium.shared.study.definition import Study

Form = Literal["ndjson", "collection", "transaction"]
TEST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
MODEL, STUDY, ASSESSMENT = (
    f"urn:consilium:{what}" for what in ("model", "study", "risk-assessment")
)


def check_has_risks(study: Study) -> None:
    """Refuse a study whose model predicts no risks.

    Raises:
        SettingsError: it predicts quantities.
    """
    if study.task.kind == "regression":
        raise SettingsError(
            f"study {study.name} predicts a quantity, and a RiskAssessment holds risks; write "
            ".csv or .jsonl without --fhir"
        )


def risk_assessment(
    signed: SignedModel, one: Assessment, now: datetime, *, of_resources: bool
) -> dict[str, Any]:
    """Return an assessment with an answer as a RiskAssessment.

    Args:
        signed: the model.
        one: what it said.
        now: when it was asked, UTC.
        of_resources: whether patient and stay are FHIR resources; if not, they are known by the
            identifiers of the hospital's tables.
    """
    manifest = signed.manifest
    whole = signed.manifest_digest
    own = digest("risk-assessment", whole, one.patient_id, one.stay_id, one.inputs)
    identifier = str(uuid.UUID(bytes=own[:16], version=4))
    return _filled(
        {
            "resourceType": "RiskAssessment",
            "id": identifier,
            **({"meta": {"security": [TEST]}} if manifest.simulated else {}),
            "contained": [_device(signed)],
            "identifier": [{"system": ASSESSMENT, "value": identifier}],
            "status": "final",
            "method": {
                "coding": [{"system": STUDY, "code": manifest.study_digest}],
                "text": f"Model of study {manifest.study}, trained across hospitals",
            },
            "code": {"text": manifest.title},
            "subject": _reference("Patient", one.patient_id, of_resources=of_resources),
            "encounter": _reference("Encounter", one.stay_id, of_resources=of_resources),
            "occurrenceDateTime": _instant(now),
            "performer": {"reference": "#model", "type": "Device"},
            "basis": [{"reference": reference} for reference in one.basis],
            "prediction": [_prediction(output) for output in one.outputs],
            "note": [{"text": _note(signed, one), "time": _instant(now)}],
        }
    )


def write_assessments(
    file: Path, resources: Iterable[dict[str, Any]], *, form: Form, now: datetime
) -> int:
    """Write resources, mode 0600: one a line, or one Bundle; return their number.

    A transaction Bundle creates each resource on a server unless it is there already.

    Raises:
        SettingsError: the file cannot be written; an older file stays as it was.
    """
    found = list(resources)
    if form == "ndjson":
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found)
    else:
        text = json.dumps(_bundle(found, form, now), ensure_ascii=False, indent=1) + "\n"
    write_private_output(file, text.encode(), option="--out")
    return len(found)


def interval_sentence(output: dict[str, Any]) -> str:
    """Say how often patients with a risk like this had the outcome, or that it is not known."""
    if "low" not in output:
        return "How often patients with a risk like this had the outcome is not known."
    return (
        f"Of validation patients with a risk like this, {percent(output['observed'])} % had the "
        f"outcome (95 % interval {percent(output['low'])} to {percent(output['high'])} %)."
    )


def reasons_sentence(output: dict[str, Any]) -> str:
    """Say which variables moved the answer most, or nothing."""
    moved = ", ".join(
        f"{reason['variable']} ({reason['effect']:+.2f})" for reason in output.get("reasons", ())
    )
    return f"Moved most by (log-odds that would be lost without it): {moved}." if moved else ""


def missing_sentence(one: Assessment) -> str:
    """Name the variables that were not measured, or say nothing."""
    if not one.missing:
        return ""
    return f"Not measured in the window: {', '.join(one.missing)}."


def percent(risk: float) -> str:
    """Return a risk in percent, to a tenth."""
    return f"{100 * risk:.1f}"


def _prediction(output: dict[str, Any]) -> dict[str, Any]:
    rationale = (interval_sentence(output), reasons_sentence(output))
    return {
        "outcome": {"text": output["name"]},
        "probabilityDecimal": round(100 * output["value"], 4),
        "rationale": " ".join(one for one in rationale if one),
    }


def _note(signed: SignedModel, one: Assessment) -> str:
    window = ""
    if one.begin is not None and one.end is not None:
        window = f"Window from {_instant(one.begin)} to {_instant(one.end)}."
    said = ("Probabilities are percentages.", window, missing_sentence(one))
    return " ".join(
        text for text in (*said, *limits_of(signed.manifest, signed.trained.study)) if text
    )


def _device(signed: SignedModel) -> dict[str, Any]:
    manifest = signed.manifest
    made_by = f"consilium {manifest.versions.get('consilium', 'unknown')}"
    return {
        "resourceType": "Device",
        "id": "model",
        "identifier": [{"system": MODEL, "value": signed.manifest_digest}],
        "deviceName": [{"name": manifest.study, "type": "model-name"}],
        "version": [
            {"type": {"text": "SHA-256 of the model's manifest"}, "value": signed.manifest_digest},
            {"type": {"text": "software"}, "value": made_by},
        ],
    }


def _reference(kind: str, identity: str, *, of_resources: bool) -> dict[str, Any]:
    if of_resources and IDENTIFIER.fullmatch(identity):
        return {"reference": f"{kind}/{identity}", "type": kind}
    return {"type": kind, "identifier": {"value": identity}}


def _bundle(found: list[dict[str, Any]], form: Form, now: datetime) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for one in found:
        entry: dict[str, Any] = {"fullUrl": f"urn:uuid:{one['id']}", "resource": one}
        if form == "transaction":
            entry["request"] = {
                "method": "POST",
                "url": "RiskAssessment",
                "ifNoneExist": f"identifier={ASSESSMENT}|{one['id']}",
            }
        entries.append(entry)
    bundle = {"resourceType": "Bundle", "type": form, "entry": entries}
    return _filled(bundle | ({"timestamp": _instant(now)} if form == "collection" else {}))


def _filled(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out empty lists, which FHIR does not have."""
    return {key: value for key, value in content.items() if value != []}


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
