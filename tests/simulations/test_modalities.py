"""Slices of a scan, age and sex in one model: each branch learns what the others cannot see."""

import numpy as np
import pytest

import consilium
from tests.client.sources.recorded.dicom_maker import write_slice, write_table

PERSONS, SLICES = 160, 4
TEXT = """
schema = 2
name = "slices-age-and-sex"
title = "A finding in the slices, in the old"
rounds = 40
seed = 3
sites = ["north", "south", "west"]
[data]
source = "image-slices"
clock = "position"
label = "label"
window_h = 4
[[model.branches]]
kind = "convolution"
rows = 2
kernel = 2
layers = 1
channels = 4
cell = "gru"
hidden = 8
inputs = ["cell-0-0-of-2", "cell-0-1-of-2", "cell-1-0-of-2", "cell-1-1-of-2"]
[[model.branches]]
kind = "linear"
inputs = ["age", "male"]
[training]
local_steps = 1
optimizer = "sgd"
learning_rate = 1.0
[aggregation]
strategy = "fedadam"
server_learning_rate = 0.05
[privacy]
mode = "none"
[variables]
cell-0-0-of-2 = { unit = "1", low = 0, high = 4095, center = 500, spread = 200 }
cell-0-1-of-2 = { unit = "1", low = 0, high = 4095, center = 500, spread = 200 }
cell-1-0-of-2 = { unit = "1", low = 0, high = 4095, center = 500, spread = 200 }
cell-1-1-of-2 = { unit = "1", low = 0, high = 4095, center = 500, spread = 200 }
age = { unit = "a", low = 0, high = 120, center = 55, spread = 20, role = "static" }
male = { unit = "1", low = 0, high = 1, center = 0.5, spread = 0.5, role = "static" }
"""
SETTINGS = """
[data]
source = "image-slices"
path = "scans"
[data.variables]
age = { attribute = "PatientAge" }
male = { attribute = "PatientSex", values = { M = 1, F = 0 } }
[test]
fraction = 0.4
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Made-up scans, bright in the corner of a finding or not, of the young and the old.

    Who has a finding and is old has the label; of who has one of the two, a coin decides.
    """
    folder, draw = tmp_path_factory.mktemp("scans"), np.random.default_rng(5)
    rows = {}
    for n in range(PERSONS):
        finding, old = n % 2, n // 2 % 2
        age, sex = int(draw.integers(65, 90) if old else draw.integers(20, 50)), "MF"[n // 4 % 2]
        rows[f"P{n}"] = int(draw.random() < (finding + old) / 2)
        for z in range(SLICES):
            pixels = draw.normal(500, 60, (4, 4))
            pixels[2:, 2:] += 300 * finding * (z >= 2)
            write_slice(
                folder / "scans" / f"{n}" / f"{z}.dcm", pixels.clip(0, 4095), patient=f"P{n}",
                series=f"1.{n}.1", study=f"1.{n}", number=z + 1, position=(0, 0, z),
                PatientAge=f"{age:03d}Y", PatientSex=sex,
            )  # fmt: skip
    write_table(folder / "scans", rows)
    (folder / "records.toml").write_text(SETTINGS)
    return folder / "records.toml"


def auroc(study, records) -> float:
    result = consilium.simulate(study, consilium.Records.from_settings(records))
    return result.test.auroc.value


@pytest.mark.slow
def test_two_kinds_of_data_in_one_study_tell_more_than_each_alone(records):
    """Of 64 test persons; perfect knowledge of both has 0.875, of one 0.75, in the long run."""
    study = consilium.parse_study(TEXT)
    branches = study.model.branches
    both = auroc(study, records)
    slices, known = (
        auroc(consilium.with_changes(study, model={"branches": [one.model_dump()]}), records)
        for one in branches
    )
    assert both > max(slices, known) + 0.03
    assert min(slices, known) > 0.6


def test_such_a_study_trains_with_privacy(records):
    private = consilium.with_changes(
        consilium.parse_study(TEXT), study={"rounds": 3},
        privacy={"mode": "distributed", "epsilon": 8.0},
    )  # fmt: skip
    with consilium.simulate(private, consilium.Records.from_settings(records)) as result:
        assert 7.9 < result.epsilon <= 8.0
        assert result.test.patients > 40
