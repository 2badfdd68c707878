"""A chosen study keeps its file's comments where it can, and is the study meant in any case."""

from pathlib import Path

import pytest

from consilium.shared.study.definition import load_study, parse_study
from consilium.simulations.experiments.search_space import changed
from consilium.simulations.runs.study_text import study_text
from tests.simulations.api.small_hospitals import TEXT, study

STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.toml"))
COMMENTED = TEXT.replace("hidden = 4", "hidden = 4  # few # patients").replace(
    "rounds = 1", "# one round\nrounds = 1"
)
CHANGES = {
    ("model", "hidden"): 7,
    ("model", "cell"): "gru",
    ("study", "rounds"): 9,
    ("aggregation", "server_learning_rate"): 0.25,
}


def test_changed_keys_are_set_in_their_tables_and_comments_stay() -> None:
    meant = changed(study(), CHANGES)
    text = study_text(study(), CHANGES, meant, COMMENTED, "chosen\nby tune")
    assert parse_study(text).digest == meant.digest
    assert text.startswith("# chosen by tune\n")
    assert "# one round\nrounds = 9\n" in text
    assert "hidden = 7  # few # patients\n" in text
    assert '[model]\ncell = "gru"\n' in text
    assert "[aggregation]\nserver_learning_rate = 0.25\n" in text


def test_what_cannot_be_set_in_a_line_is_written_anew() -> None:
    branches = {("model", "branches"): ({"kind": "linear"},), ("model", "hidden"): 32}
    meant = changed(study(), branches)
    for text in (COMMENTED, None, COMMENTED.replace("HR =", "BP =")):
        written = study_text(study(), branches, meant, text, "about")
        assert parse_study(written).digest == meant.digest
    odd = COMMENTED.replace("hidden = 4", "hidden = 4_0")
    wide = parse_study(odd)
    assert "hidden = 7" in study_text(wide, {("model", "hidden"): 7},
                                      changed(wide, {("model", "hidden"): 7}), odd, "")  # fmt: skip


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_can_be_written_with_its_comments_and_without(path: Path) -> None:
    loaded, text = load_study(path), path.read_text()
    changes = {("study", "rounds"): loaded.rounds + 1, ("training", "weight_decay"): 0.125}
    meant = changed(loaded, changes)
    kept = study_text(loaded, changes, meant, text, "about")
    assert parse_study(kept).digest == meant.digest
    assert kept.count("#") == text.count("#") + 1
    assert parse_study(study_text(loaded, changes, meant, None, "x")).digest == meant.digest
