from pathlib import Path

import pytest

from shared.study import load_study
from shared.variables import KNOWN, feature_names, series_names, static_names

STUDIES = Path(__file__).parents[2] / "studies"


def test_dictionary_holds_forty_variables() -> None:
    assert len(KNOWN) == 40


def test_loinc_codes_have_a_right_check_digit_and_are_unique() -> None:
    codes = [known.loinc for known in KNOWN.values() if known.loinc]
    assert len(set(codes)) == len(codes)
    for code in codes:
        number, digit = code.split("-")
        odd = int(number[::-1][0::2][::-1]) * 2  # Luhn, as LOINC defines it (mod 10)
        total = sum(map(int, number[::-1][1::2] + str(odd)))
        assert (10 - total % 10) % 10 == int(digit), code


def test_omop_concepts_are_unique() -> None:
    concepts = [known.omop for known in KNOWN.values() if known.omop]
    assert len(set(concepts)) == len(concepts)


@pytest.mark.parametrize("name", ["demo", "icu-mortality-2012"])
def test_example_studies_declare_variables_as_the_dictionary_does(name: str) -> None:
    study = load_study(STUDIES / f"{name}.toml")
    for variable, spec in study.variables.items():
        if variable in KNOWN:
            assert spec.model_copy(update={"role": "series"}) == KNOWN[
                variable
            ].declaration.model_copy(update={"role": "series"})


def test_feature_names_are_unique_and_count_six_a_series_and_two_a_static_variable() -> None:
    study = load_study(STUDIES / "demo.toml")
    names = feature_names(study)
    assert len(set(names)) == len(names)
    assert len(names) == 6 * len(series_names(study)) + 2 * len(static_names(study))


def test_feature_names_follow_the_order_of_the_variables() -> None:
    study = load_study(STUDIES / "demo.toml")
    reversed_study = study.model_copy(update={"variables": dict(reversed(study.variables.items()))})
    assert series_names(reversed_study) == tuple(reversed(series_names(study)))
    assert feature_names(reversed_study)[0] == series_names(study)[-1]
