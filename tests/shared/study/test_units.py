"""Units convert exactly or not at all; reference figures are those laboratories print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.shared.study.dictionary import KNOWN
from consilium.shared.study.units import SUBSTANCES, UnitError, conversion, is_unit, parse_unit


@pytest.mark.parametrize(
    ("variable", "value", "given_unit", "wanted", "expected"),
    [
        ("Glucose", 5.0, "mmol/L", "mg/dL", 90.08),
        ("Creatinine", 88.4, "umol/L", "mg/dL", 1.0),
        ("BUN", 7.14, "mmol/L", "mg/dL", 20.0),
        ("Bilirubin", 17.1, "umol/L", "mg/dL", 1.0),
        ("Cholesterol", 5.17, "mmol/L", "mg/dL", 199.9),
        ("Lactate", 9.008, "mg/dL", "mmol/L", 1.0),
        ("Mg", 1.0, "mmol/L", "mg/dL", 2.4305),
        ("Mg", 2.0, "meq/L", "mmol/L", 1.0),
        ("Na", 140.0, "meq/L", "mmol/L", 140.0),
        ("Temp", 98.6, "[degF]", "Cel", 37.0),
        ("Temp", 310.15, "K", "Cel", 37.0),
        ("Temp", 37.0, "Cel", "[degF]", 98.6),
        ("FiO2", 40.0, "%", "1", 0.4),
        ("HCT", 0.41, "L/L", "%", 41.0),
        ("WBC", 7.5, "10*9/L", "10*3/uL", 7.5),
        ("WBC", 7500.0, "/uL", "10*3/uL", 7.5),
        ("PaO2", 13.3322, "kPa", "mm[Hg]", 100.0),
        ("CVP", 13.5951, "cm[H2O]", "mm[Hg]", 10.0),
        ("Albumin", 41.0, "g/L", "g/dL", 4.1),
        ("ALT", 0.5, "ukat/L", "U/L", 30.0),
        ("ALT", 40.0, "[IU]/L", "U/L", 40.0),
        ("TroponinI", 40.0, "ng/L", "ug/L", 0.04),
        ("TroponinI", 0.04, "ng/mL", "ug/L", 0.04),
        ("Weight", 176.37, "[lb_av]", "kg", 80.0),
        ("Height", 70.0, "[in_i]", "cm", 177.8),
        ("Age", 12.0, "mo", "a", 1.0),
        ("HR", 80.0, "{beats}/min", "/min", 80.0),
        ("HR", 80.0, "1/min", "/min", 80.0),
        ("GCS", 15.0, "1", "{score}", 15.0),
        ("Urine", 1.2, "L", "mL", 1200.0),
    ],
)
def test_laboratory_figures(
    variable: str, value: float, given_unit: str, wanted: str, expected: float
) -> None:
    convert = conversion(given_unit, wanted, variable=variable, substance=SUBSTANCES.get(variable))
    assert convert(value) == pytest.approx(expected, rel=1e-3)


UNITS = {
    "Glucose": ("mg/dL", "mmol/L", "g/L", "umol/L"),
    "Mg": ("mg/dL", "mmol/L", "meq/L"),
    "Temp": ("Cel", "[degF]", "K"),
    "PaO2": ("mm[Hg]", "kPa", "mbar", "cm[H2O]"),
    "ALT": ("U/L", "[IU]/L", "nkat/L"),
}


@given(
    st.sampled_from([(v, a, b) for v, units in UNITS.items() for a in units for b in units]),
    st.floats(0.01, 1e4),
)
def test_converting_there_and_back_returns_the_value(
    case: tuple[str, str, str], value: float
) -> None:
    variable, one, other = case
    substance = SUBSTANCES.get(variable)
    there = conversion(one, other, substance=substance)
    back = conversion(other, one, substance=substance)
    assert back(there(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("given_unit", "wanted", "variable", "reason"),
    [
        ("mmol/L", "mg/dL", "Albumin", "molar mass is needed"),
        ("mm[Hg]", "mg/dL", "Glucose", "measure different things"),
        ("Cel", "%", "Temp", "measure different things"),
        ("[IU]/L", "mg/dL", "X", "measure different things"),
        ("[pH]", "1", "pH", "measure different things"),
        ("mol", "eq", "X", "molar mass is needed"),
        ("eq/L", "mmol/L", "Glucose", "measure different things"),
        ("furlong", "cm", "Height", "not a known UCUM code"),
    ],
)
def test_what_measures_something_else_is_refused(
    given_unit: str, wanted: str, variable: str, reason: str
) -> None:
    with pytest.raises(UnitError, match=reason) as caught:
        conversion(given_unit, wanted, variable=variable, substance=SUBSTANCES.get(variable))
    assert variable in str(caught.value)


@pytest.mark.parametrize(
    "code",
    ["", " ", "mg//dL", "mg/", "MG/DL", "mgdL", "mg dL", "Cel/min", "mCel", "10*99", "g10",
     "{", "}", "[", "m[Hg", "mm[Hg]]", "/", ".", "1" * 65, "kmin", "Cel2", "g0"],
)  # fmt: skip  # reads as one list
def test_codes_that_are_not_ucum_are_refused(code: str) -> None:
    assert not is_unit(code)
    with pytest.raises(UnitError, match="unit"):
        parse_unit(code)


@given(st.text(max_size=80))
def test_any_text_is_a_unit_or_refused_in_one_sentence(code: str) -> None:
    if is_unit(code):
        assert parse_unit(code).factor > 0
    else:
        with pytest.raises(UnitError, match="unit"):
            parse_unit(code)


def test_synonyms_mean_their_ucum_code() -> None:
    for local, code in (("mmHg", "mm[Hg]"), ("µmol/L", "umol/L"), ("K/uL", "10*9/L")):
        assert parse_unit(local).exponents == parse_unit(code).exponents
        assert conversion(local, code)(1.0) == 1.0


def test_every_unit_of_the_dictionary_is_known() -> None:
    for name, known in KNOWN.items():
        assert is_unit(known.declaration.unit), name


def test_molar_masses_belong_to_variables_of_the_dictionary() -> None:
    assert set(SUBSTANCES) <= set(KNOWN)
