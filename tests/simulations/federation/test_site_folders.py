"""A roster that many simulated sites share verifies each signature once, and a wrong one always."""

from unittest.mock import patch

import pytest

from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.errors import AuthenticationError
from consilium.simulations.federation.site_folders import OneProcessRoster

KEYS = {name: IdentityKey.generate() for name in ("a", "b", "c")}
MEMBERS = tuple((name, key.public) for name, key in KEYS.items())


def test_a_signature_that_holds_is_verified_once_whoever_asks() -> None:
    roster = OneProcessRoster(MEMBERS)
    signature = KEYS["a"].sign(b"statement")
    with patch.object(Roster, "verify", autospec=True, side_effect=Roster.verify) as verify:
        for asking in (roster, roster.restricted_to(["a", "b", "c"]), roster):
            asking.verify("a", b"statement", signature, "the keys")
        assert verify.call_count == 1


def test_a_signature_that_does_not_hold_is_refused_each_time_even_after_the_true_one() -> None:
    roster = OneProcessRoster(MEMBERS)
    signature = KEYS["a"].sign(b"statement")
    roster.verify("a", b"statement", signature, "the keys")
    for _ in range(2):
        for site, statement in (("b", b"statement"), ("a", b"another"), ("d", b"statement")):
            with pytest.raises(AuthenticationError):
                roster.verify(site, statement, signature, "the keys")


def test_a_group_of_sites_is_a_roster_of_its_own() -> None:
    group = OneProcessRoster(MEMBERS).restricted_to(["c", "a"])
    assert group.names == ("a", "c")
    with pytest.raises(AuthenticationError, match="not one of the 2"):
        group.verify("b", b"statement", KEYS["b"].sign(b"statement"), "the keys")
