"""Static variables of scans: columns and attributes, in the study's units, or refused."""

import numpy as np
import pytest

from consilium.client.sources.recorded.image_slices import ImageSlices
from consilium.client.sources.recorded.record_settings import ImageSlicesSettings
from consilium.shared.errors import ConsiliumError
from consilium.shared.study.definition import with_changes
from tests.client.sources.recorded.dicom_maker import write_ramp, write_table
from tests.client.sources.recorded.test_scans import STUDY

CELL = {"unit": "1", "low": -1e6, "high": 1e6, "center": 0.0, "spread": 1.0}
AGE = {"unit": "a", "low": 0, "high": 120, "center": 60, "spread": 15, "role": "static"}
MALE = {"unit": "1", "low": 0, "high": 1, "center": 0.5, "spread": 0.5, "role": "static"}


def study(**variables):
    """Four slices of one cell, with these variables before and after it."""
    names = {"age": AGE, "cell-0-0-of-1": CELL, "male": MALE} | variables
    return with_changes(
        STUDY,
        data={"window_h": 4},
        study={"variables": {name: one for name, one in names.items() if one}},
        privacy={"unit": "patient"},
    )


def read(folder, asked, **variables):
    """Each person's events as (hour, variable, value), and the report."""
    source = ImageSlices(
        ImageSlicesSettings(source="image-slices", path=folder, variables=variables)
    )
    names = list(asked.variables)
    found = {}
    for patient in source.read_patients(asked):
        (stay,) = patient.stays
        found[patient.patient_id] = [
            (float(hour), names[variable], round(float(value), 3))
            for hour, variable, value in zip(
                stay.hours_E, stay.variable_E, stay.value_E, strict=True
            )
        ]
    return found, source.report


SEX = {"attribute": "PatientSex", "values": {"M": 1, "F": 0}}
SLICES = [(float(t), "cell-0-0-of-1", 100.0 * (t + 1)) for t in range(4)]


def test_slices_and_what_the_header_and_the_table_say_are_one_stay(tmp_path):
    """An infant of 18 months is one and a half years old, whatever the settings call the unit."""
    write_ramp(tmp_path / "a", patient="P1", series="1.1", PatientAge="062Y", PatientSex="M")
    write_ramp(tmp_path / "b", patient="P2", series="1.2", PatientAge="018M", PatientSex="F")
    write_ramp(tmp_path / "c", patient="P3", series="1.3", PatientSex="O")
    write_table(tmp_path, {"P1": (1, "7,5"), "P2": (0, "N/A"), "P3": (1, "lots")},
                "patient", "label", "score")  # fmt: skip
    asked = study(score={**AGE, "unit": "1", "high": 100})
    found, report = read(
        tmp_path, asked,
        age={"attribute": "PatientAge", "unit": "d"}, male=SEX, score={"column": "score"},
    )  # fmt: skip
    assert sorted(found["p1"]) == sorted([*SLICES, (0.0, "age", 62.0), (0.0, "male", 1.0)])
    assert sorted(found["p2"]) == sorted([*SLICES, (0.0, "age", 1.5), (0.0, "male", 0.0)])
    assert found["p3"] == SLICES
    assert report.missing_static == {"age": 1, "male": 1, "score": 3}
    assert report.set_aside["values that are no number"] == 3  # O, "7,5" and lots


def test_a_word_that_usually_means_nothing_counts_where_the_settings_give_it_a_number(tmp_path):
    write_ramp(tmp_path / "a")
    write_table(tmp_path, {"P1": (1, "Unknown")}, "patient", "label", "smokes")
    asked = study(age=None, male=None, smokes={**MALE, "high": 2})
    words = {"column": "smokes", "values": {"yes": 1, "no": 0, "unknown": 2}}
    found, report = read(tmp_path, asked, smokes=words)
    assert (0.0, "smokes", 2.0) in found["p1"]
    assert not report.missing_static


def test_a_unit_of_something_else_is_refused(tmp_path):
    write_ramp(tmp_path / "a", PatientAge="062Y")
    write_table(tmp_path, {"P1": 1})
    with pytest.raises(ConsiliumError, match=r"variable age: .*'a'"):
        read(tmp_path, study(age={**AGE, "unit": "kg"}, male=None), age={"attribute": "PatientAge"})


@pytest.mark.parametrize(("wanted", "height"), [("m", 1.82), ("cm", 182.0)])
def test_an_attribute_with_a_unit_of_the_standard_is_converted(tmp_path, wanted, height):
    write_ramp(tmp_path / "a", PatientSize="1.82", PatientWeight="0")
    write_table(tmp_path, {"P1": 1})
    size = {**AGE, "unit": wanted, "high": 300}
    asked = study(age=None, male=None, height=size, weight={**AGE, "unit": "kg", "high": 300})
    found, _ = read(tmp_path, asked, height={"attribute": "PatientSize"},
                    weight={"attribute": "PatientWeight"})  # fmt: skip
    assert [event for event in found["p1"] if event[1] != "cell-0-0-of-1"] == [
        (0.0, "height", height), (0.0, "weight", 0.0),
    ]  # fmt: skip


def test_a_volume_without_a_header_has_its_static_variables_from_the_table(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    voxels = np.broadcast_to(np.arange(1.0, 5.0) * 100, (4, 4, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "one.nii.gz")
    write_table(tmp_path, {"one": (1, "71", "female")}, "patient", "label", "age", "sex")
    words = {"column": "sex", "values": {"Male": 1, "Female": 0}}
    found, _ = read(tmp_path, study(), age={"column": "age"}, male=words)
    assert sorted(found["one"]) == sorted([*SLICES, (0.0, "age", 71.0), (0.0, "male", 0.0)])
    with pytest.raises(ConsiliumError, match="an attribute of DICOM, and one is of another format"):
        read(tmp_path, study(), age={"attribute": "PatientAge"}, male=words)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"male": SEX}, r"\[data.variables.age\] must say the column or the attribute"),
        ({"age": {}, "male": SEX}, r"\[data.variables.age\] must say the column or the attribute"),
        ({"age": {"column": "age", "attribute": "PatientAge"}, "male": SEX}, "name one of the two"),
        ({"age": {"column": "aeg"}, "male": SEX}, "no column 'aeg'.*it has 'patient', 'label'"),
        ({"age": {"attribute": "PatientsAge"}, "male": SEX}, "'PatientsAge' is no keyword"),
        ({"age": {"attribute": "PixelData"}, "male": SEX}, "'PixelData' is no keyword"),
        ({"age": {"attribute": "PatientName"}, "male": SEX}, "'PatientName' is no keyword"),
        ({"age": {"attribute": "PatientAge"}, "male": SEX, "cell-0-0-of-1": {"column": "label"}},
         r"\[data.variables.cell-0-0-of-1\] is not a static variable"),
        ({"age": {"attribute": "PatientAge"}, "male": SEX, "wieght": {"column": "label"}},
         r"\[data.variables.wieght\] is not a static variable"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_refused_in_a_sentence(tmp_path, variables, sentence):
    write_ramp(tmp_path / "a")
    write_table(tmp_path, {"P1": 1})
    with pytest.raises(ConsiliumError, match=sentence):
        read(tmp_path, study(), **variables)


def test_arrays_and_studies_without_slices_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=np.zeros((1, 4, 4, 4), np.uint8),
             train_labels=np.zeros((1, 1), np.uint8))  # fmt: skip
    with pytest.raises(ConsiliumError, match="are arrays, which have no static variable 'age'"):
        read(tmp_path / "a.npz", study(), age={"column": "age"}, male={"column": "sex"})
    write_ramp(tmp_path / "a")
    with pytest.raises(ConsiliumError, match="has no variable of the slices"):
        read(tmp_path, study(**{"cell-0-0-of-1": None}), age={"attribute": "PatientAge"}, male=SEX)
