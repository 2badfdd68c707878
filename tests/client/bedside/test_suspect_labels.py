"""The labels that a model doubts most: wrong ones come first, and the list is for one account."""

import csv
import stat
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from consilium.client.bedside import suspect_labels
from consilium.client.bedside.suspect_labels import COLUMNS, suspects
from consilium.client.cli import app
from consilium.client.sources.common.source import Patient, Stay
from consilium.shared.errors import DataError
from consilium.shared.export.signed_model import write_signed_model
from consilium.shared.study.definition import Study, with_changes
from tests.client.site_folders import COORDINATOR, enrolled
from tests.client.sources import cohort_formats as formats
from tests.signed_models import some_trained
from tests.study_text import small_study

STUDY = small_study(model={"cell": "gru", "hidden": 4})


def patient(name: str, *labels: object, study: Study = STUDY) -> Patient:
    stays = tuple(
        Stay(
            stay_id=f"{name}-{number}",
            hours_E=np.array([0, 1], np.float32),
            variable_E=np.zeros(2, np.int16),
            value_E=np.array([80, 90], np.float32),
            label=label,
        )
        for number, label in enumerate(labels)
    )
    return Patient(patient_id=name, stays=stays)


@pytest.mark.parametrize("at_once", [1, 512])
def test_the_rarer_the_model_thinks_a_label_the_higher_it_stands(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspect_labels, "PATIENTS_AT_ONCE", at_once)
    trained = some_trained(STUDY)
    given = [patient("a", 1.0, 0.0), patient("b", float("nan")), patient("c", 0.0)]
    found, read = suspects(trained, given, ("death",), most=10)
    assert read == 3  # the stay without a label is in no list
    risk = found[0].predicted
    doubts = {one.stay_id: one.doubt for one in found}
    assert doubts == pytest.approx({"a-0": 1 - risk, "a-1": risk, "c-0": risk})
    assert [one.doubt for one in found] == sorted(doubts.values(), reverse=True)
    assert suspects(trained, given, ("death",), most=1)[0] == found[:1]


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ({"kind": "multiclass", "outputs": 3}, 2.0),
        ({"kind": "multilabel", "outputs": 2}, np.array([1, np.nan], np.float32)),
        ({"kind": "regression", "outputs": 1, "spread": 1.0}, 4.5),
        ({"kind": "binary", "per_step": True}, None),
    ],
)
def test_every_kind_of_label_has_a_doubt(task: dict[str, object], label: object) -> None:
    labels = {"label": "death+sepsis"} if task["kind"] == "multilabel" else {}
    study = with_changes(STUDY, task=task, data=labels)
    if label is None:
        label = np.full(study.data.steps, np.nan, np.float32)
        label[:2] = 1
    (one,), read = suspects(some_trained(study), [patient("a", label)], ("x", "y"), most=5)
    assert read == 1
    assert one.output == "x"
    assert one.label == np.nanmax(label)
    assert one.doubt == pytest.approx(1.0) if task["kind"] == "regression" else 0 < one.doubt < 1
    assert "a" not in repr(one).replace("Suspect", "")


def test_labels_turned_against_the_model_stand_first() -> None:
    trained = some_trained(STUDY)
    (one,), _ = suspects(trained, [patient("p", 0.0)], ("death",), most=1)
    likely = float(one.predicted > 0.5)
    wrong = {"p03", "p17", "p29"}
    names = [f"p{number:02d}" for number in range(40)]
    given = [patient(name, 1 - likely if name in wrong else likely) for name in names]
    listed, _ = suspects(trained, given, ("death",), most=3)
    assert {one.patient_id for one in listed} == wrong


def test_without_any_label_there_is_nothing_to_doubt() -> None:
    with pytest.raises(DataError, match="no stay has a label that could be doubted"):
        suspects(some_trained(STUDY), [patient("a", float("nan"))], ("death",), most=3)


def test_a_site_lists_them_for_its_own_account_and_shows_none(tmp_path: Path) -> None:
    study = with_changes(formats.STUDY, data={"source": "hospital"})
    site = enrolled(tmp_path / "site").path
    (tmp_path / "records").mkdir()
    text = formats.write_tables(formats.written(12), tmp_path / "records", "csv")
    settings = "[data]\n" + text.replace("[[events", "[[data.events").replace(
        "\n[stays", "\n[data.stays").replace("\n[variables", "\n[data.variables")  # fmt: skip
    (tmp_path / "records" / "site.toml").write_text(settings)
    trained = some_trained(study)
    write_signed_model(
        tmp_path / "m", trained, COORDINATOR, simulated=False, rounds=1, epsilon=None
    )
    out = tmp_path / "doubted.csv"
    result = CliRunner().invoke(
        app,
        ["suspect-labels", str(tmp_path / "m"), "--out", str(out), "--number", "5", "-f", str(site),
         "--settings", str(tmp_path / "records" / "site.toml")],
    )  # fmt: skip  # reads as one command
    assert result.exit_code == 0, result.output + str(result.exception)
    assert "the 5 of 12 stays" in result.output
    rows = list(csv.DictReader(out.open()))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 5
    assert not any(row["stay"] in result.output for row in rows)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
