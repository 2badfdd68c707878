"""What two people read to each other: words, digits or a QR code, and what a slip is called."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.enrolment import fingerprint as fingerprints
from consilium.shared.enrolment.fingerprint import (
    fingerprint,
    from_qr_text,
    read_fingerprint,
    to_hex,
    to_qr_text,
    to_words,
)
from consilium.shared.errors import SettingsError

PRINTS = st.binary(min_size=16, max_size=16)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
# Test vectors of BIP-39, as its authors publish them (github.com/trezor/python-mnemonic).
VECTORS = {
    "00000000000000000000000000000000": "abandon " * 11 + "about",
    "7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f": "legal winner thank year wave sausage worth useful legal "
    "winner thank yellow",
    "ffffffffffffffffffffffffffffffff": "zoo " * 11 + "wrong",
    "9e885d952ad362caeb4efe34a8e91bd2": "ozone drill grab fiber curtain grace pudding thank cruise "
    "elder eight picnic",
}
PICNIC = bytes.fromhex("9e885d952ad362caeb4efe34a8e91bd2")


@given(NAMES, PRINTS)
def test_every_form_of_a_fingerprint_reads_back(site: str, print_: bytes) -> None:
    words = to_words(print_)
    assert len(words) == 12
    for typed in (
        " ".join(words),
        "-".join(words).upper(),
        ", ".join(words),
        print_.hex(),
        to_hex(print_).upper(),
        to_qr_text(site, print_),
        f" {to_qr_text(site, print_)}\n",
    ):
        assert read_fingerprint(typed, site=site) == print_
    assert from_qr_text(to_qr_text(site, print_)) == (site, print_)


@pytest.mark.parametrize("digits", VECTORS)
def test_the_words_are_those_of_the_published_vectors(digits: str) -> None:
    assert " ".join(to_words(bytes.fromhex(digits))) == VECTORS[digits]


def test_the_list_is_the_published_one_and_four_letters_tell_its_words_apart() -> None:
    words = fingerprints._list().wordlist
    text = "".join(f"{word}\n" for word in words).encode()
    published = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    assert hashlib.sha256(text).hexdigest() == published
    assert len({word[:4] for word in words}) == len(words) == 2048


def test_a_fingerprint_is_of_the_name_and_the_key() -> None:
    own = fingerprint("north", b"k" * 32)
    assert len(own) == 16
    assert own == fingerprint("north", b"k" * 32)
    assert own not in (fingerprint("south", b"k" * 32), fingerprint("north", b"l" * 32))


def test_a_fingerprint_is_made_of_the_bytes_that_the_page_names() -> None:
    parts = [b"consilium/1/fingerprint", (2).to_bytes(8, "big"), b"north", b"k" * 32]
    statement = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert fingerprint("north", b"k" * 32) == hashlib.sha256(statement).digest()[:16]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({2: "grap"}, r"word 3, 'grap', is not in the list: did you mean 'grape'\?; correct it"),
        ({2: "gra8"}, r"word 3, 'gra8', is not in the list: did you mean 'grab'\?"),
        ({0: "ozon", 11: "picnik"}, r"word 1, 'ozon'.* 'ozone'\?; word 12, 'picnik'.* 'picnic'\?"),
        ({5: "qqqqq"}, "word 6, 'qqqqq', is not in the list and is like none of it"),
        ({5: "zoo"}, "all of the list but do not belong together"),
        ({0: "drill", 1: "ozone"}, "two have changed places"),
        ({11: ""}, "has 12 words or 32 hexadecimal digits, and 11 words were given"),
    ],
)
def test_a_slip_is_named(changes: dict[int, str], sentence: str) -> None:
    words = dict(enumerate(to_words(PICNIC))) | changes
    with pytest.raises(SettingsError, match=sentence):
        read_fingerprint(" ".join(words.values()), site="north")


@given(st.integers(0, 11), st.integers(0, 11))
def test_most_swaps_of_two_words_are_noticed_and_none_gives_the_same_fingerprint(
    first: int, second: int
) -> None:
    words = list(to_words(PICNIC))
    words[first], words[second] = words[second], words[first]
    try:
        found = read_fingerprint(" ".join(words), site="north")
    except SettingsError:
        return
    assert (found == PICNIC) == (words == list(to_words(PICNIC)))


@pytest.mark.parametrize(
    "text",
    ["", "12", PICNIC.hex()[:-1], PICNIC.hex() + "0", "g" * 32, "one word"],
)
def test_what_is_neither_words_nor_digits_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="have it read to you again, all of it"):
        read_fingerprint(text, site="north")


@pytest.mark.parametrize(
    "text",
    [
        "consilium:north",
        "consilium::" + PICNIC.hex(),
        "consilium:no/rth:" + PICNIC.hex(),
        "consilium:north:" + PICNIC.hex()[:-2],
        "consilium:north:" + "z" * 32,
        "https:north:" + PICNIC.hex(),
    ],
)
def test_another_code_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not the text of a hospital's QR code"):
        from_qr_text(text)


def test_the_code_of_another_hospital_is_refused() -> None:
    with pytest.raises(SettingsError, match="the QR code is of south, not of north"):
        read_fingerprint(to_qr_text("south", PICNIC), site="north")
