"""Which size a hospital declares when it approves a study."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.commands import declared_size
from consilium.client.commands.declared_size import chosen_size
from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.settings import SiteSettings
from consilium.client.records.cohort import Cohort, read_cohort
from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import DataError, StudyError
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.simulations.cohorts.hospitals import synthetic_hospital
from tests.client.site_folders import enrolled

STUDY = parse_study("""
name = "one"
title = "One"
rounds = 2
sites = ["north", "b", "c"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
[evaluation]
validation_fraction = 0.5
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
""")


def approval(study: Study = STUDY, **sizes: int) -> Approval:
    return Approval(study=study, roster=Roster(()), sizes=sizes)


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return enrolled(tmp_path)


@pytest.fixture
def cohort(monkeypatch: pytest.MonkeyPatch, folder: SiteFolder) -> Cohort:
    """The site's records: a synthetic hospital's."""
    monkeypatch.setattr(
        SiteSettings, "open_source", lambda *_: synthetic_hospital(0, STUDY), raising=True
    )
    source = synthetic_hospital(0, STUDY)
    return read_cohort(source, STUDY, site="north", split_key=folder.split_key())


def test_the_rounded_number_of_training_patients_is_declared_unless_another_is_given(
    folder: SiteFolder, cohort: Cohort
) -> None:
    patients = cohort.training.patients
    assert patients < cohort.training.patients + cohort.validation.patients
    found = chosen_size(folder, approval(), None)
    assert found == np.float64(f"{patients:.0e}") != patients
    assert chosen_size(folder, approval(), 250) == 250


def test_what_was_declared_before_is_declared_again(folder: SiteFolder) -> None:
    assert chosen_size(folder, approval(north=250, b=7), None) == 250


def test_a_size_above_the_studys_bound_is_refused_and_none_is_proposed(
    folder: SiteFolder, cohort: Cohort
) -> None:
    small = with_changes(STUDY, aggregation={"max_weight": 12})
    assert chosen_size(folder, approval(small), None) == 12
    with pytest.raises(StudyError, match=r"declares 13 patients, above .* max_weight 12"):
        chosen_size(folder, approval(small), 13)


def test_without_records_the_hospital_is_told_to_give_a_size(folder: SiteFolder) -> None:
    with pytest.raises(DataError, match=r"has no \[data\].*give the size to declare with --pat"):
        chosen_size(folder, approval(), None)
    assert declared_size.chosen_size(folder, approval(), 40) == 40
