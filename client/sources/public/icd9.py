"""ICD-9-CM diagnosis codes, and their numbers in a study's vocabulary."""

import re

import numpy as np

from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import UNKNOWN_TOKEN, token_numbers

_RANGE = re.compile(r"([EV]?)(\d{2,3})-([EV]?)(\d{2,3})")
_CODE = re.compile(r"([EV]?)(\d{1,3})(\.\d{1,2})?")


class Icd9:
    """Finds the number of a code in a study's vocabulary.

    An entry of the vocabulary is a code (``250.02``), a category (``250``) or a range of categories
    like ICD-9-CM's chapters (``390-459``, ``V01-V91``). A matching code goes before a category, and
    that before a range; of several ranges, the first in the vocabulary counts.

    Raises:
        DataError: an entry of another form.
    """

    def __init__(self, study: Study) -> None:
        self._exact: dict[str, int] = {}
        self._ranges: list[tuple[str, int, int, int]] = []
        self._known: dict[str, float] = {}
        for entry, number in token_numbers(study).items():
            if found := _RANGE.fullmatch(entry):
                letter, low, other, high = found.groups()
                if letter != other or int(low) > int(high):
                    raise DataError(
                        f"[tokens] vocabulary: {entry!r} is not a range of categories upwards; "
                        "correct it"
                    )
                self._ranges.append((letter, int(low), int(high), number))
            elif _CODE.fullmatch(entry):
                self._exact[entry] = number
            else:
                raise DataError(
                    f"[tokens] vocabulary: {entry!r} is neither an ICD-9-CM code nor a range of "
                    "categories; correct it"
                )

    def number(self, code: str) -> float:
        """Return the code's number, ``UNKNOWN_TOKEN`` if no entry fits, NaN for ``?`` (missing)."""
        if code not in self._known:
            self._known[code] = self._find(code)
        return self._known[code]

    def _find(self, code: str) -> float:
        if code in ("", "?"):
            return float(np.nan)
        found = _CODE.fullmatch(code)
        if found is None:
            return float(UNKNOWN_TOKEN)
        letter, digits, _ = found.groups()
        category = f"{letter}{digits.zfill(2 if letter == 'V' else 3)}"
        for name in (code, category):
            if name in self._exact:
                return float(self._exact[name])
        for of_letter, low, high, number in self._ranges:
            if of_letter == letter and low <= int(digits) <= high:
                return float(number)
        return float(UNKNOWN_TOKEN)
