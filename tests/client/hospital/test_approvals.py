"""An approval keeps this site's declared size, and the sizes of others that it has seen."""

from dataclasses import replace
from pathlib import Path

import pytest

from consilium.client.hospital.approvals import Approvals
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.enrolment.messages import StudyOffer, offer_statement, roster_fingerprint
from consilium.shared.errors import AuthenticationError, PolicyError, SettingsError, StudyError
from consilium.shared.study.definition import parse_study
from tests.rosters import SIZE, declared, sized_roster
from tests.study_text import TEXT

STUDY = parse_study(TEXT)
COORDINATOR = IdentityKey.from_seed(b"c" * 32)
KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in STUDY.sites}
BARE = Roster(tuple((site, key.public) for site, key in KEYS.items()))
MINE = declared(KEYS, STUDY.digest)["a"]


def offer(*known: str, **sizes: int) -> StudyOffer:
    """The study as offered, with the declared sizes of the known sites."""
    signed = declared(KEYS, STUDY.digest, **sizes)
    return StudyOffer(
        text=TEXT.encode(),
        roster=dict(BARE.members),
        declared={site: signed[site].to_bytes() for site in known},
        signature=COORDINATOR.sign(offer_statement(TEXT.encode(), BARE)),
    )


def approvals(folder: Path) -> Approvals:
    return Approvals(folder, COORDINATOR.public, ("a", KEYS["a"].public))


def test_an_approval_holds_this_sites_size_and_those_declared_by_then(tmp_path: Path) -> None:
    approvals(tmp_path).approve(offer("b", b=400), MINE)
    found = approvals(tmp_path).find(STUDY.digest)
    assert found.sizes == {"a": SIZE, "b": 400}
    assert found.roster == BARE
    complete = approvals(tmp_path).check(offer("a", "b", "c"))
    assert complete.roster == sized_roster(KEYS, STUDY.digest)


def test_the_roster_has_another_fingerprint_with_other_sizes() -> None:
    found = {
        roster_fingerprint(BARE),
        roster_fingerprint(sized_roster(KEYS, STUDY.digest)),
        roster_fingerprint(sized_roster(KEYS, STUDY.digest, b=8)),
        roster_fingerprint(sized_roster(KEYS, STUDY.digest, c=8)),
    }
    assert len(found) == 4


def test_a_size_that_its_site_did_not_sign_is_not_approved(tmp_path: Path) -> None:
    given = offer("b", b=400)
    forged = replace(Declaration.from_bytes(given.declared["b"]), patients=40)
    with pytest.raises(AuthenticationError, match="the declared size of site b"):
        approvals(tmp_path).approve(replace(given, declared={"b": forged.to_bytes()}), MINE)
    with pytest.raises(AuthenticationError, match="the declared size of site a"):
        approvals(tmp_path).approve(offer(), Declaration(9, MINE.signature))
    assert approvals(tmp_path).find(STUDY.digest) is None


def test_a_size_that_the_study_does_not_allow_is_not_approved(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"site b declares 100001 patients, above .* 100000"):
        approvals(tmp_path).check(offer("b", b=100_001))
    assert approvals(tmp_path).check(offer("b", b=100_000)).sizes == {"b": 100_000}


def test_sizes_seen_in_a_run_are_known_ever_after_and_none_may_change(tmp_path: Path) -> None:
    site = approvals(tmp_path)
    site.approve(offer("b", b=400), MINE)
    stamp = site.stamp(STUDY.digest)
    known = site.known_sizes(site.find(STUDY.digest))
    with pytest.raises(PolicyError, match=r"site b declared 400 patients, and .* shows 500"):
        known.keep(STUDY, sized_roster(KEYS, STUDY.digest, b=500, c=30))
    known.keep(STUDY, sized_roster(KEYS, STUDY.digest, b=400, c=30))
    known.keep(STUDY, sized_roster(KEYS, STUDY.digest, b=400, c=30))
    assert site.stamp(STUDY.digest) == stamp  # or the open session would end
    again = approvals(tmp_path)  # as after a restart
    assert again.find(STUDY.digest).sizes == {"a": SIZE, "b": 400, "c": 30}
    with pytest.raises(PolicyError, match=r"site c declared 30 patients, and .* shows 3000"):
        again.known_sizes(again.find(STUDY.digest)).keep(
            STUDY, sized_roster(KEYS, STUDY.digest, b=400, c=3000)
        )
    with pytest.raises(PolicyError, match=r"site a declared 7 patients, and .* shows 70"):
        again.known_sizes(again.find(STUDY.digest)).keep(
            STUDY, sized_roster(KEYS, STUDY.digest, a=70, b=400, c=30)
        )


def test_what_was_seen_is_known_even_if_the_approval_was_withdrawn_in_between(
    tmp_path: Path,
) -> None:
    site = approvals(tmp_path)
    site.approve(offer(), MINE)
    site.known_sizes(site.find(STUDY.digest)).keep(STUDY, sized_roster(KEYS, STUDY.digest, c=30))
    site.withdraw(STUDY.digest)
    assert site.find(STUDY.digest) is None
    site.approve(offer(), MINE)
    assert site.find(STUDY.digest).sizes["c"] == 30


def test_a_damaged_memory_of_sizes_is_told_in_one_sentence(tmp_path: Path) -> None:
    site = approvals(tmp_path)
    site.approve(offer(), MINE)
    (tmp_path / f"{STUDY.digest.hex()}.sizes").write_bytes(b"\x00")
    with pytest.raises(SettingsError, match=r"\.sizes: is damaged"):
        site.find(STUDY.digest)


def test_an_approval_of_a_version_without_sizes_is_refused_in_one_sentence(tmp_path: Path) -> None:
    site = approvals(tmp_path)
    site.approve(offer(), MINE)
    file = tmp_path / f"{STUDY.digest.hex()}.offer"
    file.write_bytes(file.read_bytes().replace(b"study-offer", b"study-offen"))
    with pytest.raises(SettingsError, match="approve the study again"):
        site.find(STUDY.digest)
