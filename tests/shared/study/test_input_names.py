from pathlib import Path

from consilium.shared.study.definition import load_study
from consilium.shared.study.input_names import feature_names, series_names, static_names

STUDIES = Path(__file__).parents[3] / "studies"


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
