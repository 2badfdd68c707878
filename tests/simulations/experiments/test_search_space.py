"""A search space is checked as it is read, and what is drawn of it depends on seed and number."""

from pathlib import Path

import pytest

from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import load_study
from consilium.simulations.experiments.search_space import (
    Range,
    candidates,
    changed,
    plain,
    read_space,
    space_of,
    usual_space,
)
from tests.simulations.api.small_hospitals import study

STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.toml"))
SPACE = {
    "model": {"hidden": {"low": 2, "high": 9}, "cell": ["gru", "lstm", "rnn"]},
    "training": {"learning_rate": {"low": 0.01, "high": 1.0, "scale": "log"}},
    "study": {"rounds": [1, 2, 3]},
}


def test_the_studys_own_settings_come_first_and_none_twice() -> None:
    found = candidates(study(), space_of(SPACE, where="x"), number=12, seed=4)
    assert found[0].study == study()
    assert found[0].changes == {}
    assert len({one.study.digest for one in found}) == 12
    for one in found:
        assert changed(study(), one.changes) == one.study
        assert 2 <= one.study.model.hidden <= 9
        assert 0.01 <= one.study.training.learning_rate <= 1.0
        before = study().model_dump()
        for (table, key), value in one.changes.items():
            assert plain((before if table == "study" else before[table])[key]) != plain(value)


def test_a_longer_search_goes_on_where_a_shorter_one_ended() -> None:
    space = space_of(SPACE, where="x")
    short, long = (candidates(study(), space, number=n, seed=4) for n in (3, 6))
    assert [one.study.digest for one in long[:3]] == [one.study.digest for one in short]
    other = candidates(study(), space, number=3, seed=5)
    assert [one.study.digest for one in other] != [one.study.digest for one in short]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_has_a_usual_space(path: Path) -> None:
    loaded = load_study(path)
    space = usual_space(loaded)
    assert ("study", "rounds") in space
    assert (("training", "learning_rate") in space) == (loaded.privacy.mode != "distributed")
    for (table, key), values in space.items():
        ends = (values.low, values.high) if isinstance(values, Range) else values[:1]
        now = loaded.rounds if table == "study" else getattr(getattr(loaded, table), key)
        if isinstance(values, Range):
            assert ends[0] < now < ends[1]


def test_branches_take_the_place_of_the_single_networks_keys() -> None:
    space = {("model", "branches"): (({"kind": "linear"},),), ("model", "hidden"): (7, 8)}
    one = next(c for c in candidates(study(), space, number=4, seed=1) if c.study.model.branches)
    assert [branch.kind for branch in one.study.model.branches] == ["linear"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "names no setting"),
        ({"data": {"window_h": [3]}}, "'data' is not one of the tables that may be searched"),
        ({"rounds": [3]}, "rounds stands in"),
        ({"privacy": {"epsilon": [1.0, 8.0]}}, r"\[privacy\] epsilon may not be searched"),
        ({"model": {"hidden": 8}}, "must be a list of values, or a table"),
        ({"model": {"hidden": []}}, "must be a list of values, or a table"),
        ({"model": {"hidden": {"low": 1}}}, "must be a list of values, or a table"),
        ({"model": {"hidden": {"low": 9, "high": 2}}}, "low 9 must be below high 2"),
        ({"model": {"dropout": {"low": 0, "high": 1, "scale": "log"}}}, "low above 0"),
    ],
)
def test_a_space_that_is_none_is_refused_in_a_sentence(content, told) -> None:
    with pytest.raises(SettingsError, match=told):
        space_of(content, where="x")


def test_a_space_is_a_file_of_the_studys_tables(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text("[model]\nhidden = [4, 8]\n[study]\nrounds = { low = 1, high = 9 }\n")
    assert read_space(path) == {
        ("model", "hidden"): (4, 8),
        ("study", "rounds"): Range(low=1, high=9, whole=True),
    }
    path.write_text("[model\n")
    with pytest.raises(SettingsError, match="is not valid TOML"):
        read_space(path)


def test_a_space_of_too_few_valid_settings_says_why() -> None:
    with pytest.raises(SettingsError, match=r"number 2 that is valid and new.*hidden"):
        candidates(study(), {("model", "hidden"): (-1,)}, number=2, seed=1)
    with pytest.raises(SettingsError, match="number 3 that is valid and new"):
        candidates(study(), {("model", "hidden"): (3, 4)}, number=3, seed=1)
