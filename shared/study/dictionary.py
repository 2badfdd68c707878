"""Measured quantities: how a study declares one, and a dictionary of forty of intensive care.

A study may name a variable of the dictionary by its name alone and gets the whole declaration.

Names are those of the PhysioNet/Computing in Cardiology Challenge 2012 (Silva et al., Comput
Cardiol 2012;39:245-248), units are UCUM. The challenge prints magnesium in mmol/L, but its values
(median 2) can only be mg/dL, so mg/dL it is. ``low`` and ``high`` bound what can be true of a
living adult; a value outside is an artefact or a slip of unit. ``center`` and ``spread`` are round
numbers set by judgement, not estimated from a data set: they lie between the reference interval
(Kratz et al., N Engl J Med 2004;351:1548-1563) and the derangements that APACHE II scores (Knaus
et al., Crit Care Med 1985;13:818-829). Being public they cost no privacy; the federated statistics
(:mod:`consilium.shared.model.normalisation`) correct them.

LOINC codes and OMOP concept identifiers follow the human-curated concept maps of MIMIC-IV
(MIT-LCP/mimic-code) and of OHDSI/MIMIC, for the coma score the data dictionary of INDICATE
(indicate-eu); None where they give no certain code. OMOP keeps age and sex in its table of persons,
so they have no measurement concept; ventilation has no LOINC code for a number, and its OMOP
concept is a procedure.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from consilium.shared.files.strict_toml import StrictTable

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Variable(StrictTable):
    """A measured quantity, its unit, and the range in which a value is believed.

    ``center`` and ``spread`` are public reference values (literature, not patients): the typical
    value in ``unit``, and the typical standard deviation, in ``unit`` when ``scale`` is linear and
    of the natural logarithm of the value when it is ``log``.
    """

    unit: str = Field(max_length=32)
    low: Finite
    high: Finite
    center: Finite
    spread: Positive
    scale: Literal["linear", "log"] = "linear"
    role: Literal["series", "static"] = "series"

    @model_validator(mode="after")
    def _range_holds_center(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if not self.low <= self.center <= self.high:
            raise ValueError(f"center {self.center:g} must lie in {self.low:g} to {self.high:g}")
        if self.scale == "log" and self.center <= 0:
            raise ValueError(f"center {self.center:g} must be above 0 on a log scale")
        return self


@dataclass(frozen=True)
class KnownVariable:
    """One entry of the dictionary: what it is, how a study declares it, and its codes."""

    title: str
    declaration: Variable
    loinc: str | None
    omop: int | None


def _linear(
    title: str,
    unit: str,
    bounds: tuple[float, float],
    typical: tuple[float, float],
    loinc: str | None = None,
    omop: int | None = None,
    scale: Literal["linear", "log"] = "linear",
) -> KnownVariable:
    (low, high), (center, spread) = bounds, typical
    declaration = Variable(unit=unit, low=low, high=high, center=center, spread=spread, scale=scale)
    return KnownVariable(title, declaration, loinc, omop)


_skewed = partial(_linear, scale="log")
"""A right-skewed quantity; the spread is of its natural logarithm."""


def _static(known: KnownVariable) -> KnownVariable:
    declaration = known.declaration.model_copy(update={"role": "static"})
    return KnownVariable(known.title, declaration, known.loinc, known.omop)


KNOWN: Mapping[str, KnownVariable] = MappingProxyType(
    {
        "HR": _linear("heart rate", "/min", (10, 300), (85, 18), "8867-4", 3027018),
        "SysABP": _linear(
            "systolic arterial pressure", "mm[Hg]", (20, 300), (120, 22), "8480-6", 3004249
        ),
        "DiasABP": _linear(
            "diastolic arterial pressure", "mm[Hg]", (10, 200), (60, 12), "8462-4", 3012888
        ),
        "MAP": _linear("mean arterial pressure", "mm[Hg]", (15, 250), (80, 15), "8478-0", 3027598),
        "NISysABP": _linear(
            "systolic cuff pressure", "mm[Hg]", (20, 300), (120, 22), "76534-7", 21492239
        ),
        "NIDiasABP": _linear(
            "diastolic cuff pressure", "mm[Hg]", (10, 200), (60, 14), "76535-4", 21492240
        ),
        "NIMAP": _linear("mean cuff pressure", "mm[Hg]", (15, 250), (80, 15), "76536-2", 21492241),
        "RespRate": _linear("respiratory rate", "/min", (2, 80), (19, 5.5), "9279-1", 3024171),
        "Temp": _linear("body temperature", "Cel", (25, 45), (37, 0.8), "8310-5", 3020891),
        "SaO2": _linear("arterial oxygen saturation", "%", (30, 100), (97, 3), "2708-6", 3016502),
        "GCS": _linear("Glasgow coma score", "{score}", (3, 15), (12, 4), "9269-2", 3007194),
        "FiO2": _linear("inspired oxygen", "1", (0.21, 1), (0.5, 0.2), "3150-0", 3020716),
        "MechVent": _linear("mechanical ventilation", "1", (0, 1), (0, 1), None, 4230167),
        "Urine": _linear("urine output", "mL", (0, 5000), (110, 130), "9187-6", 3014315),
        "Weight": _linear("body weight", "kg", (20, 400), (80, 22), "29463-7", 3025315),
        "pH": _linear("arterial pH", "[pH]", (6.5, 8), (7.38, 0.08), "2744-1", 3019977),
        "PaO2": _skewed("arterial oxygen", "mm[Hg]", (10, 700), (120, 0.5), "2703-7", 3027801),
        "PaCO2": _skewed(
            "arterial carbon dioxide", "mm[Hg]", (5, 200), (40, 0.22), "2019-8", 3027946
        ),
        "Lactate": _skewed("lactate", "mmol/L", (0.1, 40), (1.8, 0.6), "32693-4", 3047181),
        "HCO3": _linear("bicarbonate", "mmol/L", (2, 60), (23.5, 4.5), "1963-8", 3016293),
        "Na": _linear("sodium", "mmol/L", (80, 200), (139, 5), "2951-2", 3019550),
        "K": _skewed("potassium", "mmol/L", (1, 15), (4.1, 0.15), "2823-3", 3023103),
        "Mg": _skewed("magnesium", "mg/dL", (0.2, 20), (1.9, 0.2), "19123-9", 3001420),
        "Glucose": _skewed("glucose", "mg/dL", (10, 2000), (130, 0.35), "2345-7", 3004501),
        "BUN": _skewed("urea nitrogen", "mg/dL", (1, 300), (21, 0.7), "3094-0", 3013682),
        "Creatinine": _skewed("creatinine", "mg/dL", (0.05, 40), (1.1, 0.6), "2160-0", 3016723),
        "HCT": _linear("hematocrit", "%", (5, 75), (31, 5), "4544-3", 3023314),
        "Platelets": _skewed("platelets", "10*3/uL", (1, 2000), (190, 0.55), "777-3", 3024929),
        "WBC": _skewed("leukocytes", "10*3/uL", (0.05, 500), (11, 0.5), "6690-2", 3000905),
        "Albumin": _linear("albumin", "g/dL", (0.5, 8), (3, 0.65), "1751-7", 3024561),
        "ALP": _skewed("alkaline phosphatase", "U/L", (1, 5000), (85, 0.6), "6768-6", 3035995),
        "ALT": _skewed("alanine transaminase", "U/L", (1, 20000), (40, 1.3), "1742-6", 3006923),
        "AST": _skewed("aspartate transaminase", "U/L", (1, 40000), (55, 1.3), "1920-8", 3013721),
        "Bilirubin": _skewed("total bilirubin", "mg/dL", (0.05, 80), (0.9, 1.1), "1975-2", 3024128),
        "Cholesterol": _skewed("cholesterol", "mg/dL", (20, 1000), (155, 0.3), "2093-3", 3027114),
        "TroponinI": _skewed("troponin I", "ug/L", (0.005, 500), (1.5, 1.5), "10839-9", 3021337),
        "TroponinT": _skewed("troponin T", "ug/L", (0.003, 100), (0.15, 1.6), "6598-7", 3019800),
        "Age": _static(_linear("age", "a", (15, 120), (64, 17), "30525-0")),
        "Gender": _static(_linear("male (1) or female (0)", "1", (0, 1), (0.5, 0.5), "46098-0")),
        "Height": _static(_linear("body height", "cm", (120, 230), (170, 11), "8302-2", 3036277)),
    }
)


def completed(variables: object) -> object:
    """Fill in from the dictionary what a study leaves out of its ``[variables]``.

    A list of names asks for the dictionary's declarations as they are. In a table an entry of the
    dictionary may leave keys out, ``HR = {}`` all of them, and may change others, say its role; but
    bounds are numbers in a unit on a scale, so an entry that changes either gets nothing filled in.

    Raises:
        ValueError: a list names what the dictionary does not have, or one name twice.
    """
    if isinstance(variables, list) and all(isinstance(name, str) for name in variables):
        for name in variables:
            if name not in KNOWN:
                near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.0)[0]
                raise ValueError(
                    f"{name!r} is not in the dictionary of variables; did you mean {near!r}? Or "
                    f"declare its unit, low, high, center and spread in a table [variables.{name}]"
                )
            if variables.count(name) > 1:
                raise ValueError(f"names {name!r} twice; remove the repetition")
        return {name: _filled(name, {}) for name in variables}
    if not isinstance(variables, dict):
        return variables
    return {name: _filled(name, given) for name, given in variables.items()}


def _filled(name: str, given: Any) -> Any:
    if not isinstance(given, dict) or name not in KNOWN:
        return given
    known = KNOWN[name].declaration.model_dump()
    if any(given.get(key, known[key]) != known[key] for key in ("unit", "scale")):
        return given
    return {**known, **given}
