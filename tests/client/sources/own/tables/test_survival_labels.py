"""Times and events in a hospital's tables: read right, or refused in a sentence."""

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest

from consilium.client.records.features import to_grid
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import with_changes
from tests.hostile.neighbours import BASE

STUDY = with_changes(BASE, task={"kind": "survival", "outputs": 3, "cuts": [1.0, 2.0, 4.0]})
SETTINGS = """
source = "tables"
variables.age.column = "age"
variables.age.unit = "a"
variables.hr.unit = "/min"
[stays]
file = "people.csv"
patient = "id"
label = ["time", "state"]
values = { "0" = 0, "1" = 0, "2" = 1 }
repeated = "first"
[[events]]
file = "people.csv"
layout = "wide"
stay = "id"
hours = "hour"
"""
NAN = math.nan


def read(rows: str, folder: Path, settings: str = SETTINGS, study=STUDY):
    (folder / "people.csv").write_text("id,time,state,age,hour,hr\n" + rows)
    known = read_data_settings(tomllib.loads(settings), where="site.toml", folder=folder)
    return to_grid(open_source(known, study).read_patients(study), study)


def test_codes_are_of_the_event_alone_and_the_first_row_of_a_stay_is_taken(tmp_path: Path) -> None:
    rows = "1,2,2,50,0,80\n1,2,2,51,3,90\n2,2,1,60,0,70\n3,,,60,0,70\n4,9,0,60,0,70\n"
    grid = read(rows, tmp_path)
    expected = [[0, 1, NAN], [0, 0, NAN], [0, 0, 0]]
    assert np.array_equal(grid.y_N, np.array(expected, dtype=np.float32), equal_nan=True)
    assert grid.patient_ids == ("1", "2", "4")  # nothing is known of 3
    assert grid.value_NTV[0, 0].tolist() == [80, 50]
    assert grid.value_NTV[0, 3, 0] == 90


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("1,-2,2,50,0,80\n", "1 stays have a negative time"),
        ("1,2,3,50,0,80\n", "neither 0 .lost. nor 1"),
        ("1,,2,50,0,80\n", "a time or an event, and not both"),
        ("1,2,,50,0,80\n", "a time or an event, and not both"),
        ("1,2,2,50,0,80\n1,3,2,50,1,80\n", "rows of one stay have different labels, 1 times"),
        ("1,soon,2,50,0,80\n", "the label 'time' is no number"),
    ],
)
def test_what_is_no_time_with_an_event_is_refused_in_a_sentence(rows, said, tmp_path) -> None:
    with pytest.raises(DataError, match=said):
        read(rows, tmp_path)


def test_a_table_of_visits_is_refused_unless_it_is_said_to_be_one(tmp_path: Path) -> None:
    rows = "1,2,2,50,0,80\n1,2,2,51,3,90\n"
    with pytest.raises(DataError, match="1 stays have the identifier of another"):
        read(rows, tmp_path, SETTINGS.replace('repeated = "first"\n', ""))


def test_one_column_is_not_enough_for_survival(tmp_path: Path) -> None:
    one = SETTINGS.replace('["time", "state"]', '"time"')
    with pytest.raises(DataError, match="name two, of the time and of the event"):
        read("1,2,2,50,0,80\n", tmp_path, one)


def test_several_labels_of_a_stay_are_read_from_as_many_columns(tmp_path: Path) -> None:
    both = with_changes(BASE, task={"kind": "multilabel", "outputs": 2})
    settings = SETTINGS.replace('["time", "state"]', '["state", "hour"]')
    grid = read("1,2,2,50,0,80\n2,2,1,60,2,70\n3,2,,60,2,70\n", tmp_path, settings, both)
    assert np.array_equal(grid.y_N, np.float32([[1, 0], [0, 1], [NAN, 1]]), equal_nan=True)
