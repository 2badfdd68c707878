"""A new machine goes on from the newest certificate, and from none that a liar could choose."""

import os

import pytest

from consilium.client.hospital.budget_certificates import (
    BudgetCertificates,
    read_certificates,
    second_copy,
)
from consilium.client.ledger.certificate import SpentBudget, to_bytes
from consilium.client.ledger.store import Ledger
from consilium.client.service.enroll import newest_budget
from consilium.shared.audit.heads import AuditHead
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.recovery import BudgetCertificate, RecoveryCode, RecoveryGrant
from consilium.shared.errors import (
    AuditError,
    AuthenticationError,
    ProtocolError,
    SettingsError,
    UnreachableError,
)

OLD, LIAR = IdentityKey.from_seed(b"o" * 32), IdentityKey.from_seed(b"l" * 32)
CODE, OTHER = RecoveryCode(b"c" * 32), RecoveryCode(b"d" * 32)


def head(number, key=OLD):
    return AuditHead.sign(key, owner="north", number=number, digest=bytes([number]) * 32)


def certificate(number, spent=0.0, key=OLD):
    content = to_bytes(SpentBudget(releases=(), written_off=spent, split_key=b"k" * 32))
    return BudgetCertificate.make(
        "north", key, head(number, key).to_bytes(), content, seal=CODE.sealing.public,
        entropy=os.urandom,
    )  # fmt: skip


def grant(made, *, key=OLD, code=CODE):
    return RecoveryGrant(binding=code.endorse(key.public).bind("north", key), certificate=made)


def recovered(shown, *, places=(), heads=()):
    return newest_budget(shown, "north", CODE, places=places, heads=heads)


def test_the_newest_certificate_counts(tmp_path):
    (tmp_path / "a.certificate").write_bytes(certificate(9, 5.0).to_bytes())
    (tmp_path / "b.certificate").write_bytes(certificate(4, 1.0).to_bytes())
    found = recovered(grant(certificate(7, 3.0)), places=[tmp_path])
    assert (found.certificate.number, found.spent.written_off) == (9, 5.0)


def test_an_older_certificate_than_somebody_saw_is_refused():
    assert recovered(grant(certificate(7)), heads=[head(7)]).certificate.number == 7
    with pytest.raises(AuditError, match="entry 8 was seen"):
        recovered(grant(certificate(7)), heads=[head(8)])


def test_no_certificate_is_no_budget_of_zero():
    with pytest.raises(AuditError, match="no budget certificate of site north is at hand"):
        recovered(grant(None))


def test_a_certificate_of_an_identity_that_the_coordinator_made_up_is_refused():
    """It knows the code's public keys, and could seal and sign one of nothing spent."""
    true = grant(certificate(7))
    keys = true.binding.keys
    made_up = RecoveryGrant(binding=keys.bind("north", LIAR), certificate=certificate(9, key=LIAR))
    with pytest.raises(AuthenticationError):
        recovered(made_up)
    mixed = RecoveryGrant(binding=true.binding, certificate=certificate(9, key=LIAR))
    with pytest.raises(AuthenticationError, match="not signed by its identity"):
        recovered(mixed)


def test_another_codes_binding_is_refused():
    with pytest.raises(AuthenticationError, match="another hospital's recovery code"):
        recovered(grant(certificate(7), code=OTHER))


def test_a_second_place_without_certificates_is_named(tmp_path):
    with pytest.raises(SettingsError, match="holds no budget certificate"):
        recovered(grant(certificate(7)), places=[tmp_path])
    (tmp_path / "x.certificate").write_bytes(b"damaged")
    with pytest.raises(SettingsError, match="no readable budget certificate"):
        read_certificates(tmp_path)


class Coordinator:
    def __init__(self, error=None):
        self.kept, self.error = [], error

    def __call__(self, content):
        if self.error is not None:
            raise self.error
        self.kept.append(BudgetCertificate.from_bytes(content))


def issuing(tmp_path, send, *, second=None):
    return BudgetCertificates(
        site="north", identity=OLD, seal=CODE.sealing.public,
        ledger=Ledger(tmp_path / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5),
        split_key=b"k" * 32, second_place=second, send=send,
    )  # fmt: skip


def test_a_certificate_lies_in_both_places(tmp_path):
    coordinator = Coordinator()
    issuing(tmp_path, coordinator, second=tmp_path).issue(head(3).to_bytes())
    (kept,) = read_certificates(second_copy(tmp_path, "north", OLD.public))
    assert [one.number for one in coordinator.kept] == [kept.number] == [3]


def test_nothing_is_released_without_a_copy_in_the_second_place(tmp_path):
    coordinator, missing = Coordinator(), tmp_path / "missing"
    made = issuing(tmp_path, coordinator, second=missing)
    with pytest.raises(SettingsError, match="nothing is released without a copy there"):
        made.issue(head(3).to_bytes())
    with pytest.raises(SettingsError):  # before the next round is charged
        made.settle()
    missing.mkdir()
    made.settle()
    assert [one.number for one in coordinator.kept] == [3]
    made.settle()
    assert len(coordinator.kept) == 1


def test_a_coordinator_that_keeps_no_certificate_stops_nobody(tmp_path):
    issuing(tmp_path, Coordinator(ProtocolError("there is nothing here"))).issue(head(3).to_bytes())


def test_a_coordinator_that_is_away_gets_the_certificate_first(tmp_path):
    coordinator = Coordinator(UnreachableError("away"))
    made = issuing(tmp_path, coordinator)
    with pytest.raises(UnreachableError):
        made.issue(head(3).to_bytes())
    coordinator.error = None
    made.settle()
    assert [one.number for one in coordinator.kept] == [3]
