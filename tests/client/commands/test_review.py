"""What a hospital is told that stays with it, and what of that is sent along."""

import pytest

from consilium.client.commands.review import review_lines, roster_lines
from consilium.client.hospital.approvals import Approval
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.enrolment.messages import roster_fingerprint
from tests.rosters import sized_roster
from tests.study_text import small_study


def told(**tables: dict[str, object]) -> str:
    return "\n".join(review_lines(small_study(**tables)))


def test_a_study_that_shares_everything_says_nothing_of_own_parts() -> None:
    assert "Yours alone" not in told()
    assert "control variate" not in told()


def test_parts_that_stay_are_named_and_evaluation_judges_the_model_with_them() -> None:
    said = told(personalisation={"parts": ["head", "inputs"]})
    assert "Yours alone: the model's head (its maps to the outputs) and the mean" in said
    assert "evaluation judges the model as you use it" in said


@pytest.mark.parametrize("mode", ["site", "none"])
def test_a_second_model_is_called_what_it_is_where_privacy_does_not_cover_it(mode: str) -> None:
    said = told(personalisation={"ditto": {"pull": 0.1}}, privacy={"mode": mode})
    assert ("trained without noise, so it may remember your patients" in said) == (mode == "site")
    assert ("Evaluation judges the global model" in said) == (mode == "site")


def test_control_variates_are_said_to_be_sent() -> None:
    said = told(training={"control_variates": True})
    assert "Your mean gradient (a control variate) is in the same sum" in said


def test_no_number_of_patients_is_said_to_leave_but_the_declared_one() -> None:
    assert "no number of patients but the rounded one that you declare" in told()


def test_every_declared_size_is_shown_with_its_share_and_what_is_missing_is_named() -> None:
    study = small_study()
    keys = {site: IdentityKey.from_seed(site.encode() * 32) for site in study.sites}
    whole = sized_roster(keys, study.digest, a=300, b=100, c=3600)
    bare = Roster(whole.members)
    lines = roster_lines(Approval(study=study, roster=whole, sizes=whole.sizes))
    assert "a 300 (8%), b 100 (2%), c 3600 (90%)" in lines[0]
    assert "ask about one that is larger than the hospital you know" in lines[0]
    assert lines[1].startswith(f"Roster: {roster_fingerprint(whole)};")
    lines = roster_lines(Approval(study=study, roster=bare, sizes={"b": 100}))
    assert "b 100 (100%)" in lines[0]
    assert lines[1] == "Not declared yet: a, c. The study begins when all are."
    assert roster_fingerprint(bare) in lines[2]
    lines = roster_lines(Approval(study=study, roster=bare, sizes={}))
    assert lines[0].startswith("Not declared yet: a, b, c")
