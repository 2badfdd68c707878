"""Predictions for a site's stays: the scores of its model on its records, in a file of its own."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from consilium.client.bedside.prediction import StayScores, predict_patients
from consilium.client.cli import app
from consilium.client.hospital.settings import SiteSettings
from consilium.client.records.features import to_grid, to_tensors
from consilium.client.round.predictions import predict
from consilium.shared.study.definition import with_changes
from tests.client.commands.test_site_records import site
from tests.client.sources.test_damaged_files import FORMATS
from tests.signed_models import KEY, some_trained, written


def run(model: Path, out: Path, *arguments: str | Path) -> tuple[int, str]:
    told = ["predict", model, "--signer", KEY.public.hex(), "--out", out, *arguments]
    result = CliRunner().invoke(app, list(map(str, told)))
    return result.exit_code, result.output + str(result.exception or "")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_a_site_scores_the_stays_of_every_source_as_training_would(
    name: str, tmp_path: Path
) -> None:
    study = FORMATS[name].study
    folder = site(tmp_path / "site", name)
    trained = written(tmp_path / "model", study)
    out = tmp_path / "out" / "scores.jsonl"
    code, told = run(tmp_path / "model", out, "--settings", folder / "site.toml")
    assert code == 0, told
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    source = SiteSettings.read(folder).open_source(folder, study)
    patients = list(source.read_patients(study))
    inputs = to_tensors(to_grid(patients, study), trained.normalisation, study)
    expected = predict(trained.model, inputs.x_NTF, inputs.mask_NT)
    if study.task.per_step:
        expected = expected[inputs.mask_NT.numpy()]
    scores = np.array([[output["value"] for output in row["outputs"]] for row in rows])
    assert scores.shape == expected.shape
    assert scores == pytest.approx(expected, abs=1e-6)
    stays = [(p.patient_id, stay.stay_id) for p in patients for stay in p.stays]
    assert list(dict.fromkeys((row["patient"], row["stay"]) for row in rows)) == stays
    assert out.stat().st_mode & 0o777 == 0o600


def challenge(tmp_path: Path) -> tuple[Path, Path]:
    study = FORMATS["physionet2012"].study
    written(tmp_path / "model", study)
    return tmp_path / "model", site(tmp_path / "site", "physionet2012")


def test_stays_whose_outcome_nobody_knows_are_scored_alike(tmp_path: Path) -> None:
    model, folder = challenge(tmp_path)
    out = tmp_path / "scores.csv"
    assert run(model, out, "--data", folder / "records")[0] == 0
    known = out.read_text()
    (folder / "records" / "Outcomes-a.txt").unlink()
    code, told = run(model, out, "--data", folder / "records")
    assert code == 0, told
    assert out.read_text() == known
    (row, *_) = csv.DictReader(out.open())
    name = FORMATS["physionet2012"].study.data.label
    assert set(row) == {"patient", "stay"} | {
        f"{name} {field}" for field in ("value", "observed", "low", "high", "alarms")
    }
    assert 0 <= float(row[f"{name} low"]) <= float(row[f"{name} high"]) <= 1


def test_a_hospitals_tables_need_no_outcome_column_to_be_scored(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text("id,died\n1,0\n2,1\n3,\n")
    (tmp_path / "events.csv").write_text("id,h,HR\n1,0.5,80\n2,1,90\n3,2,70\n")
    settings = tmp_path / "site.toml"
    settings.write_text(
        '[data]\nsource = "tables"\n[data.stays]\nfile = "stays.csv"\npatient = "id"\n'
        '[[data.events]]\nfile = "events.csv"\nlayout = "wide"\nstay = "id"\nhours = "h"\n'
        '[data.variables.HR]\nunit = "/min"\n'
    )
    icu = FORMATS["physionet2012"].study
    content = icu.model_dump(by_alias=True)
    study = with_changes(
        icu,
        study={"variables": {"HR": content["variables"]["HR"]}},
        data={"source": "hospital", "label": "died"},
        evaluation={"subgroups": {}},
    )
    written(tmp_path / "model", study)
    out = tmp_path / "scores.jsonl"
    for table in ("id,died\n1,0\n2,1\n3,\n", "id\n1\n2\n3\n"):
        (tmp_path / "stays.csv").write_text(table)
        code, told = run(tmp_path / "model", out, "--settings", settings)
        assert code == 0, told
        assert [json.loads(line)["stay"] for line in out.read_text().splitlines()] == [*"123"]


def test_what_goes_wrong_is_one_sentence_and_the_old_file_stays(tmp_path: Path) -> None:
    model, folder = challenge(tmp_path)
    out = tmp_path / "scores.csv"
    out.write_text("old")
    record = sorted((folder / "records").rglob("1*.txt"))[0]
    record.write_text("broken")
    code, told = run(model, out, "--data", folder / "records")
    assert code == 1
    assert "is not the header" in told
    assert out.read_text() == "old"
    code, told = run(model, tmp_path / "scores.txt", "--data", folder / "records")
    assert (code, "must end in .csv or .jsonl" in told) == (1, True)


def test_no_stays_are_no_predictions_and_a_prediction_prints_nothing_of_a_patient() -> None:
    trained = some_trained(FORMATS["heart-disease"].study)
    assert list(predict_patients(trained, iter(()))) == []
    told = StayScores(patient_id="SECRET", stay_id="SECRET", scores=np.zeros(1))
    assert "SECRET" not in repr(told)
