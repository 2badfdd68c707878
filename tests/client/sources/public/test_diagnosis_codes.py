"""Visits with diagnosis codes: order, codes, labels, and plain refusals."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.sources.common.reasons import BAD_LINE
from consilium.client.sources.public.diagnosis_codes import CODES, SERIES, DiagnosisCodes
from consilium.client.sources.public.icd9 import Icd9
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.shared.study.input_names import token_numbers

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data" / "diabetes130"
STUDY = load_study(ROOT / "studies" / "readmission-fusion.toml")
COLUMNS = ("encounter_id", "patient_nbr", "payer_code", "age", "gender", "readmitted")
HEADER = ",".join([*COLUMNS, *CODES, *SERIES])


def visit(number: int, patient: str, payer: str, readmitted: str, *codes: str) -> str:
    plain = [str(number), patient, payer, "[70-80)", "Male", readmitted]
    return ",".join([*plain, *codes, *["2"] * len(SERIES)])


LINES = [
    visit(7, "b", "MC", "NO", "428", "250.02", "?"),
    visit(9, "a", "HM", "<30", "V57", "E888", "999.9"),
    visit(3, "b", "?", ">30", "250.83", "401", "786"),
]


def write(folder: Path, lines: list[str] = LINES) -> Path:
    path = folder / "diabetic_data.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *lines]).encode()))
    return path


def vocabulary(*entries: str) -> Study:
    tokens = {"names": list(CODES), "vocabulary": list(entries)}
    return with_changes(STUDY, study={"tokens": tokens})


def test_a_patients_visits_are_one_sequence_in_the_order_of_encounters(tmp_path: Path) -> None:
    patients = list(DiagnosisCodes(write(tmp_path)).read_patients(STUDY))
    assert [patient.patient_id for patient in patients] == ["b", "a"]
    grid = to_grid(patients, STUDY)
    first, numbers = len(STUDY.variables), token_numbers(STUDY)
    assert grid.value_NTV[0, 0, first:].tolist() == [
        numbers[entry] for entry in ("250-250", "401", "786")
    ]
    assert grid.value_NTV[0, 1, first] == numbers["428"]
    assert np.isnan(grid.value_NTV[0, 1, first + 2])
    assert grid.value_NTV[0, 0, list(STUDY.variables).index("age")] == 75
    assert grid.y_N[:, :2].tolist()[0] == [0, 0]
    assert grid.y_N[1, 0] == 1
    assert grid.mask_NT.sum(axis=1).tolist() == [2, 1]


def test_patients_are_selected_by_their_first_visit_and_by_how_many_they_have(tmp_path) -> None:
    path = write(tmp_path)
    unknown = DiagnosisCodes(path, where={"payer_code": "?"})
    assert [p.patient_id for p in unknown.read_patients(STUDY)] == ["b"]
    several = DiagnosisCodes(tmp_path, fewest_visits=2)
    assert [p.patient_id for p in several.read_patients(STUDY)] == ["b"]
    assert several.report.filtered == 1


def test_a_code_is_found_by_itself_then_by_category_then_by_range() -> None:
    icd9 = Icd9(vocabulary("250-259", "250", "250.02", "V01-V91", "001-009"))
    codes = ("250.02", "250.83", "251.1", "V57", "8", "E888", "999", "rubbish", "?")
    numbers = [icd9.number(code) for code in codes]
    assert numbers[:8] == [4, 3, 2, 5, 6, 1, 1, 1]
    assert np.isnan(numbers[8])


@pytest.mark.parametrize("entry", ["diabetes", "300-200", "V01-E09", "1234"])
def test_a_vocabulary_that_is_not_of_icd_9_is_refused(entry: str) -> None:
    with pytest.raises(DataError, match="vocabulary"):
        Icd9(vocabulary("250", entry))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["1,2,3"], "line 2: 3 columns, not"),
        (
            [visit(1, "a", "MC", "maybe", "1", "2", "3")],
            "line 2: encounter_id is no number, patient_nbr",
        ),
        (["x" * 70_000], "longer than 65536 characters"),
    ],
)
def test_a_file_of_malformed_lines_is_refused(tmp_path, lines, sentence) -> None:
    with pytest.raises(DataError, match=sentence):
        list(DiagnosisCodes(write(tmp_path, lines)).read_patients(STUDY))


def test_a_malformed_line_among_others_is_set_aside_and_counted(tmp_path: Path) -> None:
    whole = list(DiagnosisCodes(write(tmp_path, LINES)).read_patients(STUDY))
    source = DiagnosisCodes(write(tmp_path, [*LINES, "1,2,3"]))
    found = list(source.read_patients(STUDY))
    assert [patient.patient_id for patient in found] == [patient.patient_id for patient in whole]
    assert source.report.set_aside[BAD_LINE] == 1


def test_a_truncated_archive_and_another_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, LINES * 500)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot be read as CSV"):
        list(DiagnosisCodes(path).read_patients(STUDY))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no column 'encounter_id'"):
        list(DiagnosisCodes(tmp_path / "other.csv").read_patients(STUDY))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the encounters are not beside the repository")
def test_patients_with_several_visits_are_as_many_as_published() -> None:
    source = DiagnosisCodes(DATA, fewest_visits=2)
    grid = to_grid(source.read_patients(STUDY), STUDY)
    assert grid.patients == 16_773
    assert grid.patients + source.report.filtered == 71_518
    codes = grid.value_NTV[..., len(STUDY.variables) :]
    assert (codes == 1).sum() / (~np.isnan(codes)).sum() < 0.01
