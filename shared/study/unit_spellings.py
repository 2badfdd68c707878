"""How laboratories spell units, in English, German and French, and what each means in UCUM.

A study writes UCUM, strictly (:mod:`consilium.shared.study.units`). Records write ``MG/DL``,
``mval/l``, ``Gpt/l``, ``x10E9/L``, ``Schl./min``. :func:`ucum_of` reads these: whole spellings from
a table, counts in a volume by their pattern, and all others atom by atom between the slashes, first
as written, then without regard to case.

Guarantee: a spelling has one meaning or none. One that two laboratories use for different things is
in AMBIGUOUS with the reason, and refused: only the hospital can say which it is.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType

from consilium.shared.study.units import LONGEST_UNIT, UnitError, is_unit, parse_unit

AMBIGUOUS: Mapping[str, str] = MappingProxyType(
    {
        r"G/L": "grams a litre in capitals (g/L), or giga a litre (10*9/L)",
        r"M/L": "moles a litre (mol/L), or millions a litre (10*6/L)",
        r"m/[uµμ]?[lL]|m/mm3": "millions (10*6/uL), or a milli of something left out",
        r"M/(mm3|cumm|cmm)": "millions (10*6/uL), or the Roman thousand (10*3/uL)",
        r"(?i:mil{1,2}\.?)/.*": "thousand in Spanish and Portuguese, million in English",
        r"MM/(?!H).*": "millimoles, millimetres, or the Roman million",
        r"(MM|UM|NM|PM)": "a length (mm, um, nm, pm), or a concentration (mmol/L ...) in capitals",
        r"(MU|MIU|MUI|MIE)(/.*)?": "thousandths of a unit in capitals (mU), or millions of units",
        r"mu/.*": "thousandths of a unit (mU), or the Greek letter (u) with its unit left out",
        r"(?i:[mµμu]?e)/[lL]|(?i:[mu]?e)/[md][lL]": "units in German (U), or equivalents (eq)",
        r"(?i:gr)(/.*)?": "grams (g), or grains of 65 mg",
        r"G": "grams (g), giga, or gauss",
        r"M": "minutes, months, metres, or moles a litre",
        r"ppm": "beats a minute in Spanish (/min), or parts a million",
        r"[sS]/min": "beats a minute in German (/min), or seconds a minute",
        r"c/min": "cycles a minute (/min), or a hundredth of something left out",
        r"(?i:10\s+[369]|10\s+12)\s*/.*": "ten to this power, or ten times this number",
        r"[cC]al": "calories of 4.184 J, or kilocalories in capitals",
    }
)
"""Pattern of a spelling, and why it is not read; ``units`` in ``site.toml`` says what is meant."""

_WHOLE: Mapping[str, str] = {
    "bpm": "/min", "cpm": "/min", "rpm": "/min", "puls": "/min", "hz": "/s",
    "lpm": "L/min", "mmhg": "mm[Hg]", "mm/hg": "mm[Hg]", "torr": "mm[Hg]", "mm[hg]": "mm[Hg]",
    "cmh2o": "cm[H2O]", "cmh20": "cm[H2O]", "cmws": "cm[H2O]", "cm[h2o]": "cm[H2O]",
    "mmh2o": "mm[H2O]", "kpa": "kPa", "hpa": "hPa", "mbar": "mbar",
    "percent": "%", "prozent": "%", "pct": "%", "percento": "%",
    "vol%": "%", "vol.%": "%", "vol.-%": "%", "vol-%": "%",
    "‰": "[ppth]", "o/oo": "[ppth]", "0/00": "[ppth]", "promille": "[ppth]",
    "°c": "Cel", "degc": "Cel", "gradc": "Cel", "grad": "Cel", "degreesc": "Cel", "celsius": "Cel",
    "gradcelsius": "Cel", "degreescelsius": "Cel", "cel": "Cel",
    "°f": "[degF]", "degf": "[degF]", "degreesf": "[degF]", "fahrenheit": "[degF]",
    "degreesfahrenheit": "[degF]", "[degf]": "[degF]",
    "ph": "[pH]", "phunits": "[pH]", "phunit": "[pH]", "ph-einheiten": "[pH]", "[ph]": "[pH]",
    "ratio": "1", "inr": "1", "index": "1", "quotient": "1", "fraction": "1",
    "point": "{score}", "points": "{score}", "punkte": "{score}", "score": "{score}",
    "mm/h": "mm/h", "mm/hr": "mm/h", "mm/hour": "mm/h",
    "mm/1h": "mm/h", "mm/1std": "mm/h",
}  # fmt: skip  # without spaces, in lower case
_WHOLE_AS_WRITTEN: Mapping[str, str] = {
    "C": "Cel", "F": "[degF]", "mM": "mmol/L", "uM": "umol/L", "nM": "nmol/L", "pM": "pmol/L",
    "mg%": "mg/dL", "MG%": "mg/dL", "g%": "g/dL", "ug%": "ug/dL", "Hz": "/s",
}  # fmt: skip
_THOUSAND = "k|thou|thous|thousand|thousands|tsd|tsd\\.|tausend|mille|milliers"
_MILLION = "mio|mio\\.|million|millions|millionen|millones|mpt"
_MULTIPLES = (
    (re.compile(rf"(?i:{_THOUSAND})"), 3),
    (re.compile(rf"(?i:{_MILLION})"), 6),
    (re.compile(r"(?i:giga|gpt)"), 9),
    (re.compile(r"(?i:tera|tpt)"), 12),
)
_INITIALS = {
    "G/l": "10*9/L",
    "T/l": "10*12/L",
    "T/L": "10*12/L",
    **dict.fromkeys(("M/uL", "M/ul", "M/mcL"), "10*6/uL"),
}
_POWER = re.compile(
    r"(?:[xX×*]\s*)?(?:1?E|10\s*(?:\^|\*\*|\*|[eE]|[eE]xp|EXP|'|(?=\()))\s*"
    r"\(?\s*\+?(?P<exponent>0?[369]|12)\s*\)?\s*(?P<rest>/?.*)"
)
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "": ("",),
    "k": ("k", "kilo"),
    "d": ("d", "deci", "dezi"),
    "c": ("c", "centi", "zenti"),
    "m": ("m", "milli"),
    "u": ("u", "mc", "micro", "mikro"),
    "n": ("n", "nano"),
    "p": ("p", "pico", "piko"),
    "f": ("f", "femto"),
}
_BASES: Mapping[str, tuple[str, ...]] = {
    "g": ("g", "gm", "gms", "gram", "grams", "gramm", "gramme", "grammes"),
    "mol": ("mol", "mole", "moles", "mols"),
    "eq": ("eq", "val", "equivalent", "equivalents", "äq"),
    "U": ("U", "unit", "units", "einheit", "einheiten", "unité", "unités"),
    "[IU]": ("IU", "UI", "IE", "I.U.", "U.I.", "I.E.", "[IU]", "[iU]"),
    "L": ("L", "l", "liter", "litre", "liters", "litres", "ltr"),
    "m": ("m", "meter", "metre", "meters", "metres"),
    "osm": ("osm", "osmol", "osmole", "osmoles"),
    "kat": ("kat", "katal"),
}
_USED = {  # which prefixes are met in a laboratory or at the bedside
    "g": "k|m|u|n|p|f|", "mol": "m|u|n|p|f|", "eq": "m|u|", "U": "k|m|u|", "[IU]": "k|m|u|",
    "L": "d|c|m|u|n|p|f|", "m": "c|m|u|n|", "osm": "m|", "kat": "m|u|n|",
}  # fmt: skip
_ATOMS: Mapping[str, str] = {
    **dict.fromkeys(("min", "min.", "mins", "minute", "minutes", "minuten", "mn"), "min"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "std", "std.", "stunde", "stunden"), "h"),
    **dict.fromkeys(("heure", "heures"), "h"),
    **dict.fromkeys(("s", "sec", "sec.", "secs", "second", "seconds", "sek", "sek."), "s"),
    **dict.fromkeys(("sekunde", "sekunden", "seconde", "secondes"), "s"),
    **dict.fromkeys(("d", "day", "days", "tag", "tage", "jour", "jours"), "d"),
    **dict.fromkeys(("24h", "24hr", "24hrs", "24std"), "d"),
    **dict.fromkeys(("wk", "week", "weeks", "woche", "wochen"), "wk"),
    **dict.fromkeys(("mo", "month", "months", "monat", "monate", "mois"), "mo"),
    **dict.fromkeys(("a", "yr", "yrs", "year", "years", "jahr", "jahre", "ans"), "a"),
    **dict.fromkeys(("msec", "millisecond", "milliseconds", "ms"), "ms"),
    **dict.fromkeys(("cc", "ccm", "cm3", "cm^3"), "mL"),
    **dict.fromkeys(("mm3", "mm^3", "mm**3", "mm*3", "cumm", "cmm", "cubicmm", "c.mm"), "uL"),
    **dict.fromkeys(("100ml", "100cc"), "dL"),
    **dict.fromkeys(("m2", "m^2", "qm", "sqm"), "m2"),
    **dict.fromkeys(("1.73m2", "1,73m2", "1.73m^2", "1,73m^2", "1.73sqm", "1.73"), "{1.73_m2}"),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds", "[lb_av]"), "[lb_av]"),
    **dict.fromkeys(("oz", "ounce", "ounces", "[oz_av]"), "[oz_av]"),
    **dict.fromkeys(("in", "inch", "inches", "[in_i]"), "[in_i]"),
    **dict.fromkeys(("ft", "feet", "foot", "[ft_i]"), "[ft_i]"),
    **dict.fromkeys(("kgs", "kilos", "kilo"), "kg"),
    "%": "%", "mm[hg]": "mm[Hg]", "mmhg": "mm[Hg]", "cmh2o": "cm[H2O]",
}  # fmt: skip
_COUNTED = frozenset(
    {
        "1", "#", "no", "no.", "n", "cell", "cells", "zelle", "zellen", "zell.", "cellules",
        "count",
        "particles", "partikel", "beat", "beats", "schlag", "schläge", "schl", "schl.", "pulse",
        "pulses", "battement", "battements", "batt", "batt.", "breath", "breaths", "atemzüge", "az",
        "insp", "resp", "cycles", "zyklen", "mvts", "mouvements", "impulse", "heartbeats",
    }
)  # fmt: skip


@cache
def ucum_of(spelling: str) -> str:
    """Return the UCUM code of a unit as a laboratory spells it; a UCUM code is returned as it is.

    Raises:
        UnitError: the spelling is not known, or means one thing here and another there.
    """
    if len(spelling) > LONGEST_UNIT:
        raise UnitError(
            f"a unit has {len(spelling)} characters, more than {LONGEST_UNIT}; state it in UCUM"
        )
    text = _normal(spelling)
    if reason := ambiguity(spelling):
        raise UnitError(
            f"unit {spelling!r} can mean {reason}; say which in site.toml: [data] units = "
            f'{{ {json.dumps(spelling)} = "..." }}'
        )
    found = _counted_in_volume(text) or _whole(text)
    if found is None and is_unit(spelling):
        return spelling
    found = found or _composed(text)
    if found is None or not is_unit(found):
        raise UnitError(
            f"unit {spelling!r} is not a known UCUM code, nor a known spelling of one; state it in "
            f'site.toml: [data] units = {{ {json.dumps(spelling)} = "..." }}, such as "mmol/L"'
        )
    return found


def is_spelling(text: str) -> bool:
    """Whether this is a UCUM code, or a known or ambiguous spelling of one."""
    if ambiguity(text):
        return True
    try:
        ucum_of(text)
    except UnitError:
        return False
    return True


def ambiguity(spelling: str) -> str | None:
    """Return why a spelling is not read though it is known, None if it is not ambiguous."""
    text = _normal(spelling)
    for pattern, reason in AMBIGUOUS.items():
        if re.fullmatch(pattern, text) or re.fullmatch(pattern, spelling.strip()):
            return reason
    return None


def same_unit(one: str, other: str) -> bool:
    """Whether two UCUM codes mean the same: 10*9/L and 10*3/uL do."""
    first, second = parse_unit(one), parse_unit(other)
    close = abs(first.factor / second.factor - 1) < 1e-9
    return close and (first.exponents, first.offset) == (second.exponents, second.offset)


def _normal(spelling: str) -> str:
    """Return the text with one way of writing micro, powers, slashes and blanks."""
    text = re.sub(r"10([⁰¹²³⁴-⁹⁺⁻]+)", lambda m: "10^" + m[1].translate(_SUPERSCRIPT), spelling)
    text = unicodedata.normalize("NFC", text.translate(_SUPERSCRIPT)).replace("\u2103", "°C")
    text = text.replace("µ", "u").replace("μ", "u").replace("º", "°").replace("\u2044", "/")
    text = re.sub(r"[·⋅∙]", ".", text)
    text = " ".join(text.split())
    text = re.sub(r"(?i: per | pro | par )", "/", text)
    return re.sub(r"\s*/\s*", "/", text)


def _whole(text: str) -> str | None:
    packed = text.replace(" ", "")
    return _WHOLE_AS_WRITTEN.get(packed) or _WHOLE.get(packed.lower())


def _counted_in_volume(text: str) -> str | None:
    """Return the code of a count in a volume: ``G/l``, ``x10E9/L``, ``Tsd/µl``, ``cells/mm3``."""
    if power := _POWER.fullmatch(text):
        rest = power["rest"].strip()
        amount, slash, volume = rest.partition("/")
        if slash and (not amount.strip() or amount.strip().lower() in _COUNTED):
            return _per_volume(f"10*{int(power['exponent'])}", volume)
        return None
    amount, slash, volume = text.partition("/")
    if not slash:
        return None
    for pattern, exponent in _MULTIPLES:
        if pattern.fullmatch(amount.strip()):
            return _per_volume(f"10*{exponent}", volume)
    return _INITIALS.get(text)


def _per_volume(amount: str, volume: str) -> str | None:
    code = _atom(volume.strip())
    return f"{amount}/{code}" if code is not None and code.endswith("L") else None


def _composed(text: str) -> str | None:
    """Return the code of a spelling read atom by atom, None if an atom is not known."""
    text = re.sub(r"[ .*]?([A-Za-z0-9]*[A-Za-z])\^?-1(?![0-9])", r"/\1", text)
    numerator, *below = text.split("/")
    top = "" if numerator.strip().lower() in {*_COUNTED, ""} else _atom(numerator.strip())
    bottom = [_atom(part.strip()) for part in below]
    if top is None or None in bottom or not (top or bottom):
        return None
    return "/".join([top, *map(str, bottom)])


def _atom(written: str) -> str | None:
    """Return the UCUM code of one atom, as written or else without regard to case."""
    packed = written.replace(" ", "")
    if re.search(r"[A-Z]", packed) and packed.upper() == packed and packed in _CAPITALS_AMBIGUOUS:
        return None
    exact, folded = _tables()
    return exact.get(packed) or folded.get(packed.lower())


_CAPITALS_AMBIGUOUS = frozenset({"MU", "MIU", "MUI", "MIE", "MM", "UM", "NM", "PM", "M", "S", "A"})


@cache
def _tables() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the codes of atoms as written, and of those in lower case that mean one thing."""
    exact = dict(_spelled())
    meanings: dict[str, set[str]] = {}
    for spelling, code in exact.items():
        meanings.setdefault(spelling.lower(), set()).add(code)
    folded = {text: next(iter(codes)) for text, codes in meanings.items() if len(codes) == 1}
    return exact, folded


def _spelled() -> Iterator[tuple[str, str]]:
    """Yield every spelling of an atom and its code."""
    for base, spellings in _BASES.items():
        for prefix in _USED[base].split("|"):
            for shown in _PREFIXES[prefix]:
                yield from ((shown + written, prefix + base) for written in spellings)
    yield from _ATOMS.items()
