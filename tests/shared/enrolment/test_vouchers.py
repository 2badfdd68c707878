"""A hospital's list of vouchers says only what that hospital signed."""

from dataclasses import replace

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.crypto.transcript import channel_statement
from consilium.shared.enrolment.fingerprint import fingerprint
from consilium.shared.enrolment.messages import offer_statement
from consilium.shared.enrolment.vouchers import Vouchers
from consilium.shared.errors import AuthenticationError, MessageError
from tests.client.vouching import KEYS, prints, signed

NORTH = KEYS["north"]


def test_a_list_is_read_back_as_it_was_signed() -> None:
    made = signed("north", "south", "east", issued=7)
    read = Vouchers.from_bytes(made.to_bytes())
    read.check()
    assert read == made
    assert read.fingerprints == prints("south", "east")
    assert read.signer == fingerprint("north", NORTH.public)


@pytest.mark.parametrize(
    "change",
    [
        {"site": "west"},
        {"identity": KEYS["west"].public},
        {"issued": 8},
        {"fingerprints": prints("south")},
        {"fingerprints": prints("south", "east", "west")},
        {"fingerprints": prints("south") | {"east": bytes(16)}},
        {"signature": bytes(64)},
    ],
)
def test_a_list_that_was_altered_or_forged_is_refused(change: dict[str, object]) -> None:
    made = replace(signed("north", "south", "east", issued=7), **change)
    with pytest.raises(AuthenticationError, match="not signed by its key"):
        made.check()


def test_a_list_is_made_of_the_bytes_that_the_page_names() -> None:
    made = signed("north", "south", "east", issued=7)
    east, south = prints("east", "south").values()
    parts = [b"consilium/1/vouchers", (7).to_bytes(8, "big"), b"north", NORTH.public]
    parts += [(7).to_bytes(8, "big"), b"east", east, b"south", south]
    statement = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    Ed25519PublicKey.from_public_bytes(NORTH.public).verify(made.signature, statement)
    fields = ["north", NORTH.public, 7, [["east", east], ["south", south]], made.signature]
    assert msgpack.unpackb(made.to_bytes()) == ["consilium", 1, "vouchers", fields]


def test_a_signature_made_for_a_study_or_a_run_is_none_under_a_list() -> None:
    made = signed("north", "south", issued=7)
    for statement in (
        offer_statement(b"text", Roster((("north", NORTH.public),))),
        channel_statement(bytes(32), "north", NORTH.public),
    ):
        with pytest.raises(AuthenticationError):
            replace(made, signature=NORTH.sign(statement)).check()


def test_a_list_of_a_thousand_is_within_its_bound() -> None:
    names = [f"{number:064d}" for number in range(1000)]
    key = IdentityKey.generate()
    made = Vouchers.signed("north", key, dict.fromkeys(names, bytes(16)), issued=1)
    assert Vouchers.from_bytes(made.to_bytes()) == made


def test_an_entry_that_is_no_fingerprint_is_refused() -> None:
    with pytest.raises(MessageError):
        Vouchers.signed("north", NORTH, {"south": bytes(15)}, issued=1)
