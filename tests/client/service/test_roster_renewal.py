"""A hospital takes over the roster of a study it approved, if its rule allows it, or leaves it."""

from dataclasses import replace

import pytest

from consilium.client.hospital.folder import Enrolment, SiteFolder
from consilium.client.hospital.policy import Policy
from consilium.client.service.pinned_connection import approvals_of
from consilium.client.service.roster_renewal import BY_RULE, renew_roster
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.reading import roster_changes
from consilium.shared.enrolment.fingerprint import fingerprint
from consilium.shared.enrolment.messages import STUDY_PATH, StudyOffer, StudyRequest, roster_digest
from consilium.shared.enrolment.recovery import SUCCESSOR_PATH, SuccessorReply
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from tests.server.coordinator.test_recovery import (
    COLLUDER,
    COORDINATOR,
    KEYS,
    NEW,
    OTHER,
    STUDY,
    VICTIM,
    Desk,
    succession,
)

ASKED = StudyRequest(digest=STUDY.digest).to_bytes()
POLICY = Policy(vouched_at_least=0, allow_without_privacy=True)


class Hospital:
    """Another hospital of the study, which has approved it and checked the victim's key."""

    def __init__(self, path, desk: Desk) -> None:
        self.desk, self.shown = desk, None
        self.folder = SiteFolder.make(path, site=OTHER)
        (path / "identity.pem").write_bytes(KEYS[OTHER].to_pem())
        self.folder.pin(
            Enrolment(site=OTHER, node_id=bytes(8), host="x", port=1, authority=b"x",
                      coordinator=COORDINATOR.public)
        )  # fmt: skip
        self.audit, self.approvals = open_audit(self.folder), approvals_of(self.folder)
        offer = StudyOffer.from_bytes(self.post(STUDY_PATH, ASKED))
        declared = desk.register.study(STUDY.digest.hex()).declared[OTHER]
        self.approvals.approve(offer, declared)
        checked = fingerprint(VICTIM, KEYS[VICTIM].public)
        self.folder.vouchers().vouch(VICTIM, checked, recorded=lambda: None)

    def post(self, path, body):
        if path == SUCCESSOR_PATH:
            if self.shown is not None:
                return SuccessorReply(succession=self.shown).to_bytes()
            return self.desk.service.recovery.successor(body)
        return self.desk.service.show_study(self.desk.member(OTHER), body)

    def renew(self, policy=POLICY):
        renew_roster(self.folder, policy, self.approvals, self.audit, self, STUDY.digest)
        return dict(self.approvals.find(STUDY.digest).roster.members)[VICTIM]


@pytest.fixture
def hospital(tmp_path):
    (tmp_path / "desk").mkdir()
    made = Hospital(tmp_path / "site", Desk(tmp_path / "desk"))
    made.desk.lose()
    made.desk.succeed(succession())
    return made


def test_nothing_changes_before_the_hospital_is_back(hospital):
    assert hospital.renew() == KEYS[VICTIM].public
    assert not roster_changes(hospital.audit.path, STUDY.digest)


def test_the_same_hospital_is_taken_over_and_stays_vouched_for(hospital):
    hospital.desk.declare(VICTIM, 7, NEW)
    assert hospital.renew() == NEW.public
    approval = hospital.approvals.find(STUDY.digest)
    (change,) = roster_changes(hospital.audit.path, STUDY.digest)
    assert (change.by, change.version) == (BY_RULE, 2)
    (told,) = roster_changes(hospital.desk.log, STUDY.digest)
    assert change.roster == told.roster == roster_digest(approval.roster)
    trust = hospital.folder.vouchers().trust()
    (standing,) = [s for s in trust.standings(STUDY, approval.roster) if s.site == VICTIM]
    assert standing.vouched
    assert hospital.renew() == NEW.public  # and nothing is noted twice
    assert len(roster_changes(hospital.audit.path, STUDY.digest)) == 1


def test_a_policy_may_leave_it_to_a_person(hospital):
    hospital.desk.declare(VICTIM, 7, NEW)
    assert hospital.renew(replace(POLICY, new_keys_by_rule=False)) == KEYS[VICTIM].public


def test_a_study_with_control_variates_keeps_its_keys(hospital, monkeypatch):
    hospital.desk.declare(VICTIM, 7, NEW)
    monkeypatch.setattr(Study, "roster_may_change", property(lambda _: False))
    assert hospital.renew() == KEYS[VICTIM].public


def test_a_coordinator_offers_it_to_nobody_under_a_new_key(hospital, monkeypatch):
    monkeypatch.setattr(Study, "roster_may_change", property(lambda _: False))
    with pytest.raises(SettingsError, match="is open to site"):
        hospital.desk.declare(VICTIM, 7, NEW)


def test_a_head_seen_later_than_the_certificate_leaves_the_roster_as_it_was(hospital):
    seen = AuditHead.sign(KEYS[VICTIM], owner=VICTIM, number=6, digest=bytes(32))
    hospital.folder.heads().note(STUDY.digest, {KEYS[VICTIM].public: seen})
    hospital.desk.declare(VICTIM, 7, NEW)
    assert hospital.renew() == KEYS[VICTIM].public


def test_a_coordinator_that_puts_in_a_colluder_changes_nothing(hospital):
    register = hospital.desk.register
    before = register.study(STUDY.digest.hex())
    register.revoke(VICTIM, now=3.0)
    hospital.desk.enrol(VICTIM, COLLUDER)
    lying = hospital.desk.service._with_successor(before, hospital.desk.member(VICTIM))
    offer = StudyOffer(
        text=lying.text, roster=dict(lying.roster.members), declared={},
        signature=lying.signature,
    )  # fmt: skip
    hospital.shown = succession(NEW)
    true_post = hospital.post
    hospital.post = lambda path, body: (
        offer.to_bytes() if path == STUDY_PATH else true_post(path, body)
    )
    assert hospital.renew() == KEYS[VICTIM].public
