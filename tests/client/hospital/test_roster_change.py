"""What a coordinator that lies about a hospital's new key gets: nothing by rule."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from consilium.client.hospital.roster_change import check_new_key, new_keys
from consilium.client.hospital.roster_trust import RosterTrust
from consilium.shared.audit.heads import AuditHead
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.enrolment.fingerprint import fingerprint
from consilium.shared.enrolment.recovery import RecoveryCode, Succession
from consilium.shared.errors import AuthenticationError, ConsiliumError, PolicyError

NORTH, SOUTH, NEW, NEWER, COLLUDER = (IdentityKey.from_seed(bytes([n]) * 32) for n in range(1, 6))
CODE, OTHER_CODE = RecoveryCode(b"c" * 32), RecoveryCode(b"d" * 32)
APPROVED = Roster((("north", NORTH.public), ("south", SOUTH.public)))


def head(key: IdentityKey, number: int, site: str = "north") -> AuditHead:
    return AuditHead.sign(key, owner=site, number=number, digest=bytes([number]) * 32)


def succession(
    old: IdentityKey = NORTH,
    new: IdentityKey = NEW,
    *,
    code: RecoveryCode = CODE,
    site: str = "north",
    number: int = 7,
) -> Succession:
    binding = code.endorse(old.public).bind(site, old)
    return Succession.make(code, binding, head(old, number, site).to_bytes(), new)


def nothing_seen(_: bytes) -> None:
    return None


def check(
    offered: dict[str, bytes],
    shown: Callable[[bytes], Succession | None],
    seen: Callable[[bytes], AuditHead | None] = nothing_seen,
) -> None:
    roster = Roster(tuple(sorted(offered.items())))
    for change in new_keys(APPROVED, roster, shown):
        check_new_key(change, seen)


def now(**changed: IdentityKey) -> dict[str, bytes]:
    return dict(APPROVED.members) | {site: key.public for site, key in changed.items()}


def test_the_same_hospital_under_a_new_key_is_accepted_by_rule() -> None:
    check(now(north=NEW), {NORTH.public: succession()}.get)


def test_a_hospital_that_lost_two_machines_in_a_row_is_followed() -> None:
    shown = {NORTH.public: succession(), NEW.public: succession(NEW, NEWER, code=OTHER_CODE)}
    check(now(north=NEWER), shown.get)


def test_a_recovery_that_nobody_made_is_refused() -> None:
    with pytest.raises(AuthenticationError, match="nothing proves that it is the same hospital"):
        check(now(north=COLLUDER), nothing_seen)
    invented = succession(new=COLLUDER, code=OTHER_CODE)
    forged = replace(invented, binding=succession().binding)
    with pytest.raises(AuthenticationError, match="not signed with its recovery code"):
        check(now(north=COLLUDER), {NORTH.public: forged}.get)


def test_the_keys_of_two_hospitals_exchanged_are_refused() -> None:
    with pytest.raises(ConsiliumError):
        check(now(north=SOUTH, south=NORTH), nothing_seen)
    souths = succession(SOUTH, NEW, site="south")
    with pytest.raises(ConsiliumError, match="of south or of another key"):
        check(now(north=NEW), {NORTH.public: souths}.get)


def test_a_colluder_in_a_hospitals_name_is_refused_also_beside_a_true_recovery() -> None:
    with pytest.raises(ConsiliumError):
        check(now(north=COLLUDER), {NORTH.public: succession()}.get)


def test_a_binding_of_an_identity_that_the_coordinator_made_up_is_refused() -> None:
    made_up = succession(COLLUDER, NEW)  # with the code's own public keys it cannot be endorsed
    with pytest.raises(ConsiliumError, match="another key"):
        check(now(north=NEW), {NORTH.public: made_up}.get)


def test_an_older_certificate_than_this_site_has_seen_heads_is_refused() -> None:
    def seen(identity: bytes) -> AuditHead | None:
        return head(NORTH, 9) if identity == NORTH.public else None

    with pytest.raises(PolicyError, match=r"entry 7 .* has seen entry 9"):
        check(now(north=NEW), {NORTH.public: succession(number=7)}.get, seen)
    check(now(north=NEW), {NORTH.public: succession(number=9)}.get, seen)


def test_another_set_of_sites_is_no_new_key() -> None:
    with pytest.raises(PolicyError, match="other sites"):
        new_keys(APPROVED, Roster((("north", NORTH.public), ("west", NEW.public))), nothing_seen)


def test_who_vouched_for_the_former_key_vouches_for_its_successor_and_for_nobody_else() -> None:
    old, new, other = (fingerprint("north", key.public) for key in (NORTH, NEW, COLLUDER))
    words = [("south", {"north": old})]
    trust = RosterTrust(site="south", own={"north": old}, given={}, succeeded={new: old})
    assert trust._standing("north", new, words, 2).vouched
    standing = trust._standing("north", other, words, 2)
    assert not standing.vouched
    assert standing.against == ("south",)
