"""A site's patients are parted once and for all, and unusable data are told by site."""

from dataclasses import replace

import numpy as np
import pytest

from consilium.client.ledger.releases import SHARDS
from consilium.client.records.cohort import (
    read_cohort,
    require_suitable,
    shard_of,
    training_shards,
    validation_shards,
)
from consilium.shared.errors import DataError
from consilium.shared.study.definition import parse_study, with_changes
from consilium.simulations.cohorts.hospitals import synthetic_hospital

STUDY = parse_study("""
name = "parted"
title = "Parted"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
[evaluation]
validation_fraction = 0.25
""")
KEY = bytes(32)


def test_training_and_validation_patients_are_disjoint_and_together_all() -> None:
    cohort = read_cohort(synthetic_hospital(0, STUDY), STUDY, site="a", split_key=KEY)
    assert cohort.validation is not None
    train, held_out = set(cohort.training.patient_ids), set(cohort.validation.patient_ids)
    assert not train & held_out
    assert len(train | held_out) == cohort.report.patients
    assert 0.15 < len(held_out) / cohort.report.patients < 0.35
    low, high = training_shards(STUDY)
    assert all(low <= shard_of(patient, KEY) < high for patient in train)
    low, high = validation_shards(STUDY)
    assert all(low <= shard_of(patient, KEY) < high for patient in held_out)


def test_without_validation_everybody_trains() -> None:
    study = with_changes(STUDY, evaluation={"validation_fraction": 0.0})
    cohort = read_cohort(synthetic_hospital(0, study), study, site="a", split_key=KEY)
    assert cohort.validation is None
    assert cohort.training.patients == cohort.report.patients
    assert training_shards(study) == (0, SHARDS)


def test_shards_depend_on_the_sites_key_and_are_even() -> None:
    names = [f"patient-{number}" for number in range(20_000)]
    shards = np.array([shard_of(name, KEY) for name in names])
    counts = np.bincount(shards, minlength=SHARDS)
    assert len(counts) == SHARDS
    chi_square = float(np.sum((counts - 200) ** 2 / 200))
    assert chi_square < 160  # 99 degrees of freedom: p about 1e-4
    other = np.array([shard_of(name, bytes([1]) * 32) for name in names])
    assert abs(np.corrcoef(shards, other)[0, 1]) < 0.05


def test_reading_decides_nothing_and_too_few_are_told_with_the_site_and_the_bound() -> None:
    study = with_changes(STUDY, data={"minimum_patients": 100_000})
    found = read_cohort(synthetic_hospital(0, study), study, site="a", split_key=KEY)
    with pytest.raises(DataError, match=r"site a: .* 100000"):
        require_suitable(found, study, site="a", minimum_patients=1)


def test_the_hospitals_own_bound_and_a_single_outcome_are_told_to_its_people() -> None:
    found = read_cohort(synthetic_hospital(0, STUDY), STUDY, site="a", split_key=KEY)
    patients = found.training.patients
    require_suitable(found, STUDY, site="a", minimum_patients=patients)
    with pytest.raises(DataError, match=f"{patients} patients .* own bound of {patients + 1}"):
        require_suitable(found, STUDY, site="a", minimum_patients=patients + 1)
    alive = replace(found.training, y_N=np.zeros_like(found.training.y_N))
    with pytest.raises(DataError, match="site a: no patient has a positive label"):
        require_suitable(replace(found, training=alive), STUDY, site="a", minimum_patients=1)
