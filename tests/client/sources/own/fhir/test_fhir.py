"""FHIR bulk exports: what counts as stay, value, time and outcome, and what is refused."""

import gzip
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.sources.common.reasons import (
    BEYOND_LIMIT,
    INCOMPLETE,
    NO_TIME,
    NO_VALUE,
    NO_ZONE,
    NOT_A_NUMBER,
    RETRACTED,
    VAGUE_EVENT,
    VAGUE_STAY,
)
from consilium.client.sources.common.source import ReadReport
from consilium.client.sources.own.fhir.ndjson import TYPES
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, with_changes
from tests.client.sources.cohort_formats import STUDY, UCUM
from tests.client.sources.own.tables.test_tables import only

FHIR = with_changes(STUDY, data={"source": "fhir"})
SMALL = only(FHIR, "HR", "Gender", "Age")
SETTINGS = 'source = "fhir"\npath = "."\n'
IN, OUT, LATER = "2020-01-01T08:00:00Z", "2020-01-03T08:00:00Z", "2020-01-01T13:00:00Z"
PER_MINUTE = {"system": UCUM, "code": "/min", "unit": "beats a minute"}
Resource = dict[str, Any]


def patient(identity: str, **more: Any) -> Resource:
    base = {
        "resourceType": "Patient",
        "id": identity,
        "gender": "female",
        "birthDate": "1950-05-01",
    }
    return base | more


def encounter(identity: str, **more: Any) -> Resource:
    return {
        "resourceType": "Encounter", "id": f"e{identity}", "status": "finished",
        "class": {"code": "IMP"}, "subject": {"reference": f"Patient/{identity}"},
        "period": {"start": IN, "end": OUT},
    } | more  # fmt: skip


def observation(identity: str, value: Any = 80, **more: Any) -> Resource:
    return {
        "resourceType": "Observation", "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": f"Patient/{identity}"},
        "effectiveDateTime": "2020-01-01T09:00:00Z", "valueQuantity": PER_MINUTE | {"value": value},
    } | more  # fmt: skip


def condition(identity: str, **more: Any) -> Resource:
    return {
        "resourceType": "Condition", "subject": {"reference": f"Patient/{identity}"},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "91302008"}]},
    } | more  # fmt: skip


def export(folder: Path, *more: Resource, packed: bool = False) -> None:
    """Two patients with a stay and a pulse of 80 each, and more; the last of an id counts."""
    base = [f(n) for n in ("1", "2") for f in (patient, encounter, observation)]
    keyed = {(one["resourceType"], one.get("id", number)): one
             for number, one in enumerate((*base, *more))}  # fmt: skip  # reads as one
    for kind in TYPES:
        lines = [json.dumps(one) for (of, _), one in keyed.items() if of == kind]
        content = "\n".join(lines).encode()
        if packed and kind != "Patient":
            (folder / f"{kind}.ndjson.gz").write_bytes(gzip.compress(content))
        elif lines:
            (folder / f"{kind}.ndjson").write_bytes(content)


def read(
    folder: Path, *more: Resource, settings: str = "", study: Study = SMALL
) -> tuple[TimeGrid, ReadReport]:
    export(folder, *more)
    return read_again(folder, settings, study)


def read_again(
    folder: Path, settings: str = "", study: Study = SMALL
) -> tuple[TimeGrid, ReadReport]:
    content = tomllib.loads(SETTINGS + settings)
    chosen = read_data_settings(content, where="site.toml", folder=folder)
    source = open_source(chosen, study)
    return to_grid(source.read_patients(study), study), source.report


def values(grid: TimeGrid, variable: int = 0) -> list[list[float]]:
    return [value_T[~np.isnan(value_T)].tolist() for value_T in grid.value_NTV[:, :, variable]]


def test_an_export_is_read_with_age_sex_and_death(tmp_path: Path) -> None:
    born = patient("2", gender="male", birthDate="1960", deceasedDateTime="2020-01-03")
    grid, report = read(tmp_path, born)
    assert values(grid) == [[80], [80]]
    assert grid.y_N.tolist() == [0, 1]
    assert grid.value_NTV[:, 0, 1:].tolist() == [[0, 69], [1, 59]]
    assert grid.mask_NT.sum(axis=1).tolist() == [48, 48]
    assert report.set_aside == {}


@pytest.mark.parametrize(
    ("more", "labels"),
    [
        ([patient("1", deceasedDateTime="2020-01-02T01:00:00+09:00")], [1, 0]),
        ([patient("1", deceasedDateTime="2020-01-04")], [0, 0]),
        ([patient("1", deceasedBoolean=False)], [0, 0]),
        ([patient("1", deceasedBoolean=True)], [0]),  # when is not known: no label
        (
            [
                patient("1", deceasedBoolean=True),
                encounter(
                    "1",
                    hospitalization={"dischargeDisposition": {"coding": [{"code": "exp"}]}},
                ),
            ],
            [1, 0],
        ),
    ],
)
def test_a_death_counts_where_its_time_or_the_discharge_says_so(
    more: list[Resource], labels: list[int], tmp_path: Path
) -> None:
    grid, report = read(tmp_path, *more)
    assert grid.y_N.tolist() == labels
    assert report.unlabelled == 2 - len(labels)


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("more", "reason", "kept"),
    [
        (observation("1", None), NO_VALUE, [80]),
        (observation("1", "high"), NO_VALUE, [80]),
        (observation("1", valueQuantity=None, valueString="high"), NOT_A_NUMBER, [80]),
        (observation("1", effectiveDateTime="2020-01"), VAGUE_EVENT, [80]),
        (observation("1", effectiveDateTime="2020-01-01T13:00:00"), NO_ZONE, [80]),
        (observation("1", effectiveDateTime="\ud800"), NO_TIME, [80]),
        (observation("1", valueQuantity=None, valueString="\ud800"), NO_VALUE, [80]),
        (observation("1", 90, effectiveDateTime=LATER, status="entered-in-error"), RETRACTED, [80]),
        (
            observation(
                "1",
                effectiveDateTime=LATER,
                valueQuantity=PER_MINUTE | {"value": 200, "comparator": ">"},
            ),
            BEYOND_LIMIT,
            [80, 200],
        ),
        (encounter("3", period={"end": "2020-01-01"}), INCOMPLETE, [80]),
        (encounter("3", period={"start": "2020-01"}), VAGUE_STAY, [80]),
        (encounter("3", status="planned"), RETRACTED, [80]),
    ],
)
def test_what_says_less_than_a_number_at_a_time_is_counted(
    more: Resource, reason: str, kept: list[float], tmp_path: Path
) -> None:
    grid, report = read(tmp_path, more)
    assert report.set_aside == {reason: 1}
    assert values(grid)[0] == kept


def test_components_periods_words_and_units_in_text_are_read(tmp_path: Path) -> None:
    study = only(FHIR, "HR", "NISysABP", "GCS")
    loinc = {"system": "http://loinc.org", "code": "76534-7"}
    pressure = observation(
        "1", code={"coding": [{"code": "panel"}]}, valueQuantity=None, effectiveDateTime=None,
        effectivePeriod={"start": IN, "end": LATER},
        component=[
            {"code": {"coding": [loinc]}, "valueQuantity": {"value": 120, "unit": "mmHg"}},
            {"code": {"coding": [{"code": "coma"}]},
             "valueCodeableConcept": {"coding": [{"code": "alert"}]}},
            {"code": {"coding": [{"code": "coma"}]}, "valueInteger": 14},
            "no component",
        ],
    )  # fmt: skip
    settings = '[variables.GCS]\ncodes = ["coma"]\nvalues = { alert = 15 }\n'
    settings += '[units]\nmmHg = "mm[Hg]"\n'
    grid, report = read(tmp_path, pressure, settings=settings, study=study)
    assert values(grid, 1) == [[120], []]
    assert grid.value_NTV[0, 5, 1] == 120  # known at the end of its period
    assert values(grid, 2) == [[14], []]  # of two at one time the last
    assert report.duplicates == 1


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("diagnosis", "label"),
    [
        ({"onsetDateTime": LATER}, 1),
        ({"onsetDateTime": "2020-01-03"}, 1),
        ({"onsetDateTime": "2019-12-31", "encounter": {"reference": "Encounter/e1"}}, 0),
        ({"encounter": {"reference": "Encounter/e1"}, "recordedDate": "2020-02-01"}, 1),
        ({"recordedDate": "2020-02-01"}, 0),
        ({}, 0),
        ({"onsetDateTime": LATER, "verificationStatus": {"coding": [{"code": "refuted"}]}}, 0),
    ],
)
def test_a_condition_counts_from_its_onset_or_in_its_encounter(
    diagnosis: Resource, label: int, tmp_path: Path
) -> None:
    settings = '[outcome]\nkind = "condition"\ncodes = ["http://snomed.info/sct|91302008"]\n'
    grid, _ = read(tmp_path, condition("1", **diagnosis), settings=settings)
    assert grid.y_N.tolist() == [label, 0]


def test_a_condition_can_be_an_input(tmp_path: Path) -> None:
    study = only(FHIR, "HR", "Lactate")
    settings = '[variables.Lactate]\ncodes = ["91302008"]\npresent = 2\n'
    grid, _ = read(tmp_path, condition("2", onsetDateTime=LATER), settings=settings, study=study)
    assert values(grid, 1) == [[], [2]]


def test_a_drug_given_can_be_an_input_and_an_order_cannot(tmp_path: Path) -> None:
    study = only(FHIR, "HR", "Lactate")
    settings = '[variables.Lactate]\ncodes = ["urn:drugs|noradrenaline"]\npresent = 2\n'
    drug = {"coding": [{"system": "urn:drugs", "code": "noradrenaline"}]}
    other = {"coding": [{"system": "urn:drugs", "code": "aspirin"}]}

    def given(identity: str, hour: int, **more: Any) -> Resource:
        return {
            "resourceType": "MedicationAdministration", "id": f"{identity}-{hour}",
            "status": "completed", "subject": {"reference": f"Patient/{identity}"},
            "effectiveDateTime": f"2020-01-01T{hour}:00:00Z",
        } | more  # fmt: skip

    period = {"start": "2020-01-01T11:30:00Z", "end": "2020-01-02T11:30:00Z"}
    contained = [{"resourceType": "Medication", "id": "m", "code": drug}, "no resource"]
    grid, report = read(
        tmp_path,
        {"resourceType": "Medication", "id": "17", "code": drug},
        {"resourceType": "Medication", "id": "m", "code": other},
        given("1", 10, medicationCodeableConcept=drug),
        given("1", 12, medicationReference={"reference": "Medication/17"}),
        given("1", 14, medicationReference={"reference": "#m"}, contained=contained),
        given("2", 11, medicationCodeableConcept=drug, effectiveDateTime=None,
              effectivePeriod=period, status="in-progress"),
        given("2", 13, medicationCodeableConcept=other),
        given("2", 14, medicationReference={"reference": "Medication/m"}),
        given("2", 15, medicationReference={"reference": "#m"}),
        given("2", 16, medicationCodeableConcept=drug, status="not-done"),
        given("2", 17, medicationCodeableConcept=drug, effectiveDateTime="2020-01-01"),
        {"resourceType": "MedicationRequest", "id": "r", "status": "active", "intent": "order",
         "subject": {"reference": "Patient/2"}, "medicationCodeableConcept": drug,
         "authoredOn": LATER},
        settings=settings,
        study=study,
    )  # fmt: skip
    assert values(grid, 1) == [[2, 2, 2], [2, 2]]
    assert np.flatnonzero(~np.isnan(grid.value_NTV[0, :, 1])).tolist() == [2, 4, 6]
    # Of the last of them only the day is known, so it counts from the end of that day.
    assert np.flatnonzero(~np.isnan(grid.value_NTV[1, :, 1])).tolist() == [3, 16]
    assert report.set_aside == {RETRACTED: 1}


def test_inner_encounters_are_stays_only_where_they_are_asked_for(tmp_path: Path) -> None:
    inner = encounter("9", subject={"reference": "Patient/1"}, partOf={"reference": "Encounter/e1"})
    grid, _ = read(tmp_path, inner)
    assert len(grid.y_N) == 2
    grid, _ = read_again(tmp_path, "inner_encounters = true\n")
    assert grid.patient_ids == ("1",)


def test_lines_that_are_no_resources_are_set_aside_among_others(tmp_path: Path) -> None:
    export(tmp_path)
    path = tmp_path / "Observation.ndjson"
    whole, (before, _) = path.read_bytes(), read_again(tmp_path)
    lines = (b'{"resourceType": "Observation", "valueString": "Me', b'"Meier"', b"\xff\xfe", b"[1]")
    good = '{"resourceType": "Observation", "valueString": "\ufffd"}'.encode()  # lost elsewhere
    path.write_bytes(b"\n".join([*lines, good, whole]) + b"\n")
    after, report = read_again(tmp_path)
    assert values(after) == values(before)
    assert report.set_aside == {"lines that cannot be read": 4}
    path.write_bytes(b"[1]\n" * 12 + whole)
    with pytest.raises(DataError, match=r"Observation\.ndjson line 11: is no JSON object"):
        read_again(tmp_path)


@pytest.mark.slow
def test_a_last_line_that_is_no_resource_is_refused_with_file_and_line(tmp_path: Path) -> None:
    export(tmp_path)
    path = tmp_path / "Observation.ndjson"
    whole = path.read_bytes()
    for line, told in (
        (b'{"resourceType": "Observation", "valueString": "Meier', "is no JSON in UTF-8"),
        (b'"Meier"', "is no JSON object"),
        (b"[" * 100_000, "is no JSON in UTF-8"),
        (b'{"valueInteger": NaN}', "is no JSON in UTF-8"),
        (b"\xff\xfe", "is no JSON in UTF-8"),
        (b"1" * 5000, "is no JSON in UTF-8"),
        (b"{" + b" " * (9 << 20), "longer than 8388608 bytes"),
    ):
        path.write_bytes(whole + b"\n" + line)
        with pytest.raises(DataError, match=rf"Observation.ndjson line 3: {told}") as caught:
            read_again(tmp_path)
        assert "Meier" not in str(caught.value)
    path.rename(tmp_path / "Observation.ndjson.gz")
    for content in (whole, gzip.compress(whole)[:-9], gzip.compress(whole)[:30]):
        (tmp_path / "Observation.ndjson.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read to its end|line \d: is no JSON"):
            read_again(tmp_path)
    bomb = gzip.compress(bytes(64 << 20), 1)
    (tmp_path / "Observation.ndjson.gz").write_bytes(bomb)
    with pytest.raises(DataError, match="line 1: longer than 8388608 bytes"):
        read_again(tmp_path)


def test_files_without_a_type_in_their_names_are_looked_through(tmp_path: Path) -> None:
    export(tmp_path)
    whole = b"\n\n".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"holds no Patient.ndjson .* that includes Patient"):
        read_again(tmp_path)
    (tmp_path / "part-0.ndjson").write_bytes("\ufeff".encode() + whole)
    grid, _ = read_again(tmp_path)
    assert values(grid) == [[80], [80]]


def bundle(*resources: Resource, kind: str = "collection", **more: Any) -> Resource:
    entries = [{"fullUrl": f"https://h/{n}", "resource": one} for n, one in enumerate(resources)]
    return {"resourceType": "Bundle", "type": kind, "entry": entries} | more


def everything() -> list[Resource]:
    return [f(n) for n in ("1", "2") for f in (patient, encounter, observation)]


def read_folder(folder: Path) -> list[list[float]]:
    chosen = read_data_settings(tomllib.loads(SETTINGS), where="site.toml", folder=folder)
    return values(to_grid(open_source(chosen, SMALL).read_patients(SMALL), SMALL))


BUNDLES = {
    "all.json": lambda: json.dumps(bundle(*everything()), indent=2),
    "all.JSON": lambda: json.dumps(bundle(*everything(), kind="searchset")),
    "lines.json": lambda: "\n".join(map(json.dumps, everything())),
    "pages.ndjson": lambda: "\n".join(json.dumps(bundle(*everything()[n : n + 4])) for n in (0, 2)),
    "nested.json": lambda: json.dumps(bundle(bundle(*everything()[:3]), *everything()[3:])),
    "all.json.gz": lambda: json.dumps(bundle(*everything())),
    "patient.ndjson.GZ": lambda: "\n".join(map(json.dumps, everything())),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_are_read_as_what_is_in_them(name: str, tmp_path: Path) -> None:
    content = BUNDLES[name]().encode()
    names = (
        [name] if "patient" not in name else [name, "encounter.ndjson.gz", "observation.NDJSON.gz"]
    )
    for one in names:
        packed = gzip.compress(content) if one.lower().endswith(".gz") else content
        (tmp_path / one).write_bytes(packed)
    assert read_folder(tmp_path) == [[80], [80]]


def test_a_transaction_names_its_resources_by_their_urls(tmp_path: Path) -> None:
    person = patient("x")
    del person["id"]
    subject = {"reference": "urn:uuid:11"}
    stay = encounter("x", subject=subject)
    del stay["id"]
    found = bundle(person, stay, observation("x", subject=subject), kind="transaction")
    for number, entry in enumerate(found["entry"], start=11):
        entry["fullUrl"], entry["request"] = f"urn:uuid:{number}", {"method": "POST"}
    found["entry"].append({"request": {"method": "DELETE", "url": "Patient/11"}})
    (tmp_path / "t.json").write_text(json.dumps(found))
    assert read_folder(tmp_path) == [[80]]


def test_a_history_and_a_document_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "h.json").write_text(json.dumps(bundle(*everything(), kind="history")))
    with pytest.raises(DataError, match=r"h\.json: is a Bundle of a history, which holds old"):
        read_folder(tmp_path)
    monkeypatch.setattr("consilium.client.sources.own.fhir.bundles.LARGEST_DOCUMENT", 100)
    with pytest.raises(DataError, match=r"h\.json is one JSON document of more than 100 bytes"):
        read_folder(tmp_path)
    (tmp_path / "h.json").write_text('{"resourceType": "Patient"')
    with pytest.raises(DataError, match=r"h\.json line 1: is no JSON in UTF-8"):
        read_folder(tmp_path)
