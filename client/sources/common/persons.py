"""Whose a record is: an identifier as programs write it, and what happens where there is none."""

import re
import unicodedata
from collections.abc import Iterable

from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study

NOBODY = re.compile(
    r"[x?*_.\-/# ]*|anon(ym(e|ous|i[sz]ed)?)?|(un|not )known|none|null|nan|n/?a|no ?id|removed|"
    r"redacted|hidden|withheld|(de|pseudo)[- ]?(identified|nymi[sz]ed)|pseudonym|test ?patient"
)
"""What programs write in place of an identifier that they removed."""


def same_person(identifier: str) -> str:
    """Return an identifier so that ways to write it are equal: blanks, case, Unicode's forms.

    Two persons whose identifiers differ in nothing else become one, which makes the guarantee of
    privacy stronger and never weaker.
    """
    plain, before = identifier.replace("\0", " "), None
    while plain != before:  # folding case may leave a form that folds again
        before = plain
        plain = " ".join(unicodedata.normalize("NFKC", plain).split()).casefold()
    return plain


def named_person(identifier: object) -> str:
    """Return :func:`same_person` of a format's own field; empty where it names nobody."""
    plain = same_person("" if identifier is None else str(identifier))
    return "" if NOBODY.fullmatch(plain) else plain


def require_person(study: Study, what: str, remedy: str) -> None:
    """Refuse a record that names no person, unless the study's unit is a recording.

    Raises:
        DataError: the study's unit is a patient; the sentence says how to name persons.
    """
    if study.privacy.unit == "patient":
        raise DataError(
            f'{what}, and the study protects persons ([privacy] unit = "patient"); {remedy}, or '
            'ask for a study whose unit is "recording"'
        )


def spellings(identifiers: Iterable[str]) -> int:
    """Return how many identifiers were taken for one that is written in another way."""
    distinct = set(identifiers)
    return len(distinct) - len({same_person(identifier) for identifier in distinct})
