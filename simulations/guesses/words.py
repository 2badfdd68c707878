"""Words by which columns, codes and cells are recognised, in a few languages.

A word decides only what the values do not contradict, and every guess is written down as one.
"""

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

from consilium.shared.study.dictionary import KNOWN

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "person": r"(patient|person|subject|proband|pat|pid|mrn|uniquep)(en)?"
        r"_?(id|nr|no|num(ber|mer)?)?"
        r"|schluessel|(patienten?|person(en)?|subject)_?(id|nr|no|num(ber|mer)|key|pseudonym)",
        "stay": r"(stay|admission|adm|hadm|encounter|enc|icustay|visit|case|fall|aufenthalts?"
        r"|patientunitstay)_?(id|nr|no|num(ber|mer)?)?",
        "start": r"(start|begin|beginn|admit(ted)?|admission|in|intime|aufnahme|arrival)"
        r"(_?(time|date|datetime|zeit|zeitpunkt|datum|at|dt))?|aufgenommen",
        "end": r"(end|ende|stop|discharged?|out|outtime|entlassung|departure)"
        r"(_?(time|date|datetime|zeit|zeitpunkt|datum|at|dt))?|entlassen",
        "birth": r"(birth|geburts?|dob|born)(_?(date|day|time|datum|tag))?|date_of_birth",
        "time": r"(time|datetime|date_?time|timestamp|date|zeit|zeitpunkt|datum|chart_?time|taken"
        r"|(measured|observed|recorded|sample|result|event|mess|abnahme|entnahme)_?"
        r"(at|time|date|datum|zeit(punkt)?)?)",
        "hours": r"(hours?|hrs|h|stunden?|minutes?|mins?|minuten?|days?|tage?|offset|t"
        r"|[a-z]+offset|.*(_|since_?)(hours?|hrs|h|minutes?|mins?|days?|offset)"
        r"|(hours?|minutes?|mins?|days?)_.*)",
        "variable": r"(variable|parameter|param|item(_?(id|name|label))?|test(_?name)?|analyte?"
        r"|code|concept(_?id)?|measurement|messgroesse|laborwert|bezeichnung|loinc|vital|lab"
        r"|signal|feature|(lab|item|test|vital)_?(name|label))",
        "value": r"(value|val|value_?num|(lab_?)?result|wert|ergebnis|messwert|reading|amount)"
        r"(_?(num|numeric|number))?",
        "unit": r"(unit|units|uom|value_?uom|einheit|unit_?(name|code)|lab_?measure_?name_?system)",
        "label": r"(label|outcome|target|y|died|death|dead|deceased|mortality|verstorben|gestorben"
        r"|tod|(hospital_?)?expire_?flag|(in_?)?hospital_?(death|mortality)|readmi(t|ssion|tted).*"
        r"|sepsis_?label|zielgroesse)",
        "weak label": r"(status|event|response|disease|diagnosis|class|category|krank|result)",
        "site": r"(site|hospital|klinik|clinic|cent(er|re)|zentrum|ward|unit_?type|station"
        r"|region|abteilung|department|lab(oratory)?|krankenhaus)(_?(id|nr|no|name|code))?",
        "split": r"(split|set|fold|partition|dataset)",
    }
)
"""A pattern for the plain form of a column's name, by the role that it suggests."""

_OF_HOURS: Mapping[str, str] = MappingProxyType(
    {"min": r"min(s|ute[sn]?)?", "h": r"(h|hrs|hours?|stunden?)", "d": r"(days?|tage?)"}
)
MISSING = (
    "",
    "na",
    "n/a",
    "nan",
    "null",
    "none",
    "nil",
    ".",
    "-",
    "--",
    "?",
    "unknown",
    "unbekannt",
)
_YES = "ja j y yes true oui si sí sim dead died deceased expired verstorben tot positive pos"
_NO = "nein n no false non nao não alive survived lebend lebt ueberlebt überlebt negative neg"
YES_NO: Mapping[str, float] = MappingProxyType(
    dict.fromkeys(_YES.split(), 1.0) | dict.fromkeys(_NO.split(), 0.0)
)
SEXES: Mapping[str, float] = MappingProxyType(
    dict.fromkeys(("m", "male", "man", "männlich", "maennlich", "mann"), 1.0)
    | dict.fromkeys(("f", "w", "female", "woman", "weiblich", "frau"), 0.0)
)
_OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "heartrate": "HR", "respiration": "RespRate",
        "heart rate": "HR", "pulse": "HR", "puls": "HR", "herzfrequenz": "HR", "hf": "HR",
        "sodium": "Na", "natrium": "Na", "potassium": "K", "kalium": "K", "magnesium": "Mg",
        "kreatinin": "Creatinine", "crea": "Creatinine", "krea": "Creatinine",
        "glukose": "Glucose", "blutzucker": "Glucose", "glu": "Glucose", "laktat": "Lactate",
        "temperature": "Temp", "temperatur": "Temp", "spo2": "SaO2", "o2sat": "SaO2",
        "leukocytes": "WBC", "leukozyten": "WBC", "thrombozyten": "Platelets",
        "platelet": "Platelets", "plt": "Platelets", "haematokrit": "HCT", "hematocrit": "HCT",
        "gewicht": "Weight", "weight": "Weight", "groesse": "Height", "respiratory rate":
        "RespRate", "resp": "RespRate", "atemfrequenz": "RespRate", "sbp": "SysABP",
        "dbp": "DiasABP", "bili": "Bilirubin", "bicarbonate": "HCO3", "alter": "Age",
        "sex": "Gender", "geschlecht": "Gender", "sexe": "Gender",
    }
)  # fmt: skip  # a table


def plain(name: str) -> str:
    """Return a name in lower case, umlauts spelt out, words joined by ``_``, without a unit."""
    text = re.sub(r"[\[(].*?[\])]", "", name)
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()
    for letter, spelt in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss")):
        text = text.replace(letter, spelt)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", text).strip("_")


def suggests(name: str, role: str) -> bool:
    """Return whether a column's name suggests a role."""
    return re.fullmatch(ROLES[role], plain(name)) is not None


def unit_of_hours(name: str) -> str | None:
    """Return min, h or d if a column's name says what it counts, else None."""
    words = plain(name).split("_")
    found = [u for u, p in _OF_HOURS.items() if any(re.fullmatch(p, word) for word in words)]
    return found[0] if len(found) == 1 else None


def unit_in(name: str) -> str | None:
    """Return what stands in brackets at the end of a name, such as ``mg/dL``."""
    found = re.search(r"[\[(]([^\[\]()]+)[\])]\s*$", name)
    if found is None and name.rstrip().endswith("]") and "(" not in name:
        found = re.search(r"\s\[?(\S+\[[^\]]+\])\]?\s*$", name)
    return found.group(1).strip() if found else None


def known_name(code: str) -> str | None:
    """Return the dictionary's name of a quantity, if a code or a column's name says it."""
    text = plain(code)
    spaced = text.replace("_", " ")
    for name, known in KNOWN.items():
        if code == known.loinc or code == str(known.omop):
            return name
        if spaced == plain(name).replace("_", " ") or spaced == plain(known.title).replace(
            "_", " "
        ):
            return name
        if text.replace("_", "") == name.lower():
            return name
    return _OTHER_NAMES.get(spaced)
