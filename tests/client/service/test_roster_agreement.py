"""Other sites for a study that runs: what hospitals agree to, and what a lying coordinator gets."""

from dataclasses import replace

import pytest

from consilium.client.commands.roster_decisions import agree, refuse, roster_change_lines
from consilium.client.hospital.folder import Enrolment, SiteFolder
from consilium.client.hospital.policy import Policy
from consilium.client.service.pinned_connection import approvals_of
from consilium.client.service.roster_agreement import BY_RULE, RosterDesk, RosterWatch
from consilium.server.coordinator.enrolment import dismiss
from consilium.server.coordinator.roster_book import (
    cancel,
    note_in_force,
    proposal_of,
    put_in_force,
    versions_of,
)
from consilium.shared.audit.events import Approved
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.reading import roster_events, rosters_in_force
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.enrolment.fingerprint import fingerprint
from consilium.shared.enrolment.messages import STUDY_PATH, StudyOffer, StudyRequest, roster_digest
from consilium.shared.enrolment.roster_version import (
    AGREE_PATH,
    ROSTER_PATH,
    AgreedRoster,
    RosterReply,
    RosterVersion,
)
from consilium.shared.errors import (
    AuthenticationError,
    ConsiliumError,
    ProtocolError,
    SettingsError,
    StudyError,
)
from consilium.shared.study.definition import Study as StudyText
from tests.in_process import memory_folder
from tests.server.coordinator.test_recovery import COORDINATOR, KEYS, STUDY, TEXT, Desk

JOINER = "f"
NEW = IdentityKey.from_seed(b"f" * 32)
SYBIL = IdentityKey.from_seed(b"s" * 32)
ALL = {**KEYS, JOINER: NEW}
BY_HAND = Policy(allow_without_privacy=True)
RULE = replace(BY_HAND, members_by_rule=True)


class Hospital:
    """A hospital with its folder; it telephoned every other one, unless a test says otherwise."""

    def __init__(self, root, desk: "Study", site: str, policy: Policy = RULE) -> None:
        self.desk, self.site = desk, site
        self.folder = SiteFolder.make(root / site, site=site)
        (root / site / "identity.pem").write_bytes(ALL[site].to_pem())
        self.folder.pin(
            Enrolment(site=site, node_id=bytes(8), host="x", port=1, authority=b"x",
                      coordinator=COORDINATOR.public)
        )  # fmt: skip
        self.audit, self.approvals = open_audit(self.folder), approvals_of(self.folder)
        self.rosters = RosterDesk(
            folder=self.folder, policy=policy, approvals=self.approvals, audit=self.audit,
            connection=self,
        )  # fmt: skip
        self.shown: RosterReply | None = None
        for other, key in ALL.items():
            if other != site:
                self.vouch(other, key)

    def vouch(self, other: str, key: IdentityKey) -> None:
        checked = fingerprint(other, key.public)
        self.folder.vouchers().vouch(other, checked, recorded=lambda: None)

    def approve(self, patients: int = 7) -> None:
        offer = StudyOffer.from_bytes(self.post(STUDY_PATH, ASKED))
        key = ALL[self.site]
        signed = Declaration.signed(
            patients, study_digest=STUDY.digest, site=self.site, sign=key.sign
        )
        self.desk.declare(self.site, patients, key)
        self.audit.append(
            Approved(study=STUDY.name, study_digest=STUDY.digest, approved=True, by="test")
        )
        self.approvals.approve(offer, signed)

    def post(self, path, body):
        service, member = self.desk.service, self.desk.member(self.site)
        if path == ROSTER_PATH:
            if self.shown is not None:
                return self.shown.to_bytes()
            return service.rosters.show(member, body)
        if path == AGREE_PATH:
            return service.rosters.agree(member, body)
        return service.show_study(member, body)

    def look(self) -> str:
        """Look once; what was refused."""
        try:
            self.rosters.agree_by_rule(STUDY.digest)
        except ConsiliumError as error:
            return str(error)
        return ""

    def is_shown(self, version: RosterVersion, **agreed: IdentityKey) -> str:
        """Look at a version that a lying coordinator shows as in force, signed by these keys."""
        from consilium.shared.enrolment.roster_version import agreement

        roster = version.check(COORDINATOR.public)
        signed = {s: key.sign(agreement(version, roster)) for s, key in agreed.items()}
        shown = AgreedRoster(version=version, agreed=signed, round=9)
        self.shown = RosterReply(in_force=shown, proposed=None)
        try:
            return self.look()
        finally:
            self.shown = None

    def is_asked(self, version: RosterVersion) -> str:
        """Look at a version that a lying coordinator proposes."""
        self.shown = RosterReply(in_force=None, proposed=version)
        try:
            return self.look()
        finally:
            self.shown = None

    @property
    def sites(self) -> tuple[str, ...]:
        found = self.approvals.find(STUDY.digest)
        return () if found is None else found.study.sites

    def agreed(self) -> list[int]:
        events = roster_events(self.audit.path, STUDY.digest)
        return [event.version for event in events if not isinstance(event, Approved)]


ASKED = StudyRequest(digest=STUDY.digest).to_bytes()


class Study(Desk):
    """A coordinator with a study of five sites that runs, and a sixth hospital beside it."""

    def __init__(self, folder, policy: Policy = RULE) -> None:
        (folder / "desk").mkdir()
        super().__init__(folder / "desk")
        self.enrol(JOINER, NEW)
        self.hospitals = {site: Hospital(folder, self, site, policy) for site in ALL}
        for site in KEYS:
            self.hospitals[site].approve()

    @property
    def now(self):
        return self.register.study(STUDY.digest.hex())

    def propose(self, *, join=(), leave=()) -> int:
        return self.service.rosters.propose(self.now, join=join, leave=leave)

    def between_rounds(self, number: int) -> bool:
        """What the study's process does between two rounds."""
        done = put_in_force(self.register, self.now, round=number)
        note_in_force(self.register, self.audit, self.now)
        return done

    def all_look(self, *but: str) -> dict[str, str]:
        told = {site: one.look() for site, one in self.hospitals.items() if site not in but}
        return {site: sentence for site, sentence in told.items() if sentence}

    def version(self, number: int, *, before=None, **changed: IdentityKey | None) -> RosterVersion:
        """A version as a lying coordinator signs it: the roster of now with these changes."""
        keys = {s: k for s, k in {**KEYS, **changed}.items() if k is not None}
        sizes = {
            site: Declaration.signed(7, study_digest=STUDY.digest, site=site, sign=key.sign)
            for site, key in keys.items()
        }
        bare = Roster(tuple(sorted((site, key.public) for site, key in keys.items())))
        return RosterVersion.make(
            study=STUDY.digest,
            text=TEXT.encode(),
            number=number,
            before=self.now.roster if before is None else before,
            roster=bare.with_declared(sizes, STUDY.digest),
            key=COORDINATOR,
        )


@pytest.fixture
def folder():
    with memory_folder() as path:
        yield path


@pytest.fixture
def study(folder):
    return Study(folder)


def test_a_site_that_keeps_a_control_variate_agrees_to_no_other_sites(study, monkeypatch):
    study.propose(join=[JOINER])
    study.hospitals[JOINER].approve()
    monkeypatch.setattr(StudyText, "roster_may_change", property(lambda _: False))
    told = study.all_look(JOINER)
    assert set(told) == set(KEYS)
    assert all("whose mean is of the sites that it began with" in one for one in told.values())
    assert not study.between_rounds(5)


def test_a_site_joins_once_all_that_stay_agreed_by_rule(study):
    joiner = study.hospitals[JOINER]
    assert study.propose(join=[JOINER]) == 2
    assert study.all_look(JOINER) == {}  # nothing is asked before the joiner approved
    assert not study.between_rounds(3)
    joiner.approve()
    assert joiner.sites == ("a", "b", "c", "d", "e", "f")
    assert study.all_look("a", JOINER) == {}
    assert proposal_of(study.register, study.now).missing == ("a",)
    assert not study.between_rounds(4)
    assert study.hospitals["b"].sites == STUDY.sites
    assert study.all_look() == {}
    assert study.hospitals["b"].sites == STUDY.sites  # until the next round
    assert study.between_rounds(5)
    assert study.all_look() == {}
    now = study.now
    assert (now.version, now.study.threshold, STUDY.threshold) == (2, 5, 4)
    for hospital in study.hospitals.values():
        approval = hospital.approvals.find(STUDY.digest)
        assert approval.study.digest == STUDY.digest
        assert approval.study.sites == now.study.sites
        assert approval.study.minimum_sites == now.study.minimum_sites == 5
        if hospital is not joiner:
            (told,) = rosters_in_force(hospital.audit.path, STUDY.digest)
            assert (told.version, told.round, told.joined) == (2, 5, (JOINER,))
            assert told.roster == roster_digest(now.roster)
            assert roster_events(hospital.audit.path, STUDY.digest)[1].by == BY_RULE
    (told,) = rosters_in_force(study.log, STUDY.digest)
    assert (told.roster, told.round) == (roster_digest(now.roster), 5)
    note_in_force(study.register, study.audit, now)
    assert len(rosters_in_force(study.log, STUDY.digest)) == 1


def test_a_site_leaves_for_good_and_is_told_so(study):
    study.propose(leave=["e"])
    assert study.all_look() == {}
    assert study.between_rounds(7)
    assert study.all_look() == {}
    gone = study.hospitals["e"]
    assert gone.approvals.find(STUDY.digest) is None
    (told,) = rosters_in_force(gone.audit.path, STUDY.digest)
    assert (told.left, told.round) == (("e",), 7)
    assert study.hospitals["a"].sites == ("a", "b", "c", "d")
    with pytest.raises(SettingsError, match="is open to site e"):
        study.service.show_study(study.member("e"), ASKED)


def test_a_replacement_is_one_version_and_a_site_that_left_may_join_again(study):
    study.propose(join=[JOINER], leave=["c"])
    study.hospitals[JOINER].approve()
    study.all_look()
    assert study.between_rounds(2)
    assert study.all_look() == {}
    assert study.hospitals["a"].sites == ("a", "b", "d", "e", "f")
    study.propose(join=["c"], leave=[JOINER])
    study.hospitals["c"].approve()
    study.all_look()
    assert study.between_rounds(4)
    assert study.all_look() == {}
    assert study.now.roster.members == tuple(sorted((s, k.public) for s, k in KEYS.items()))
    assert [v.version.number for v in versions_of(study.register, STUDY.digest)] == [2, 3]
    assert study.hospitals["c"].sites == STUDY.sites
    first = versions_of(study.register, STUDY.digest)[0]  # it follows the same sites
    study.hospitals["a"].shown = RosterReply(in_force=first, proposed=None)
    assert "agrees to no older one" in study.hospitals["a"].look()


def test_without_the_rule_a_person_is_asked(folder):
    study = Study(folder, BY_HAND)
    study.propose(join=[JOINER])
    study.hospitals[JOINER].approve()
    assert "waits for a person here: run 'consilium-site roster" in study.hospitals["a"].look()
    assert study.hospitals["a"].agreed() == []


def test_as_many_persons_agree_as_the_policy_asks_for_and_one_may_refuse(folder):
    study = Study(folder, replace(BY_HAND, approvals_needed=2))
    study.propose(join=[JOINER], leave=["e"])
    study.hospitals[JOINER].approve(30)
    desk = study.hospitals["a"].rosters
    approval = desk.approvals.find(STUDY.digest)
    following = desk.check(approval, desk.follow(STUDY.digest))
    told = "\n".join(roster_change_lines(following, approval))
    assert "f joins, with 30 patients (52% of all); fingerprint: " in told
    assert "e leaves for good" in told
    assert agree(desk, following, by="ann").missing == 1
    with pytest.raises(SettingsError, match="ann has agreed to roster 2 of study small"):
        agree(desk, following, by="ann")
    refuse(desk, following, by="bob")
    assert agree(desk, following, by="ann").missing == 1  # those before no longer count
    assert study.hospitals["a"].agreed() == []
    assert agree(desk, following, by="bob").missing == 0
    assert study.hospitals["a"].agreed() == [2]
    assert desk.follow(STUDY.digest) is None
    with pytest.raises(SettingsError, match="this site has agreed to roster 2"):
        refuse(desk, following, by="ann")


def test_what_is_cancelled_or_replaced_is_agreed_to_by_nobody(study):
    hospital = study.hospitals["a"]
    assert study.propose(leave=["e"]) == 2
    version = RosterReply.from_bytes(hospital.post(ROSTER_PATH, _request(study))).proposed
    assert cancel(study.register, study.now) == 2
    hospital.shown = RosterReply(in_force=None, proposed=version)
    assert "not proposed any more" in hospital.look()
    hospital.shown = None
    assert study.propose(leave=["d"]) == 3  # a number is never used again
    assert hospital.look() == ""
    assert hospital.agreed() == [2, 3]
    with pytest.raises(SettingsError, match="no other roster is proposed"):
        cancel(study.register, replace(study.now, digest=bytes(32)))


def test_a_version_that_not_all_agreed_to_is_refused(study):
    version = study.version(2, f=NEW)
    four = {site: KEYS[site] for site in "abcd"}
    hospital = study.hospitals["a"]
    assert "site e did not sign that it agrees" in hospital.is_shown(version, **four)
    forged = four | {"e": SYBIL}
    assert "site e did not sign that it agrees" in hospital.is_shown(version, **forged)
    assert hospital.sites == STUDY.sites


def test_a_site_that_is_shown_a_roster_without_it_goes_on_unless_the_others_signed(study):
    hospital = study.hospitals["a"]
    version = study.version(2, a=None)
    assert "site b did not sign" in hospital.is_shown(version)
    assert hospital.sites == STUDY.sites


def test_two_sites_never_take_over_two_versions(study):
    """A split view: all sign one, then the other, and each is shown another one as in force."""
    one, other = study.version(2, f=NEW), study.version(2, e=None)
    a, b = study.hospitals["a"], study.hospitals["b"]
    for hospital in (a, b):  # each signs, and this desk, which proposed nothing, does not take it
        assert "not proposed any more" in hospital.is_asked(one)
    assert a.agreed() == b.agreed() == [2]
    assert "no other one of that number" in a.is_asked(other)
    newer = study.version(3, e=None)
    a.is_asked(newer)
    assert a.agreed() == [2, 3]
    assert "agrees to no older one" in a.is_shown(one, **KEYS)  # though all signed it
    four = {site: KEYS[site] for site in "abcd"}
    assert "site b did not sign" in a.is_shown(newer, **{**four, "b": SYBIL})
    assert a.sites == STUDY.sites


def test_a_version_with_another_key_of_a_site_that_stays_is_refused(study):
    hospital = study.hospitals["a"]
    version = study.version(2, e=SYBIL, f=NEW)
    assert "site e under another key" in hospital.is_asked(version)
    assert "site e under another key" in hospital.is_shown(version, **KEYS, f=NEW)
    assert hospital.agreed() == []


def test_a_joiner_that_nobody_vouched_for_or_that_has_another_key_is_refused(study):
    hospital = study.hospitals["a"]
    hospital.folder.vouchers().withdraw(JOINER, recorded=lambda _: None)
    version = study.version(2, f=NEW)
    assert "nobody vouched for site f" in hospital.is_asked(version)
    assert "nobody vouched for site f" in hospital.is_shown(version, **KEYS)
    study.hospitals["b"].is_asked(study.version(2, f=SYBIL))
    assert study.hospitals["b"].agreed() == []
    assert hospital.agreed() == []


def test_a_version_that_follows_another_roster_or_is_signed_by_another_is_refused(study):
    hospital = study.hospitals["a"]
    other = Roster(tuple(sorted((s, ALL[s].public) for s in "abcdf")))
    version = study.version(2, before=other, f=NEW)
    assert "does not follow the roster in force here" in hospital.is_asked(version)
    forged = replace(study.version(2, f=NEW), signature=bytes(64))
    assert "not signed by the coordinator" in hospital.is_asked(forged)
    assert "has the sites that the study has already" in hospital.is_asked(study.version(2))
    moved = replace(study.version(2, f=NEW), study=bytes(32))
    assert "does not verify against the roster" in hospital.is_asked(moved)


def test_a_larger_joiner_waits_for_a_person(study):
    study.propose(join=[JOINER])
    study.hospitals[JOINER].approve(8)
    assert "8 patients, more than any that stays (7)" in study.hospitals["a"].look()


def test_a_site_agrees_again_after_a_crash_and_notes_it_once(study):
    study.propose(leave=["e"])
    hospital = study.hospitals["a"]
    true_post = hospital.post

    def lost(path, body):
        if path == AGREE_PATH:
            raise ConsiliumError("no answer")
        return true_post(path, body)

    hospital.post = lost
    assert hospital.look() == "no answer"
    hospital.post = true_post
    hospital.rosters = replace(hospital.rosters, policy=BY_HAND)  # what was agreed stays agreed
    assert hospital.look() == ""
    assert hospital.agreed() == [2]
    assert "a" not in proposal_of(study.register, study.now).missing


def test_a_site_takes_over_after_a_crash_between_log_and_approval(study):
    study.propose(leave=["e"])
    study.all_look()
    study.between_rounds(3)
    hospital = study.hospitals["a"]
    kept = hospital.approvals.take_version
    hospital.approvals.take_version = lambda _: (_ for _ in ()).throw(ConsiliumError("crash"))
    assert hospital.look() == "crash"
    hospital.approvals.take_version = kept
    assert hospital.look() == ""
    assert hospital.sites == ("a", "b", "c", "d")
    assert hospital.agreed() == [2, 2]  # agreed to, and in force, once each


def test_what_is_proposed_falls_with_the_roster_that_it_follows(study):
    study.propose(join=[JOINER])
    dismiss(study.register, study.audit, study.now, "e")
    assert proposal_of(study.register, study.now) is None
    assert study.propose(join=[JOINER]) == 3
    found = proposal_of(study.register, study.now)
    assert (found.joined, found.left) == ((JOINER,), ("e",))  # who was dismissed leaves with it


@pytest.mark.parametrize(
    ("join", "leave", "told"),
    [
        (["a"], [], "site a takes part"),
        (["x"], [], "site x is not enrolled"),
        ([], ["x"], "none of the sites"),
        ([], [], "nobody would join"),
        ([], ["c", "d", "e"], "minimum_sites"),
        ([JOINER], list(KEYS), "none of the sites of study"),
    ],
)
def test_what_cannot_be_proposed_ends_in_a_sentence(study, join, leave, told):
    with pytest.raises((SettingsError, StudyError), match=told):
        study.propose(join=join, leave=leave)


def test_nobody_else_agrees_for_a_site(study):
    number = study.propose(join=[JOINER], leave=["e"])
    study.hospitals[JOINER].approve()
    from consilium.shared.enrolment.roster_version import RosterAgreement

    message = RosterAgreement(study=STUDY.digest, number=number, signature=bytes(64)).to_bytes()
    rosters = study.service.rosters
    with pytest.raises(AuthenticationError, match="site a did not sign"):
        rosters.agree(study.member("a"), message)
    for site in ("e", JOINER):
        with pytest.raises(SettingsError, match="does not wait for"):
            rosters.agree(study.member(site), message)


def test_the_watch_says_once_what_waits_for_a_person(folder, caplog):
    study = Study(folder, BY_HAND)
    study.propose(leave=["e"])
    watch = RosterWatch(study.hospitals["a"].rosters, every_s=60)
    with watch:
        watch.look()
        watch.look()
    assert sum("waits for a person" in record.message for record in caplog.records) == 1


def test_a_coordinator_that_shows_no_rosters_is_asked_less_and_less_often(study):
    hospital, asked = study.hospitals["a"], []

    def refuses(path, _):
        asked.append(path)
        raise ProtocolError("there is nothing here")

    hospital.post = refuses
    watch = RosterWatch(hospital.rosters, every_s=0.0)
    watch.look()
    watch.look()
    assert len(asked) == 2
    watch = RosterWatch(hospital.rosters, every_s=60.0)
    watch.look()
    watch.look()
    assert len(asked) == 3


def _request(study):
    from consilium.shared.enrolment.roster_version import RosterRequest, members_digest

    before = members_digest(study.now.roster)
    return RosterRequest(study=STUDY.digest, number=1, before=before).to_bytes()
