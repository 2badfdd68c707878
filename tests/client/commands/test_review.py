"""What a hospital is told that stays with it, and what of that is sent along."""

import pytest

from consilium.client.commands.review import review_lines, roster_lines, trust_lines
from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.policy import Policy
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.enrolment.messages import roster_fingerprint
from consilium.shared.study.definition import Study, with_changes
from tests.client.vouching import lying, roster, signed, study, trust
from tests.rosters import sized_roster
from tests.study_text import small_study


def told(**tables: dict[str, object]) -> str:
    return "\n".join(review_lines(small_study(**tables)))


@pytest.mark.parametrize(("title", "line"), [("Who dies?", "Who dies?"), ("Death", "Death.")])
def test_a_title_is_a_sentence_once(title: str, line: str) -> None:
    named = with_changes(small_study(), study={"title": title})
    assert review_lines(named)[0] == f"Study small: {line}"


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


def approval(study: Study, roster: Roster) -> Approval:
    return Approval(study=study, roster=roster, sizes={})


def test_secrecy_is_claimed_with_the_number_of_honest_hospitals_that_it_takes() -> None:
    said = "\n".join(review_lines(study(8)))
    assert (
        "secret from the coordinator together with up to 1 other site(s): at least 6 of the 7"
        in said
    )
    assert (
        "A site that nobody vouched for may be the coordinator's own and counts among the 1."
        in said
    )


def test_shared_noise_is_claimed_with_those_that_nobody_vouched_for_among_the_colluding() -> None:
    said = told(privacy={"mode": "distributed"}, training={"local_steps": 1})
    assert "1 other site(s) together, any that nobody vouched for among them" in said


def test_each_site_of_a_roster_is_said_to_be_known_by_whom_or_not() -> None:
    given = (signed("east", "hill", "lake"), signed("south", "hill"), signed("west", "park"))
    lines = trust_lines(
        approval(study(8), roster(8)), trust("east", "south", given=given), Policy()
    )
    assert lines[:-1] == [
        "  north: this site",
        "  east: vouched for by this site",
        "  south: vouched for by this site",
        "  west: unknown",
        "  hill: vouched for by east, south",
        "  lake: unknown: vouched for by east only, and it takes 2",
        "  park: unknown",
        "  port: unknown",
    ]
    assert (
        "3 of the 7 sites summed with yours are vouched for; this site's policy asks for 6"
        in lines[-1]
    )
    assert "NOTHING above that rests on other sites holds" in lines[-1]


def test_what_unknown_sites_leave_of_the_claim_is_said() -> None:
    lines = trust_lines(approval(study(4), roster(4)), trust("east", "south"), Policy())
    assert "Unknown, and perhaps the coordinator's own: 1." in lines[-1]
    assert "hold while at most 0 of those vouched for collude with the coordinator" in lines[-1]


def test_another_key_than_the_one_that_was_checked_is_shouted() -> None:
    known = trust("east", "south", given=(signed("east", "west"), lying("south", "hill")))
    lines = trust_lines(approval(study(8), roster(8, invented=("south", "west"))), known, Policy())
    assert "  south: NOT THE KEY THAT THIS SITE CHECKED; telephone it before anything else" in lines
    assert "  west: NOT THE KEY THAT east CHECKED; telephone it" in lines
    assert "  hill: NOT THE KEY THAT south CHECKED; telephone it" in lines


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


def test_a_study_that_counts_first_says_what_is_counted_how_noisy_and_at_what_price() -> None:
    assert "before any training" not in told()
    said = told(feasibility={"epsilon": 0.5})
    assert "First, once, before any training: how many of your patients fit" in said
    assert "for epsilon 0.5 of the study's" in said
    assert "Sums below 10 are not shown. The study then rests" in said
    exact = told(feasibility={}, privacy={"mode": "none"})
    assert "numbers, exactly, as the study has no privacy. Sums below" in exact
