"""Which size a hospital declares when it approves a study."""

import numpy as np
import pytest

from consilium.client.commands.declared_size import chosen_size
from consilium.client.hospital.approvals import Approval
from consilium.client.records.cohort import Cohort, read_cohort
from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import StudyError
from consilium.shared.study.definition import Study, parse_study, with_changes
from consilium.simulations.cohorts.hospitals import synthetic_hospital

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
def cohort() -> Cohort:
    """The site's records: a synthetic hospital's."""
    source = synthetic_hospital(0, STUDY)
    return read_cohort(source, STUDY, site="north", split_key=bytes(32))


def test_the_rounded_number_of_training_patients_is_declared_unless_another_is_given(
    cohort: Cohort,
) -> None:
    patients = cohort.training.patients
    assert patients < cohort.training.patients + cohort.validation.patients
    found = chosen_size(approval(), "north", cohort, None)
    assert found == np.float64(f"{patients:.0e}") != patients
    assert chosen_size(approval(), "north", cohort, 250) == 250


def test_what_was_declared_before_is_declared_again(cohort: Cohort) -> None:
    assert chosen_size(approval(north=250, b=7), "north", cohort, None) == 250


def test_a_size_above_the_studys_bound_is_refused_and_none_is_proposed(cohort: Cohort) -> None:
    small = with_changes(STUDY, aggregation={"max_weight": 12})
    assert chosen_size(approval(small), "north", cohort, None) == 12
    with pytest.raises(StudyError, match=r"declares 13 patients, above .* max_weight 12"):
        chosen_size(approval(small), "north", cohort, 13)
