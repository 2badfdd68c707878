"""Who joins and leaves an approved study, and new keys, are decided on by named persons."""

import pytest

from consilium.shared.audit.events import Acted, RosterAgreed, RosterChanged
from consilium.shared.enrolment.fingerprint import fingerprint, to_words
from consilium.shared.errors import SettingsError
from tests.client.service.test_roster_agreement import JOINER, NEW
from tests.client.web.changing_study import PATH, Page
from tests.client.web.test_decisions import run as typed
from tests.server.coordinator.test_recovery import NEW as SUCCESSOR
from tests.server.coordinator.test_recovery import STUDY, VICTIM, succession

TWO = "[studies]\napprovals_needed = 2\n"


def test_what_waits_is_shown_where_studies_are_and_agreed_to_by_a_named_person(page: Page) -> None:
    anna = page.person("Anna")
    text = anna.get(PATH).text
    assert "No others are proposed." in text
    assert "waits for this hospital" not in anna.get("/studies").text
    digest = page.let_join()
    assert "roster 2 waits for this hospital" in anna.get("/studies").text
    assert "this hospital's word is asked for" in anna.get(PATH.removesuffix("/hospitals")).text
    text = anna.get(PATH).text
    assert " ".join(to_words(fingerprint(JOINER, NEW.public))) in text
    assert f"{JOINER} joins, with 7 patients" in text
    done = anna.post(f"{PATH}/agree", roster=digest, sure="yes")
    assert "This hospital agreed to roster 2." in done.text
    assert f"agreed to roster 2, by Anna (steward): {JOINER} to join." in done.text
    assert [(one.version, one.by) for one in page.events(RosterAgreed)] == [(2, "Anna (steward)")]
    assert not page.study.between_rounds(5)
    page.others_agree()
    assert page.study.between_rounds(6)
    now = anna.get(PATH).text  # takes over what is in force
    assert f"<td>{JOINER}</td>" in now
    assert "No others are proposed." in now
    assert "agreed to roster 2" not in now
    assert JOINER in page.own.sites


@pytest.mark.parametrize("page", [TWO], indirect=True)
def test_two_persons_agree_to_the_same_roster(page: Page) -> None:
    digest, anna = page.let_join(), page.person("Anna")
    told = anna.post(f"{PATH}/agree", roster=digest, sure="yes").text
    assert "sent only once 1 more person(s) agree" in told
    assert "agreed; it waits for another person" in told
    assert "has agreed to roster 2" in anna.post(f"{PATH}/agree", roster=digest, sure="yes").text
    assert page.events(RosterAgreed) == []
    assert "This hospital agreed" in page.person("Bert").post(
        f"{PATH}/agree", roster=digest, sure="yes"
    ).text  # fmt: skip
    assert [one.by for one in page.events(RosterAgreed)] == ["Anna (steward), Bert (steward)"]


@pytest.mark.parametrize("page", [TWO], indirect=True)
def test_an_account_of_the_machine_is_no_second_person(page: Page, capsys) -> None:
    digest = page.let_join()
    page.person("Anna").post(f"{PATH}/agree", roster=digest, sure="yes")
    words = ["roster", STUDY.name, "--accept"]
    with pytest.raises(SettingsError, match="policy asks for 2 persons; say who you are with --as"):
        typed(page.own.folder, *words)
    with pytest.raises(SettingsError, match="has agreed to roster 2"):
        typed(page.own.folder, *words, "--as", "Anna")
    with pytest.raises(SettingsError, match="only a steward decides"):
        typed(page.own.folder, *words, "--as", "Tom")
    with pytest.raises(SettingsError, match=f"has digest {digest[:16]}, not 00; read it again"):
        typed(page.own.folder, *words, "--digest", "00", "--as", "Bert")
    assert page.events(RosterAgreed) == []
    typed(page.own.folder, *words, "--digest", digest[:16], "--as", "Bert")
    assert "Agreed: it is in force from the next round on" in capsys.readouterr().out
    assert [one.by for one in page.events(RosterAgreed)] == ["Anna (steward), Bert (steward)"]
    typed(page.own.folder, *words[:2])
    assert "Roster 2, which Anna (steward), Bert (steward) agreed to, waits" in " ".join(
        capsys.readouterr().out.split()
    )


def test_another_roster_than_was_read_is_not_agreed_to(page: Page) -> None:
    digest, anna = page.let_join(), page.person("Anna")
    page.study.propose(leave=[VICTIM])
    for what in ("agree", "refuse"):
        told = anna.post(f"{PATH}/{what}", roster=digest, sure="yes")
        assert told.status_code == 409
        assert "is not proposed any more; nothing was decided" in told.text
    assert page.events(RosterAgreed, Acted) == []
    assert f"{VICTIM} leaves for good" in anna.get(PATH).text


def test_a_refusal_is_noted_and_sent_to_nobody_and_may_be_thought_over(page: Page) -> None:
    digest, anna = page.let_join(), page.person("Anna")
    told = anna.post(f"{PATH}/refuse", roster=digest).text
    assert "Roster 2 is refused" in told
    assert "Anna (steward): refused" in told
    page.others_agree()
    assert not page.study.between_rounds(5)
    anna.post(f"{PATH}/agree", roster=digest, sure="yes")
    assert page.study.between_rounds(6)
    assert [one.act for one in page.events(Acted)] == ["refuse a roster"]


def test_only_a_steward_decides_and_only_with_the_box_ticked(page: Page) -> None:
    digest = page.let_join()
    for name in ("Clara", "Tom"):
        person = page.person(name)
        assert "Only a steward decides." in person.get(PATH).text
        for what in ("agree", "refuse", "keys"):
            answer = person.post(f"{PATH}/{what}", roster=digest, sure="yes")
            assert answer.status_code == 403
    told = page.person("Anna").post(f"{PATH}/agree", roster=digest)
    assert "was not ticked; nothing was changed" in told.text
    assert page.events(RosterAgreed, Acted) == []


def test_without_the_coordinator_the_hospitals_are_shown_and_nothing_is_decided(
    page: Page,
) -> None:
    digest, anna = page.let_join(), page.person("Anna")
    page.line.is_cut = True
    text = anna.get(PATH).text
    assert "Nothing can be decided about other hospitals now: the coordinator cannot be" in text
    assert f"<td>{VICTIM}</td>" in text
    assert "waits for this hospital" not in anna.get("/studies").text
    assert anna.post(f"{PATH}/agree", roster=digest, sure="yes").status_code >= 400
    assert page.events(RosterAgreed, Acted) == []


def test_what_the_policy_does_not_allow_is_said_and_cannot_be_agreed_to(page: Page) -> None:
    digest, anna = page.let_join(), page.person("Anna")
    page.own.folder.vouchers().withdraw(JOINER, recorded=lambda _: None)
    text = anna.get(PATH).text
    assert "Nothing can be decided about other hospitals now:" in text
    assert "Agree to these hospitals" not in text
    assert anna.post(f"{PATH}/agree", roster=digest, sure="yes").status_code == 409
    assert page.events(RosterAgreed, Acted) == []


def test_a_study_that_is_not_approved_has_no_hospitals_to_decide_on(page: Page) -> None:
    page.own.approvals.withdraw(STUDY.digest)
    told = page.person("Anna").get(PATH)
    assert told.status_code == 409
    assert "this hospital takes no part in this study" in told.text


@pytest.fixture
def keys(page: Page) -> str:
    """The digest of a new key, as a person reads it: the victim came back on a new machine."""
    page.study.lose()
    page.study.succeed(succession())
    page.study.declare(VICTIM, 7, SUCCESSOR)
    text = page.person("Anna").get(PATH).text
    assert f"{VICTIM} stands under a new key" in text
    assert "the same hospital, as its recovery code proves." in text
    return text.split("name='keys' value='")[1].split("'")[0]


def test_a_new_key_that_is_proved_is_accepted_as_it_was_read(page: Page, keys: str) -> None:
    anna = page.person("Anna")
    told = anna.post(f"{PATH}/keys", keys="0" * 64, sure="yes")
    assert told.status_code == 409
    assert "others than those you read; nothing was accepted" in told.text
    assert page.events(RosterChanged) == []
    done = anna.post(f"{PATH}/keys", keys=keys, sure="yes")
    assert "The study goes on here with the new keys." in done.text
    assert [one.by for one in page.events(RosterChanged)] == ["Anna (steward)"]
    assert "No others are proposed." in anna.get(PATH).text


def test_a_new_key_that_nothing_proves_counts_only_with_vouchers(page: Page, keys: str) -> None:
    anna, page.line.proves = page.person("Anna"), False
    assert "nothing proves that it is the same" in anna.get(PATH).text
    told = anna.post(f"{PATH}/keys", keys=keys, sure="yes")
    assert told.status_code == 409
    assert page.events(RosterChanged) == []
    page.own.folder.vouchers().withdraw(VICTIM, recorded=lambda _: None)
    page.own.vouch(VICTIM, SUCCESSOR)
    done = anna.post(f"{PATH}/keys", keys=keys, sure="yes")
    assert "The study goes on here with the new keys." in done.text
