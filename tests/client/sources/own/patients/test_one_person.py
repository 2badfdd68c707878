"""One person under several identifiers: their records are one person's, and so is their opt-out."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.records.cohort import Cohort
from consilium.client.records.features import to_grid
from consilium.client.sources.common.opt_outs import OptOuts
from consilium.client.sources.common.source import Patient, Source
from consilium.client.sources.own.patients.one_person import joined
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.study.definition import Study
from tests.client.sources.own.fhir import test_fhir as fhir
from tests.client.sources.own.hl7 import test_hl7 as hl7


def opened(folder: Path, source: str, study: Study, named: str) -> Source:
    (folder / "opted-out.names").write_text(f"{named}\n")
    text = f'source = "{source}"\npath = "."\nopted_out = "opted-out.names"\n'
    chosen = read_data_settings(tomllib.loads(text), where="site.toml", folder=folder)
    return open_source(chosen, study)


def persons(folder: Path, source: str, study: Study, named: str) -> list[Patient]:
    return list(opened(folder, source, study, named).read_patients(study))


@pytest.mark.parametrize("named", ["7", "8", " 8.0", "9"])
def test_who_opted_out_under_a_merged_identifier_of_hl7_is_not_read(
    named: str, tmp_path: Path
) -> None:
    merges = [
        hl7.adt("A40", "8", "", sent="20200110000000", more="MRG|9^^^HOSP^PI"),
        hl7.adt("A40", "7", "", sent="20200111000000", more="MRG|8^^^HOSP^PI"),
    ]
    hl7.read(tmp_path, *merges, hl7.oru(hl7.obx("85"), person="9", visit="81"))
    assert [one.patient_id for one in persons(tmp_path, "hl7", hl7.STUDY, "nobody")] == ["7"]
    assert persons(tmp_path, "hl7", hl7.STUDY, named) == []


LINKS = {
    "replaced-by": ("2", [{"type": "replaced-by", "other": {"reference": "Patient/1"}}]),
    "replaces": ("1", [{"type": "replaces", "other": {"reference": "https://h/fhir/Patient/2"}}]),
    "seealso": ("1", [{"type": "seealso", "other": {"reference": "Patient/2"}}]),
}


@pytest.mark.parametrize("kind", LINKS)
def test_linked_patients_of_fhir_are_one_person_who_opts_out_under_either_identifier(
    kind: str, tmp_path: Path
) -> None:
    of, links = LINKS[kind]
    linked = fhir.patient(of, link=links)
    grid, _ = fhir.read(tmp_path, linked, fhir.patient("3"), fhir.encounter("3"))
    assert grid.patient_ids == ("1", "3")
    assert grid.patient_N.tolist() == [0, 0, 1]
    for named, left in (("1", ["3"]), ("2", ["3"]), ("3", ["1"])):
        assert [p.patient_id for p in persons(tmp_path, "fhir", fhir.FHIR, named)] == left


def test_what_the_identifier_in_use_says_comes_first_and_a_death_counts_under_any(
    tmp_path: Path,
) -> None:
    old = fhir.patient(
        "1", link=LINKS["replaced-by"][1][:0], birthDate="1900-01-01",
        deceasedDateTime="2020-01-02T08:00:00Z",
    )  # fmt: skip  # reads as one
    new = fhir.patient("2", link=[{"type": "replaces", "other": {"reference": "Patient/1"}}])
    grid, _ = fhir.read(tmp_path, old, new)
    assert grid.patient_ids == ("2",)
    assert grid.y_N.tolist() == [1, 1]
    assert fhir.values(grid, 2) == [[69.0], [69.0]]


@pytest.mark.parametrize(
    "link",
    [
        "x", [7, None, {}], [{"other": {"reference": "Patient/1"}, "type": "replaced-by"}],
        [{"other": {"reference": "RelatedPerson/2"}, "type": "seealso"}],
        [{"other": {"reference": 3}}],
    ],
)  # fmt: skip  # reads as one
def test_a_link_that_names_no_other_patient_joins_nobody(link: object, tmp_path: Path) -> None:
    grid, _ = fhir.read(tmp_path, fhir.patient("1", link=link))
    assert grid.patient_ids == ("1", "2")


def test_a_cohort_in_memory_leaves_out_whoever_is_named_by_an_identifier_of_before(
    tmp_path: Path,
) -> None:
    fhir.read(tmp_path, fhir.patient("2", link=LINKS["replaced-by"][1]),
              fhir.patient("3"), fhir.encounter("3"))  # fmt: skip  # reads as one
    source = opened(tmp_path, "fhir", fhir.FHIR, "nobody")
    grid = to_grid(source.read_patients(fhir.FHIR), fhir.FHIR)
    cohort = Cohort(training=grid, validation=None, report=source.report)
    assert cohort.without(OptOuts(frozenset({"2"}))).training.patient_ids == ("3",)
    assert cohort.without(OptOuts(frozenset({"4"}))).training.patient_ids == ("1", "3")


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=8),
    st.sets(st.sampled_from("abcdef")),
)
def test_identifiers_that_pairs_connect_share_one_that_is_in_use_if_any_is(
    pairs: list[tuple[str, str]], replaced: set[str]
) -> None:
    found = joined(pairs, replaced)
    assert set(found) == {one for pair in pairs for one in pair}
    assert all(found[first] == found[second] for first, second in pairs)
    for one, left in found.items():
        assert found[left] == left
        group = {other for other in found if found[other] == found[one]}
        assert left not in replaced or group <= replaced
