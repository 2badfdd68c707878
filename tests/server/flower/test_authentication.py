"""Who made a request, and what it says beside: an enrolled key signed it lately, in plain words."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from consilium.server.coordinator.register import Register
from consilium.server.flower.authentication import (
    KEY_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    KeyRing,
)
from consilium.shared.enrolment.messages import BUDGET_HEADER
from consilium.shared.errors import AuthenticationError

NOW = 1_800_000_000.0
KEY = ec.generate_private_key(ec.SECP384R1())
PEM = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


@pytest.fixture
def register(tmp_path: Path) -> Register:
    made = Register(tmp_path / "register.sqlite")
    made.invite("north", b"secret", expires=NOW + 60)
    made.enrol("north", identity=bytes(32), node_key=PEM, node_id=1, version="0", now=NOW)
    return made


def headers(at: float = NOW, **more: str) -> dict[str, str]:
    signed = datetime.fromtimestamp(at, UTC).isoformat()
    signature = KEY.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    return {
        KEY_HEADER: base64.b64encode(PEM).decode(),
        TIME_HEADER: signed,
        SIGNATURE_HEADER: base64.b64encode(signature).decode(),
    } | more


@pytest.mark.parametrize(
    ("said", "noted"),
    [
        ("3.25", 3.25),
        ("0.00", 0.0),
        (None, None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("-1.00", None),
        ("1e99", None),
        ("9" * 400 + ".00", None),
        ("<b>3.25</b>", None),
        ("٣.٢٥", None),
    ],
)
def test_a_budget_is_noted_where_it_is_a_plain_number(
    register: Register, said: str | None, noted: float | None
) -> None:
    more = {} if said is None else {BUDGET_HEADER: said}
    KeyRing(register, clock=lambda: NOW).authenticate(headers(**more), "0.1.0")
    (member,) = register.members()
    assert (member.seen, member.version, member.budget_left) == (NOW, "0.1.0", noted)


def test_a_site_that_says_its_budget_no_more_is_not_quoted(register: Register) -> None:
    now = [NOW]
    ring = KeyRing(register, clock=lambda: now[0])
    ring.authenticate(headers(**{BUDGET_HEADER: "3.25"}), "0.1.0")
    now[0] += 60
    ring.authenticate(headers(now[0]), "0.1.0")
    assert register.members()[0].budget_left is None


def test_whoever_does_not_hold_an_enrolled_key_or_signed_long_ago_notes_nothing(
    register: Register,
) -> None:
    ring, budget = KeyRing(register, clock=lambda: NOW), {BUDGET_HEADER: "3.25"}
    forged = headers(**budget) | {SIGNATURE_HEADER: headers(NOW - 1)[SIGNATURE_HEADER]}
    for wrong in (forged, headers(NOW - 400, **budget), budget):
        with pytest.raises(AuthenticationError):
            ring.authenticate(wrong, "0.1.0")
    assert register.members()[0].seen is None


def test_who_has_just_enrolled_has_an_account_at_once(tmp_path: Path) -> None:
    register = Register(tmp_path / "register.sqlite")
    ring = KeyRing(register, clock=lambda: NOW)
    with pytest.raises(AuthenticationError, match="not enrolled"):
        ring.authenticate(headers(), "0.1.0")
    register.enrol("north", identity=bytes(32), node_key=PEM, node_id=1, version="0", now=NOW)
    ring.look_again()
    assert ring.authenticate(headers(), "0.1.0").name == "north"
