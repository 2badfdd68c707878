"""The coordinator holds each site's newest head, and leaves out an update without a newer one."""

import pytest

from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.shared.audit.heads import AuditHead
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuthenticationError, MessageError, ProtocolError

KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in "ab"}
IDENTITIES = {site: key.public for site, key in KEYS.items()}


def head(number: int, site: str = "a", key: str = "a") -> bytes:
    signed = AuditHead.sign(KEYS[key], owner=site, number=number, digest=bytes([number]) * 32)
    return signed.to_bytes()


def test_the_newest_head_of_each_site_is_shown() -> None:
    heads = SiteHeads(IDENTITIES, {"b": AuditHead.from_bytes(head(4, "b", "b"))})
    for number in (5, 9, 7):
        heads.note("a", head(number))
    heads.note("b", b"")
    assert (heads.of("a"), heads.of("b"), heads.of("c")) == (head(9), head(4, "b", "b"), b"")
    assert heads.shown() == (head(9), head(4, "b", "b"))


def test_an_update_must_come_with_a_newer_head_than_any_before() -> None:
    heads = SiteHeads(IDENTITIES)
    heads.take("a", b"")  # it keeps no log
    heads.take("a", head(5))
    for stale in (head(5), head(3)):
        with pytest.raises(ProtocolError, match="entry 5 was known before"):
            heads.take("a", stale)
    with pytest.raises(ProtocolError, match="showed no audit head, and had shown one"):
        heads.take("a", b"")
    heads.take("a", head(6))
    assert heads.shown() == (head(6),)


@pytest.mark.parametrize("wrong", [head(9, "a", "b"), head(9, "b", "b")])
def test_a_head_that_its_site_did_not_sign_is_refused(wrong) -> None:
    heads = SiteHeads(IDENTITIES)
    for call in (heads.note, heads.take):
        with pytest.raises(AuthenticationError, match="is not signed by its identity"):
            call("a", wrong)
        with pytest.raises(MessageError):
            call("a", b"noise")
    with pytest.raises(AuthenticationError):
        heads.note("stranger", head(1, "stranger"))
    assert heads.shown() == ()
