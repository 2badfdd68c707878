"""Nobody makes a binding without code and identity, nor a succession without the code."""

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.audit.heads import AuditHead
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.recovery import (
    PAGE_BYTES,
    BudgetCertificate,
    RecoveryBinding,
    RecoveryClaim,
    RecoveryCode,
    Succession,
)
from consilium.shared.errors import AuthenticationError, ConsiliumError, SettingsError

OLD, NEW, OTHER = (IdentityKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3))
CODE, STOLEN = RecoveryCode(b"c" * 32), RecoveryCode(b"s" * 32)


def head(key: IdentityKey = OLD, number: int = 7, owner: str = "north") -> bytes:
    return AuditHead.sign(key, owner=owner, number=number, digest=bytes(32)).to_bytes()


def binding(
    site: str = "north", key: IdentityKey = OLD, code: RecoveryCode = CODE
) -> RecoveryBinding:
    return code.endorse(key.public).bind(site, key)


def certificate(content: bytes = b"spent", number: int = 7) -> BudgetCertificate:
    return BudgetCertificate.make(
        "north",
        OLD,
        head(number=number),
        content,
        seal=CODE.sealing.public,
        entropy=os.urandom,
    )


@given(st.binary(min_size=32, max_size=32))
def test_the_words_on_paper_are_the_code(secret: bytes) -> None:
    words = RecoveryCode(secret).words()
    assert len(words) == 24
    read = RecoveryCode.from_words(", ".join(words).upper())
    assert read.signing.public == RecoveryCode(secret).signing.public


def test_a_wrong_word_is_named_with_the_nearest() -> None:
    words = ["abandn", *CODE.words()[1:]]
    with pytest.raises(SettingsError, match=r"'abandn'.*did you mean 'abandon'"):
        RecoveryCode.from_words(" ".join(words))


def test_the_words_of_a_fingerprint_are_no_code() -> None:
    with pytest.raises(SettingsError, match="a recovery code has 24 words, and 12 words"):
        RecoveryCode.from_words(" ".join(CODE.words()[:12]))


def test_a_binding_needs_identity_and_code() -> None:
    binding().check()
    true = binding()
    forged = [
        replace(true, site="south"),
        replace(true, identity=OTHER.public),
        replace(true, keys=STOLEN.endorse(OLD.public)),
        CODE.endorse(OLD.public).bind("north", OTHER),  # another identity takes the code's keys
    ]
    for one in forged:
        with pytest.raises(AuthenticationError, match="not bound"):
            one.check()


def test_a_succession_is_of_this_hospital_from_this_key_to_that_one() -> None:
    true = Succession.make(CODE, binding(), head(), NEW)
    assert true.check().number == 7
    forged = [
        replace(true, identity=OTHER.public),  # a colluder's key in the hospital's name
        replace(true, head=head(number=3)),  # an older certificate than the code's holder saw
        replace(true, binding=binding("south")),
        replace(true, binding=binding(key=OTHER)),  # the keys of two hospitals exchanged
        Succession.make(STOLEN, binding(), head(), NEW),  # a recovery that nobody made
        Succession.make(CODE, binding(), head(OTHER), NEW),
        Succession.make(CODE, binding(), head(), OLD),
        replace(true, consent=true.signature),
    ]
    for one in forged:
        with pytest.raises(ConsiliumError):
            one.check()


@given(st.binary(max_size=PAGE_BYTES + 9))
def test_a_certificate_opens_with_the_code_alone(content: bytes) -> None:
    made = certificate(content)
    made.check("north", OLD.public)
    assert made.open(CODE) == content
    with pytest.raises(AuthenticationError, match="does not open"):
        made.open(STOLEN)


def test_the_length_of_a_certificate_does_not_tell_how_much_was_spent() -> None:
    lengths = {len(certificate(b"x" * n).to_bytes()) for n in (0, 100, PAGE_BYTES - 8)}
    assert len(lengths) == 1


def test_a_certificate_is_of_its_site_and_its_head() -> None:
    made, later = certificate(), certificate(number=9)
    for one in (
        replace(made, head=later.head),
        replace(made, sealed=later.sealed),
        replace(made, identity=OTHER.public),
        replace(made, site="south"),
    ):
        with pytest.raises(AuthenticationError, match="not signed by its identity"):
            one.check("north", OLD.public)
    swapped = replace(made, head=later.head, signature=later.signature)
    with pytest.raises(AuthenticationError):
        swapped.open(CODE)


def test_a_claim_is_signed_with_the_code() -> None:
    claim = RecoveryClaim.make(CODE, bytes(32), "north", b"key")
    claim.check()
    with pytest.raises(AuthenticationError, match="not signed by its code"):
        replace(claim, node_key=b"another").check()


def test_a_code_is_not_printed() -> None:
    assert repr(CODE) == "<RecoveryCode, secret>"


def test_a_key_for_which_anybody_can_sign_succeeds_nobody() -> None:
    low = (1).to_bytes(32, "little")
    with pytest.raises(AuthenticationError, match="low order"):
        replace(succession_of_north(), identity=low).check()
    with pytest.raises(AuthenticationError, match="low order"):
        replace(binding(), identity=low).check()


def succession_of_north() -> Succession:
    return Succession.make(CODE, binding(), head(), NEW)
