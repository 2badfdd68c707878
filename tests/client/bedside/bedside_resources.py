"""A small study of FHIR, and one patient's resources."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consilium.client.hospital.folder import SiteFolder
from consilium.shared.export.signed_model import write_signed_model
from consilium.shared.study.definition import parse_study
from tests.client.site_folders import COORDINATOR, enrolled
from tests.signed_models import some_trained

STUDY = parse_study("""
name = "bedside"
title = "Death in hospital"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "fhir"
label = "death"
window_h = 12
step_h = 2
[model]
hidden = 4
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 80, spread = 20 }
Age = { unit = "a", low = 18, high = 120, center = 60, spread = 10, role = "static" }
Lactate = { unit = "mmol/L", low = 0.1, high = 40, center = 1.8, spread = 0.6, scale = "log" }
Temp = { unit = "Cel", low = 25, high = 45, center = 37, spread = 0.8 }
""")
NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
IN = "2026-03-01T09:00:00+01:00"  # 08:00 UTC
HEART_RATE, LACTATE, TEMPERATURE = "8867-4", "32693-4", "8310-5"
RETRACTED = "entered-in-error"
UCUM = "http://unitsofmeasure.org"
Resource = dict[str, Any]


def patient(identity: str = "p1", **more: Any) -> Resource:
    base = {"resourceType": "Patient", "id": identity, "birthDate": "1950-05-01"}
    return base | more


def encounter(identity: str = "e1", of: str = "p1", **more: Any) -> Resource:
    return {
        "resourceType": "Encounter", "id": identity, "status": "in-progress",
        "class": {"code": "IMP"}, "subject": {"reference": f"Patient/{of}"},
        "period": {"start": IN},
    } | more  # fmt: skip


def observation(
    identity: str, code: str, value: float, unit: str, at: str, of: str = "p1", **more: Any
) -> Resource:
    return {
        "resourceType": "Observation", "id": identity, "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": f"Patient/{of}"}, "encounter": {"reference": "Encounter/e1"},
        "effectiveDateTime": at,
        "valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit},
    } | more  # fmt: skip


def observations() -> list[Resource]:
    return [
        observation("o1", HEART_RATE, 120, "/min", "2026-03-01T09:10:00Z"),
        observation("o2", TEMPERATURE, 101.3, "[degF]", "2026-03-01T11:00:00+02:00"),
        observation("o3", HEART_RATE, 95, "/min", "2026-03-01T12:00:00Z"),
        observation("o4", HEART_RATE, 300, "/min", "2026-03-01T11:00:00Z", status=RETRACTED),
        observation("o5", HEART_RATE, 88, "/min", "2026-02-27T11:00:00Z"),  # before the stay
    ]


def bundle(*resources: Resource) -> Resource:
    entries = [{"resource": one} for one in resources]
    return {"resourceType": "Bundle", "type": "searchset", "entry": entries}


def prefetch(*found: Resource, **more: Any) -> dict[str, Any]:
    base = {
        "patient": patient(),
        "encounters": bundle(encounter()),
        "observations": bundle(*(found or observations())),
    }
    return base | more


def site_with_model(folder: Path, policy: str = "") -> tuple[SiteFolder, Path]:
    """A site, and a model that its coordinator signed."""
    site = enrolled(folder / "site")
    if policy:
        file = site.path / "policy.toml"
        file.write_text(file.read_text() + policy)
    model = folder / "model"
    write_signed_model(
        model, some_trained(STUDY), COORDINATOR, simulated=False, rounds=3, epsilon=2.0
    )
    return site, model
