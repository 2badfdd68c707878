"""Units of measure: UCUM codes, and the exact linear map from one to another.

A unit is parsed into a factor to base units and exponents of dimensions (Unified Code for Units of
Measure, Regenstrief Institute, version 2.1, sections 2 to 4): enough of UCUM for clinical
quantities, strictly case-sensitive. Two units convert when their dimensions agree. Between mass and
amount of substance (mg/dL and mmol/L) the molar mass of *that* substance is needed, between amount
and equivalents (mmol/L and meq/L) its valence; both belong to the variable, so the same two units
convert differently for glucose and creatinine, and not at all where nobody stated a molar mass.

What cannot be converted exactly is refused: never guessed, never passed through.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from consilium.shared.errors import DataError

# Dimension and power: g, m, s, mol, eq, K, and the arbitrary [IU] and [pH].
Exponents = tuple[tuple[str, int], ...]


class UnitError(DataError):
    """A unit is not known, or cannot be converted to the one that is wanted."""


@dataclass(frozen=True)
class Unit:
    """What a UCUM code means: value in base units = factor * value + offset."""

    factor: float
    exponents: Exponents
    offset: float = 0.0


@dataclass(frozen=True)
class LinearMap:
    """x -> factor * x + offset."""

    factor: float
    offset: float = 0.0

    def __call__(self, value: float) -> float:
        """Convert one value."""
        return self.factor * value + self.offset


@dataclass(frozen=True)
class Substance:
    """What converting an amount of one substance needs.

    Attributes:
        molar_mass: g/mol, of what the laboratory weighs (urea *nitrogen*: two atoms N).
        valence: equivalents in one mole; 0 when equivalents have no meaning.
    """

    molar_mass: float
    valence: int = 0


# Molar masses from IUPAC standard atomic weights (abridged, 2021): sums over the formula.
SUBSTANCES: Mapping[str, Substance] = MappingProxyType(
    {
        "Glucose": Substance(180.156),  # C6H12O6
        "Creatinine": Substance(113.120),  # C4H7N3O
        "BUN": Substance(28.014),  # N2, in one urea
        "Bilirubin": Substance(584.673),  # C33H36N4O6
        "Cholesterol": Substance(386.664),  # C27H46O
        "Lactate": Substance(90.078, 1),  # as lactic acid C3H6O3, as laboratories do
        "HCO3": Substance(61.016, 1),  # HCO3-
        "Na": Substance(22.990, 1),
        "K": Substance(39.098, 1),
        "Mg": Substance(24.305, 2),
    }
)

_PREFIXES: Mapping[str, float] = {
    "": 1.0,
    "k": 1e3,
    "h": 1e2,
    "da": 1e1,
    "d": 1e-1,
    "c": 1e-2,
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
    "p": 1e-12,
    "f": 1e-15,
}
_PRESSURE: Exponents = (("g", 1), ("m", -1), ("s", -2))
_METRIC: Mapping[str, Unit] = {
    "g": Unit(1.0, (("g", 1),)),
    "m": Unit(1.0, (("m", 1),)),
    "s": Unit(1.0, (("s", 1),)),
    "L": Unit(1e-3, (("m", 3),)),
    "l": Unit(1e-3, (("m", 3),)),
    "mol": Unit(1.0, (("mol", 1),)),
    "eq": Unit(1.0, (("eq", 1),)),
    "K": Unit(1.0, (("K", 1),)),
    "Cel": Unit(1.0, (("K", 1),), 273.15),
    "Pa": Unit(1e3, _PRESSURE),
    "bar": Unit(1e8, _PRESSURE),
    "V": Unit(1e3, (("C", -1), ("g", 1), ("m", 2), ("s", -2))),
    "m[Hg]": Unit(133.322e6, _PRESSURE),  # UCUM: 133.3220 kPa
    "m[H2O]": Unit(9.80665e6, _PRESSURE),
    "U": Unit(1e-6 / 60, (("mol", 1), ("s", -1))),  # of catalytic activity, umol/min
    "kat": Unit(1.0, (("mol", 1), ("s", -1))),
    "osm": Unit(1.0, (("mol", 1),)),  # UCUM: one mole of particles
    "[IU]": Unit(1.0, (("[IU]", 1),)),
    "[iU]": Unit(1.0, (("[IU]", 1),)),
}
_PLAIN: Mapping[str, Unit] = {
    "%": Unit(1e-2, ()),
    "[ppth]": Unit(1e-3, ()),
    "[pH]": Unit(1.0, (("[pH]", 1),)),
    "min": Unit(60.0, (("s", 1),)),
    "h": Unit(3600.0, (("s", 1),)),
    "d": Unit(86400.0, (("s", 1),)),
    "wk": Unit(7 * 86400.0, (("s", 1),)),
    "mo": Unit(2629800.0, (("s", 1),)),
    "a": Unit(31557600.0, (("s", 1),)),
    "[degF]": Unit(5 / 9, (("K", 1),), 273.15 - 32 * 5 / 9),
    "[lb_av]": Unit(453.59237, (("g", 1),)),
    "[oz_av]": Unit(28.349523125, (("g", 1),)),
    "[in_i]": Unit(0.0254, (("m", 1),)),
    "[ft_i]": Unit(0.3048, (("m", 1),)),
}
# What hospital systems print instead of UCUM; each means one thing only.
_SYNONYMS: Mapping[str, str] = {
    "mmHg": "mm[Hg]",
    "mm Hg": "mm[Hg]",
    "cmH2O": "cm[H2O]",
    "bpm": "/min",
    "beats/min": "/min",
    "breaths/min": "/min",
    "insp/min": "/min",
    "°C": "Cel",
    "degC": "Cel",
    "°F": "[degF]",
    "degF": "[degF]",
    "mEq/L": "meq/L",
    "mEq/l": "meq/L",
    "IU/L": "[IU]/L",
    "U/l": "U/L",
    "K/uL": "10*3/uL",
    "K/µL": "10*3/uL",
    "10^3/uL": "10*3/uL",
    "10^9/L": "10*9/L",
    "10e3/uL": "10*3/uL",
    "10e9/L": "10*9/L",
    "x10^9/L": "10*9/L",
    "lb": "[lb_av]",
    "lbs": "[lb_av]",
    "inch": "[in_i]",
    "inches": "[in_i]",
    "sec": "s",
    "hours": "h",
    "years": "a",
    "yr": "a",
    "pH": "[pH]",
    "units": "1",
    "points": "{score}",
}
_TERM = re.compile(r"(?P<operator>[./]?)(?P<atom>(?:\[[^\]]*\]|[^./\[\]{}])*)(?P<note>\{[^{}]*\})?")
_POWER = re.compile(r"10[*^](?P<exponent>[+-]?\d+)")
UNITLESS = frozenset({"1", "{score}", "[pH]"})  # a value needs no unit stated to be in these
_ATOM = re.compile(r"(?P<code>.*?[^\d+-])(?P<exponent>[+-]?\d+)?")
LONGEST_UNIT = 64


def conversion(
    given: str, wanted: str, *, variable: str = "", substance: Substance | None = None
) -> LinearMap:
    """Return the map from values in unit ``given`` to values in unit ``wanted``.

    Args:
        given: UCUM code of the records.
        wanted: UCUM code of the study.
        variable: names the quantity in errors.
        substance: allows mass <-> amount <-> equivalents of this substance.

    Guarantee: ``conversion(b, a)`` undoes ``conversion(a, b)`` to rounding.

    Raises:
        UnitError: a unit is not known, or the two measure different things.
    """
    if given == wanted:
        return LinearMap(1.0)
    about = f"variable {variable}: " if variable else ""
    try:
        source, target = parse_unit(given), parse_unit(wanted)
    except UnitError as error:
        raise UnitError(f"{about}{error}") from error
    source, target = _same_arbitrary(source, target)
    if source.exponents != target.exponents and substance is not None:
        source, target = (_as_mass(unit, substance) for unit in (source, target))
    if source.exponents != target.exponents:
        missing = (
            "; between mass and amount its molar mass is needed"
            if substance is None and {"mol", "eq"} & _names(source, target)
            else ""
        )
        raise UnitError(
            f"{about}{given!r} cannot be converted to {wanted!r}, they measure different "
            f"things{missing}; correct the unit in site.toml or in the study"
        )
    factor = source.factor / target.factor
    if math.isclose(factor, 1.0, rel_tol=1e-12):
        factor = 1.0
    offset = (source.offset - target.offset) / target.factor
    return LinearMap(factor, offset)


def is_unit(code: str) -> bool:
    """Whether this code is known."""
    try:
        parse_unit(code)
    except UnitError:
        return False
    return True


@cache
def parse_unit(code: str) -> Unit:
    """Return what a UCUM code (or a common synonym of one) means.

    Raises:
        UnitError: the code is not one that is known here.
    """
    text = _SYNONYMS.get(code.strip(), code.strip()).replace("µ", "u").replace("μ", "u")
    if not text or len(text) > LONGEST_UNIT:
        raise UnitError(
            "a unit is empty; state it in UCUM, such as 'mmol/L'"
            if not text
            else f"a unit has {len(text)} characters, more than {LONGEST_UNIT}; state it in UCUM"
        )
    factor, exponents, offset = 1.0, dict[str, int](), 0.0
    position, terms = 0, 0
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None or term.end() == position or not (term["atom"] or term["note"]):
            raise _unknown(code)
        if terms and not term["operator"]:
            raise _unknown(code)
        unit = _atom(term["atom"], code)
        sign = -1 if term["operator"] == "/" else 1
        factor *= unit.factor**sign
        offset += unit.offset
        for name, exponent in unit.exponents:
            exponents[name] = exponents.get(name, 0) + sign * exponent
        position, terms = term.end(), terms + 1
    if offset and terms > 1:
        raise UnitError(f"unit {code!r} combines a temperature scale with another unit; use K")
    return Unit(factor, tuple(sorted((n, e) for n, e in exponents.items() if e)), offset)


def _atom(atom: str, code: str) -> Unit:
    """One term without its operator: a number, or [prefix]unit[exponent]."""
    if atom in ("", "1"):  # an annotation alone is 1, and so is a leading '1/'
        return Unit(1.0, ())
    if power := _POWER.fullmatch(atom):
        exponent = int(power["exponent"])
        if abs(exponent) > 30:
            raise _unknown(code)
        return Unit(10.0**exponent, ())
    if atom.isascii() and atom.isdecimal() and 0 < int(atom) < 10**6:
        return Unit(float(atom), ())
    split = _ATOM.fullmatch(atom)
    exponent = int(split["exponent"] or 1) if split is not None else 0
    base = _base(split["code"]) if split is not None else None
    if base is None or not 0 < abs(exponent) <= 9 or (base.offset and exponent != 1):
        raise _unknown(code)
    raised = tuple((name, power * exponent) for name, power in base.exponents)
    return Unit(base.factor**exponent, raised, base.offset)


def _base(code: str) -> Unit | None:
    if code in _PLAIN:
        return _PLAIN[code]
    for prefix, scale in _PREFIXES.items():
        unit = _METRIC.get(code.removeprefix(prefix)) if code.startswith(prefix) else None
        if unit is not None and not (prefix and unit.offset):
            return Unit(scale * unit.factor, unit.exponents, unit.offset)
    return None


def _unknown(code: str) -> UnitError:
    return UnitError(
        f"unit {code!r} is not a known UCUM code; state the unit in site.toml, such as 'mmol/L'"
    )


def _names(*units: Unit) -> set[str]:
    return {name for unit in units for name, _ in unit.exponents}


def _same_arbitrary(source: Unit, target: Unit) -> tuple[Unit, Unit]:
    """Enzyme activity in [IU] is U (UCUM section 4.5: the international unit of an enzyme is U)."""
    if "[IU]" in _names(source) and dict(target.exponents).get("s") == -1:
        return _enzyme(source), target
    if "[IU]" in _names(target) and dict(source.exponents).get("s") == -1:
        return source, _enzyme(target)
    return source, target


def _enzyme(unit: Unit) -> Unit:
    exponents = dict(unit.exponents)
    power = exponents.pop("[IU]")
    exponents["mol"] = exponents.get("mol", 0) + power
    exponents["s"] = exponents.get("s", 0) - power
    kept = tuple(sorted((n, e) for n, e in exponents.items() if e))
    return Unit(unit.factor * _METRIC["U"].factor ** power, kept)


def _as_mass(unit: Unit, substance: Substance) -> Unit:
    """Express amounts and equivalents of a substance as its mass."""
    exponents, factor = dict(unit.exponents), unit.factor
    for name, grams in (
        ("mol", substance.molar_mass),
        ("eq", substance.molar_mass / substance.valence if substance.valence else None),
    ):
        power = exponents.get(name, 0)
        if power and grams is not None:
            del exponents[name]
            exponents["g"] = exponents.get("g", 0) + power
            factor *= grams**power
    kept = tuple(sorted((n, e) for n, e in exponents.items() if e))
    return Unit(factor, kept, unit.offset)
