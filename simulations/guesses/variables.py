"""What a study says of each quantity: unit, range, usual value; from the dictionary, or the values.

A range or a usual value that is taken from the records themselves is a guess for a simulation. A
study for hospitals takes them from the literature: they are public, and the records are not.
"""

import math
from dataclasses import dataclass

import polars as pl

from consilium.shared.study.dictionary import KNOWN, Variable
from consilium.shared.study.unit_spellings import ucum_of
from consilium.shared.study.units import SUBSTANCES, UnitError, conversion, is_unit
from consilium.simulations.guesses.words import known_name

SEX = "Gender"
_FITTING = 0.95  # of the values, within the dictionary's range
_SPREADS = 3.0  # of the dictionary, between its usual value and the records' median


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One variable of the study.

    Attributes:
        name: in the study.
        source: its code or column in the records.
        unit: of the records, as UCUM.
        declaration: what the study says of it.
        known: whether the dictionary has it.
        why: the comment.
        values: numbers for words.
    """

    name: str
    source: str
    unit: str
    declaration: Variable
    known: bool
    why: str
    values: tuple[tuple[str, float], ...] = ()

    @property
    def static(self) -> bool:
        """Whether it does not change with time."""
        return self.declaration.role == "static"


def quantity(
    source: str,
    values: pl.Series,
    unit: str | None,
    taken: set[str],
    *,
    static: bool,
    words: tuple[tuple[str, float], ...] = (),
    called: str | None = None,
) -> Quantity:
    """Return the variable that a code or a column holds.

    Args:
        source: the code, or the column's name.
        values: its numbers.
        unit: as the records say it, if they do.
        taken: names that are used up.
        static: whether it does not change with time.
        words: numbers for the words in its column, if it holds words.
        called: what the code is called, if that is not the code itself.
    """
    called = called or source
    numbers = values.drop_nulls().drop_nans()
    name = known_name(source) or known_name(called)
    if name == SEX and not words:
        name = None  # which number is which sex is not to be guessed
    ucum = _ucum(unit)
    if name is not None and name not in taken:
        known = KNOWN[name].declaration
        told = ""
        if ucum is not None and _converts(ucum, known.unit, name):
            to_known = conversion(ucum, known.unit, variable=name, substance=SUBSTANCES.get(name))
            converted = numbers * to_known.factor + to_known.offset
            told = f"{source!r} in {unit}"
            if not _fits(converted, known):
                told += f"; few values lie in {known.low:g} to {known.high:g}, check the unit"
        elif unit is None and _fits(numbers, known):
            ucum = known.unit
            told = f"{source!r}: no unit is stated; the values fit {known.unit}"
        if told:
            role = "static" if static else "series"
            declaration = known.model_copy(update={"role": role})
            return Quantity(
                name=name,
                source=source,
                unit=ucum or known.unit,
                declaration=declaration,
                known=True,
                why=told,
                values=words,
            )
    if ucum is None:
        why = f"{source!r}: no unit is stated"
        if unit is not None:
            why = f"{source!r}: its unit is not known in UCUM"
        why += '; "1" is a plain number: write the real unit here and in the other file'
        ucum = "1"
    else:
        why = f"{source!r} in {unit}; range and usual values are those of these records"
    own = called if called not in taken else f"{called} ({source})"
    return Quantity(name=own, source=source, unit=ucum, known=False, why=why,
                    declaration=_declared(numbers, ucum, static=static))  # fmt: skip


def _ucum(unit: str | None) -> str | None:
    """Return a spelling of a unit as UCUM; None if it is not known."""
    if unit is None or is_unit(unit):
        return unit
    try:
        return ucum_of(unit)
    except UnitError:
        return None


def _converts(given: str, wanted: str, name: str) -> bool:
    try:
        conversion(given, wanted, variable=name, substance=SUBSTANCES.get(name))
    except UnitError:
        return False
    return True


def _fits(numbers: pl.Series, known: Variable) -> bool:
    """Return whether values could be of this quantity in the dictionary's unit."""
    if not len(numbers):
        return False
    inside = float(numbers.is_between(known.low, known.high).mean() or 0.0)  # type: ignore[arg-type]
    median = float(numbers.median() or 0.0)  # type: ignore[arg-type]
    if known.scale == "log":
        if median <= 0:
            return False
        off = abs(math.log(median / known.center))
    else:
        off = abs(median - known.center)
    return inside >= _FITTING and off <= _SPREADS * known.spread


def _declared(numbers: pl.Series, unit: str, *, static: bool) -> Variable:
    """Return a declaration from the values: a wide range around them, median and deviation."""
    least, most = _quantile(numbers, 0.0), _quantile(numbers, 1.0)
    center = _quantile(numbers, 0.5)
    low_end, high_end = _quantile(numbers, 0.1), _quantile(numbers, 0.9)
    width = (most - least) or max(1.0, abs(most))
    low = 0.0 if least >= 0 else _round(least - width, up=False)
    high = _round(most + width, up=True)
    skewed = least > 0 and most > 10 * center and center > 0
    if skewed:
        spread = max(0.1, math.log(max(high_end, 1e-9) / max(low_end, 1e-9)) / 2.56)
    else:
        spread = (high_end - low_end) / 2.56 or float(numbers.std() or 0.0) or width / 4  # type: ignore[arg-type]
    center = min(max(_significant(center), low), high)
    if skewed and center <= 0:
        skewed = False
    return Variable(
        unit=unit,
        low=low,
        high=high,
        center=center,
        spread=_significant(spread),
        scale="log" if skewed else "linear",
        role="static" if static else "series",
    )


def _quantile(numbers: pl.Series, at: float) -> float:
    found = numbers.quantile(at)
    return 0.0 if found is None else float(found)


def _significant(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")


def _round(value: float, *, up: bool) -> float:
    """Return a number of one digit beyond a value."""
    if value == 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(abs(value)))
    return float((math.ceil if up else math.floor)(value / unit) * unit)
