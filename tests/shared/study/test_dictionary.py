from pathlib import Path

import pytest

from consilium.shared.errors import StudyError
from consilium.shared.study.definition import Study, load_study, parse_study
from consilium.shared.study.dictionary import KNOWN
from consilium.shared.study.units import SUBSTANCES, conversion

STUDIES = Path(__file__).parents[3] / "studies"
HEAD = """
name = "small"
title = "Small"
rounds = 3
sites = ["a", "b", "c", "d"]
"""
DATA = '\n[data]\nsource = "physionet2012"\nlabel = "death"\n'


def study_of(table: str) -> Study:
    return parse_study(f"{HEAD}{DATA}[variables]\n{table}\n")


def test_dictionary_holds_forty_variables() -> None:
    assert len(KNOWN) == 40


def test_loinc_codes_have_a_right_check_digit_and_are_unique() -> None:
    codes = [known.loinc for known in KNOWN.values() if known.loinc]
    assert len(codes) == 39  # a number does not say how one is ventilated
    assert len(set(codes)) == len(codes)
    for code in codes:
        number, digit = code.split("-")
        odd = int(number[::-1][0::2][::-1]) * 2  # Luhn, as LOINC defines it (mod 10)
        total = sum(map(int, number[::-1][1::2] + str(odd)))
        assert (10 - total % 10) % 10 == int(digit), code


def test_omop_concepts_are_unique_and_missing_only_for_what_omop_keeps_with_the_person() -> None:
    concepts = {name: known.omop for name, known in KNOWN.items() if known.omop}
    assert len(set(concepts.values())) == len(concepts)
    assert set(KNOWN) - set(concepts) == {"Age", "Gender"}


OWN_SCALE = {("icu-mortality-2012", "Urine")}  # read as a logarithm there; decision 145


@pytest.mark.parametrize("name", ["demo", "icu-mortality-2012"])
def test_example_studies_declare_variables_as_the_dictionary_does(name: str) -> None:
    study = load_study(STUDIES / f"{name}.toml")
    for variable, spec in study.variables.items():
        if variable in KNOWN:
            free = {"role": "series"}
            if (name, variable) in OWN_SCALE:
                free |= {"center": spec.center, "spread": spec.spread, "scale": spec.scale}
            known = KNOWN[variable].declaration
            assert spec.model_copy(update={"role": "series"}) == known.model_copy(update=free)


@pytest.mark.parametrize(
    ("name", "unit", "value", "expected"),
    [
        ("Temp", "[degF]", 98.6, 37.0),
        ("Glucose", "mmol/L", 5.5, 99.1),
        ("Creatinine", "umol/L", 88.4, 1.0),
        ("BUN", "mmol/L", 7.14, 20.0),
        ("Bilirubin", "umol/L", 17.1, 1.0),
        ("Cholesterol", "mmol/L", 4.0, 154.7),
        ("Lactate", "mg/dL", 9.008, 1.0),
        ("Mg", "mmol/L", 0.8, 1.944),
        ("K", "meq/L", 4.1, 4.1),
        ("Na", "meq/L", 140.0, 140.0),
        ("FiO2", "%", 40.0, 0.4),
        ("Albumin", "g/L", 35.0, 3.5),
        ("PaCO2", "kPa", 5.3329, 40.0),
        ("TroponinT", "ng/mL", 0.15, 0.15),
        ("TroponinI", "ng/L", 40.0, 0.04),
        ("Platelets", "10*9/L", 190.0, 190.0),
        ("Weight", "[lb_av]", 176.37, 80.0),
        ("Height", "[in_i]", 70.0, 177.8),
        ("Age", "mo", 768.0, 64.0),
        ("Urine", "L", 0.11, 110.0),
    ],
)
def test_what_hospitals_write_converts_to_the_unit_of_the_dictionary(
    name: str, unit: str, value: float, expected: float
) -> None:
    convert = conversion(unit, KNOWN[name].declaration.unit, substance=SUBSTANCES.get(name))
    assert convert(value) == pytest.approx(expected, rel=1e-3)


def test_a_study_that_names_variables_alone_is_the_study_that_declares_them() -> None:
    listed = parse_study(f'{HEAD}variables = ["HR", "Age"]\n{DATA}')
    assert listed.variables == {name: KNOWN[name].declaration for name in ("HR", "Age")}
    assert study_of("HR = {}\nAge = {}").digest == listed.digest
    spelled = 'HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }\nAge = {}'
    assert study_of(spelled).digest == listed.digest


def test_a_study_may_change_what_the_dictionary_says_of_a_variable() -> None:
    changed = study_of('Weight = { role = "static", high = 250 }').variables["Weight"]
    assert (changed.role, changed.high) == ("static", 250)
    assert changed.unit == KNOWN["Weight"].declaration.unit


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('Glucose = { unit = "mmol/L" }', "[variables.Glucose] low is missing; add it"),
        ('K = { scale = "linear" }', "[variables.K] unit is missing; add it"),
        ("Interleukin = {}", "[variables.Interleukin] unit is missing; add it"),
        ("HR = 3", "[variables] HR"),
    ],
)
def test_bounds_in_another_unit_or_scale_are_never_filled_in(table: str, sentence: str) -> None:
    with pytest.raises(StudyError) as caught:
        study_of(table)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ('["HR", "Glukose"]', "'Glukose' is not in the dictionary of variables; did you mean "
         "'Glucose'?"),
        ('["HR", "HR"]', "names 'HR' twice; remove the repetition"),
        ("[]", "variables"),
        ("[1]", "variables"),
        ("3", "variables"),
    ],
)  # fmt: skip  # the broken sentence reads as one
def test_a_list_of_names_that_are_not_known_is_refused(names: str, sentence: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(f"{HEAD}variables = {names}\n{DATA}")
    assert sentence in str(caught.value)
