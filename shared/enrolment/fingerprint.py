"""A hospital's fingerprint: what two people read to each other over the telephone.

It is 128 bits of a hash of the hospital's name and its Ed25519 identity. It is not secret. It has
three forms, which mean the same:

- twelve English words: the fingerprint and a checksum of 4 bits, as BIP-39 writes 128 bits
  (Palatinus et al. 2013, 2048 words, 11 bits each, told apart by their first four letters);
- 32 hexadecimal digits;
- the text of a QR code, which also holds the name.

Whoever wants another key to have a hospital's fingerprint needs about 2^128 tries. Tries that a
large attacker can afford, 2^64, give five words of their choice and most of a sixth: a person who
compares only a few words is deceived, so the command takes all twelve.
"""

import difflib
from functools import cache

from mnemonic import Mnemonic

from consilium.shared.crypto.keys import SITE_NAME
from consilium.shared.crypto.transcript import digest
from consilium.shared.errors import SettingsError

FINGERPRINT_BYTES = 16
WORDS = 12
QR_SCHEME = "consilium"
_SPELT = {12: "twelve", 24: "twenty-four"}
_HEX_DIGITS = frozenset("0123456789abcdef")


def fingerprint(site: str, identity: bytes) -> bytes:
    """Return the fingerprint of a hospital's name and Ed25519 identity; 16 bytes."""
    return digest("fingerprint", site, identity)[:FINGERPRINT_BYTES]


def to_words(print_: bytes) -> tuple[str, ...]:
    """Return the twelve words of a fingerprint (16 bytes)."""
    return tuple(_list().to_mnemonic(print_).split())


def to_hex(print_: bytes) -> str:
    """Return the hexadecimal digits of a fingerprint in groups of four."""
    digits = print_.hex()
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def to_qr_text(site: str, print_: bytes) -> str:
    """Return what a hospital's QR code says: its name and fingerprint."""
    return f"{QR_SCHEME}:{site}:{print_.hex()}"


def from_qr_text(text: str) -> tuple[str, bytes]:
    """Return the name and the fingerprint (16 bytes) that a QR code says.

    Raises:
        SettingsError: it is another code, or not whole.
    """
    scheme, _, rest = text.strip().partition(":")
    site, _, digits = rest.rpartition(":")
    found = _from_hex(digits)
    if scheme.lower() != QR_SCHEME or not SITE_NAME.fullmatch(site) or found is None:
        raise SettingsError(
            f"{text[:80]!r} is not the text of a hospital's QR code; scan the one that "
            "'consilium-site identity' shows there"
        )
    return site, found


def read_fingerprint(text: str, *, site: str) -> bytes:
    """Return the fingerprint (16 bytes) of ``site`` that a person typed, in any of its forms.

    Capitals, blanks, commas and dashes between words or digits do not matter.

    Raises:
        SettingsError: the sentence names the word that is none of the list and the nearest that
            is, or says that the checksum is wrong; or the QR code is of another hospital.
    """
    if text.strip().lower().startswith(f"{QR_SCHEME}:"):
        named, found = from_qr_text(text)
        if named != site:
            raise SettingsError(f"the QR code is of {named}, not of {site}; scan the one of {site}")
        return found
    parts = text.lower().replace(",", " ").replace("-", " ").split()
    if len(parts) != WORDS and (of_digits := _from_hex("".join(parts))) is not None:
        return of_digits
    return read_words(parts, count=WORDS, what="a fingerprint", again="have it read to you again")


def _from_hex(digits: str) -> bytes | None:
    digits = digits.lower()
    if len(digits) != 2 * FINGERPRINT_BYTES or not _HEX_DIGITS.issuperset(digits):
        return None
    return bytes.fromhex(digits)


def read_words(words: list[str], *, count: int, what: str, again: str) -> bytes:
    """Return the bytes that so many words of the list mean, 4 for every three words.

    Raises:
        SettingsError: a word is not in the list, there are more or fewer, or the checksum is wrong;
            the sentence says ``what`` was read, and how to do it ``again``.
    """
    known = frozenset(_list().wordlist)
    wrong = [_correction(at, word) for at, word in enumerate(words, 1) if word not in known]
    if len(words) != count:
        digits = f" or {2 * FINGERPRINT_BYTES} hexadecimal digits" if count == WORDS else ""
        raise SettingsError(
            f"{what} has {count} words{digits}, and {len(words)} words were given; {again}, all "
            "of it"
        )
    if wrong:
        raise SettingsError(f"{'; '.join(wrong)}; correct it, or {again}")
    try:
        return bytes(_list().to_entropy(words))
    except ValueError:
        raise SettingsError(
            f"the {_SPELT.get(count, count)} words are all of the list but do not belong together: "
            f"one is wrong, or two have changed places; {again}"
        ) from None


def _correction(place: int, word: str) -> str:
    near = difflib.get_close_matches(word, _list().wordlist, n=1, cutoff=0.5)
    asked = f": did you mean {near[0]!r}?" if near else " and is like none of it"
    return f"word {place}, {word[:30]!r}, is not in the list{asked}"


@cache
def _list() -> Mnemonic:
    """Return the English list; the words' order is fixed by BIP-39 for good."""
    return Mnemonic("english")
