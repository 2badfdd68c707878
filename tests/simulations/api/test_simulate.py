"""A run from Python: the command's own figures and weights, in objects that nobody can change."""

import dataclasses
import gc
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

import consilium
from consilium.client.round.predictions import predict
from consilium.simulations.cli import app
from tests.simulations.api.small_hospitals import TEXT, Ward, records, study
from tests.simulations.test_federation import TEXT as TINY

FIGURES = ("auroc", "auprc", "brier", "accuracy")


@pytest.fixture(scope="module")
def seen() -> list[consilium.RoundFigures]:
    return []


@pytest.fixture(scope="module")
def result(
    tmp_path_factory: pytest.TempPathFactory, seen: list[consilium.RoundFigures]
) -> consilium.SimulationResult:
    out = tmp_path_factory.mktemp("run") / "own"
    return consilium.simulate(
        study(), records(), out=out, workers=2, alone=True, progress=seen.append
    )


def refusal(kind: type[consilium.ConsiliumError], call) -> str:
    with pytest.raises(kind) as refused:
        call()
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.slow
def test_the_command_and_the_api_give_the_same_weights_to_the_bit_and_the_same_figures(
    tmp_path: Path,
) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY.replace("rounds = 3", "rounds = 1"))
    told = CliRunner().invoke(
        app, ["run", str(file), "--out", str(tmp_path / "command"), "--no-alone", "--seed", "3"]
    )
    assert told.exit_code == 0, told.output
    torch.set_num_threads(2)  # as a notebook may have it
    try:
        result = consilium.simulate(consilium.load_study(file), out=tmp_path / "api", seed=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    by_command, by_api = (
        load_file(tmp_path / where / "model.safetensors") for where in ("command", "api")
    )
    assert set(by_command) == set(by_api)
    for name, tensor in by_command.items():
        assert tensor.tobytes() == by_api[name].tobytes(), name
    record = json.loads((tmp_path / "command" / "run.json").read_text())
    for name in FIGURES:
        assert dataclasses.asdict(getattr(result.test, name)) == record["test"][name]
    assert set(result.by_site) == set(result.study.sites)
    again = consilium.open_run(tmp_path / "command")
    assert (again.test, again.by_site, again.verdicts) == (
        result.test, result.by_site, result.verdicts,
    )  # fmt: skip  # reads as one


def test_a_result_tells_figures_by_site_rounds_and_what_joining_brought(
    result: consilium.SimulationResult, seen: list[consilium.RoundFigures]
) -> None:
    assert result.study == study()
    assert list(result.test.estimates) == list(FIGURES)
    assert result.test.auroc.low <= result.test.auroc.value <= result.test.auroc.high
    assert result.test.patients == sum(one.patients for one in result.by_site.values()) == 120
    assert (result.epsilon, result.delta, result.synthetic) == (None, None, True)
    assert [one.site for one in result.joined] == list(study().sites)
    assert result.left_out == ()
    assert [one.purpose for one in result.rounds_table()] == [
        "statistics", "training", "evaluation",
    ]  # fmt: skip  # reads as one
    assert result.rounds_table() == tuple(seen)
    assert result.rounds_table()[1].sites == tuple(sorted(study().sites))
    assert repr(result).startswith("SimulationResult(study 'own', auroc 0.")


def test_rounds_are_a_data_frame_with_the_figures_that_the_command_prints(
    result: consilium.SimulationResult,
) -> None:
    printed = CliRunner().invoke(app, ["rounds", str(result.folder)]).output
    frame = result.rounds
    assert isinstance(frame, pl.DataFrame)
    told = pl.read_csv(printed.encode())
    assert set(frame.columns) == set(told.columns)
    assert frame["test/auroc"].to_list() == pytest.approx(told["test/auroc"].to_list(), nan_ok=True)
    assert frame["void"].to_list() == [False] * 3


def test_without_polars_the_remedy_is_named(
    result: consilium.SimulationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    sentence = refusal(consilium.SettingsError, lambda: result.rounds)
    assert "pip install 'consilium-fl[frames]', or use rounds_table()" in sentence


@pytest.mark.parametrize(
    ("of", "name"),
    [("result", "epsilon"), ("result", "new"), ("test", "patients"), ("auroc", "value"),
     ("round", "figures"), ("model", "study"), ("prediction", "values"), ("records", "sites"),
     ("study", "seed")],
)  # fmt: skip  # a table
def test_nothing_of_it_can_be_changed(
    result: consilium.SimulationResult, of: str, name: str
) -> None:
    target = {
        "result": result,
        "test": result.test,
        "auroc": result.test.auroc,
        "round": result.rounds_table()[0],
        "model": result.model,
        "prediction": result.model.predict(Ward(7, 1))[0],
        "records": records(),
        "study": result.study,
    }[of]
    with pytest.raises((AttributeError, ValueError)):  # ValueError: pydantic's, of the study
        setattr(target, name, 1)


def test_mappings_and_arrays_in_it_cannot_be_changed_either(
    result: consilium.SimulationResult,
) -> None:
    for mapping in (result.by_site, result.test.estimates, result.rounds_table()[0].figures):
        assert not hasattr(mapping, "__setitem__")
    with pytest.raises(ValueError, match="read-only"):
        result.model.predict(Ward(7, 1))[0].values[0] = 0.0


def test_a_figure_that_the_task_does_not_have_is_refused_with_those_it_has(
    result: consilium.SimulationResult,
) -> None:
    expected = "there is no figure 'mae' here; there is auroc, auprc, brier and accuracy"
    with pytest.raises(AttributeError) as refused:
        result.test.mae  # noqa: B018 - the access is what is tested
    assert str(refused.value) == expected
    assert not hasattr(result.test, "f1")
    assert "auroc" in dir(result.test)
    assert "mae" not in dir(result.test)


def test_the_model_predicts_what_its_network_says_of_the_same_patients(
    result: consilium.SimulationResult,
) -> None:
    source = Ward(21, 6)
    by_source = result.model.predict(source)
    by_patients = result.model.predict(list(source.read_patients(result.study)))
    assert [one.stay_id for one in by_source] == [f"stay-21-{number}" for number in range(6)]
    assert [one.patient_id for one in by_source] == [f"patient-21-{number}" for number in range(6)]
    assert [one.value for one in by_source] == [one.value for one in by_patients]
    assert all(0 < one.value < 1 for one in by_source)
    assert "0." not in repr(by_source)
    from consilium.client.records.features import to_grid, to_tensors
    from consilium.simulations.runs.model_file import read_trained

    trained = read_trained(result.folder)
    inputs = to_tensors(
        to_grid(list(source.read_patients(result.study)), result.study),
        trained.normalisation,
        result.study,
    )
    expected = predict(trained.model, inputs.x_NTF, inputs.mask_NT)
    assert np.array_equal([one.values for one in by_source], expected)


def test_the_saved_model_is_a_signed_export(
    result: consilium.SimulationResult, tmp_path: Path
) -> None:
    folder = result.model.save(tmp_path / "exported")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["study_digest"] == result.study.digest.hex()
    assert manifest["simulated"] is True
    assert (folder / "manifest.sig").exists()
    sentence = refusal(consilium.SettingsError, lambda: result.model.save(tmp_path / "exported"))
    assert "exists already" in sentence


@pytest.mark.slow
def test_the_report_is_written_where_it_is_asked_for(
    result: consilium.SimulationResult, tmp_path: Path
) -> None:
    elsewhere = result.report(tmp_path / "mine.html")
    assert elsewhere == tmp_path / "mine.html"
    assert elsewhere.read_bytes() == (result.folder / "report.html").read_bytes()


@pytest.mark.slow
def test_a_temporary_folder_goes_with_the_last_object_that_needs_it(
    result: consilium.SimulationResult,
) -> None:
    from consilium.simulations.api.folders import Folder
    from consilium.simulations.api.results import result_in

    def temporary() -> consilium.SimulationResult:
        folder = Folder()
        shutil.copytree(result.folder, folder.path, dirs_exist_ok=True)
        return result_in(folder)

    kept = temporary()
    path, model = kept.folder, kept.model
    del kept
    gc.collect()
    assert path.exists()  # the model can still be saved
    del model
    gc.collect()
    assert not path.exists()
    with temporary() as again:
        path = again.folder
        assert path.exists()
    assert not path.exists()
    assert "temporary folder was closed" in refusal(consilium.SettingsError, again.report)
    result.close()
    assert result.folder.exists()  # it was named


def test_a_run_of_an_older_version_opens_and_tells_what_it_knew(
    result: consilium.SimulationResult, tmp_path: Path
) -> None:
    record = json.loads((result.folder / "run.json").read_text())
    for later in ("joining", "external", "verdicts", "recalibration", "groups", "test_groups"):
        record.pop(later, None)
    (tmp_path / "run.json").write_text(json.dumps(record))
    older = consilium.open_run(str(tmp_path))
    assert older.test == result.test
    assert (older.joined, older.verdicts, dict(older.by_site)) == ((), (), {})
    assert "model.safetensors: cannot be read" in refusal(
        consilium.SettingsError, lambda: older.model
    )


def test_hospitals_left_out_are_told_with_their_estimates(
    result: consilium.SimulationResult, tmp_path: Path
) -> None:
    record = json.loads((result.folder / "run.json").read_text())
    one = {"value": 0.7, "low": 0.6, "high": None}
    site = {"site": "north", "trained_on": ["east"], "patients": 40, "judged": True, "local": None,
            "external": one, "federated": one, "gain": one, "calibration": one}  # fmt: skip
    record["external"] = {"figure": "auroc", "higher_is_better": True, "sites": [site]}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (told,) = consilium.open_run(tmp_path).left_out
    assert (told.site, told.patients, told.local) == ("north", 40, None)
    assert (told.external.value, told.external.low) == (0.7, 0.6)
    assert np.isnan(told.external.high)


def test_a_damaged_record_is_told_in_a_sentence(
    result: consilium.SimulationResult, tmp_path: Path
) -> None:
    record = json.loads((result.folder / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"test": {"auroc": 3}}))
    sentence = refusal(consilium.SettingsError, lambda: consilium.open_run(tmp_path))
    assert "its run.json is damaged" in sentence


@pytest.mark.slow
def test_where_sites_keep_parts_of_the_model_each_has_its_own(tmp_path: Path) -> None:
    own = consilium.with_changes(study(), personalisation={"parts": ("head",)})
    result = consilium.simulate(own, records(), out=tmp_path / "run", workers=2)
    sentence = refusal(consilium.SettingsError, lambda: result.model.predict(Ward(21, 2)))
    assert "use result.model_at(site)" in sentence
    north, south = result.model_at("north"), result.model_at("south")
    values = [[one.value for one in model.predict(Ward(21, 2))] for model in (north, south)]
    assert values[0] != values[1]
    assert "north's own model" in refusal(
        consilium.SettingsError, lambda: north.save(tmp_path / "model")
    )
    assert "no site 'nowhere'" in refusal(
        consilium.SettingsError, lambda: result.model_at("nowhere")
    )


def test_a_missing_file_and_a_file_that_is_no_study_are_study_errors(tmp_path: Path) -> None:
    missing = refusal(consilium.StudyError, lambda: consilium.load_study(tmp_path / "missing.toml"))
    assert "missing.toml" in missing
    (tmp_path / "other.toml").write_text("[tool]\nname = 1\n")
    assert "other.toml" in refusal(
        consilium.StudyError, lambda: consilium.load_study(str(tmp_path / "other.toml"))
    )
    assert "make it with consilium.load_study(path)" in refusal(
        consilium.StudyError,
        lambda: consilium.simulate("study.toml"),  # type: ignore[arg-type]
    )
    assert "choose one of adrenal-slices" in refusal(
        consilium.StudyError, lambda: consilium.example_study("nothing")
    )


def wards(*names: str) -> dict[str, Ward]:
    return {name: Ward(1) for name in names}


def wrong() -> Iterator[tuple[str, object]]:
    sites = study().sites
    yield "records have no site 'east'", consilium.Records(sites=wards("north"), test=Ward(9))
    yield (
        "records name site 'west', which the study does not",
        consilium.Records(sites=wards(*sites, "west"), test=Ward(9)),
    )
    yield "nothing says where its records are", None
    yield "records nowhere do not exist", "nowhere"
    yield "int is neither a folder nor consilium.Records", 3


@pytest.mark.parametrize(("told", "given"), list(wrong()))
def test_records_that_do_not_fit_are_refused_before_anything_is_made(
    told: str, given: object, tmp_path: Path
) -> None:
    def run() -> None:
        consilium.simulate(study(), given, out=tmp_path / "out")  # type: ignore[arg-type]

    assert told in refusal(consilium.SettingsError, run)
    assert not (tmp_path / "out").exists()


def test_records_of_public_collections_and_of_synthetic_studies_are_checked(
    tmp_path: Path,
) -> None:
    tiny = consilium.parse_study(TINY)
    assert "its patients are synthetic" in refusal(
        consilium.SettingsError, lambda: consilium.simulate(tiny, tmp_path)
    )
    heart = consilium.example_study("heart-disease")
    assert "no records were given; give the folder that holds processed.cleveland" in refusal(
        consilium.SettingsError, lambda: consilium.simulate(heart)
    )
    assert f"records {tmp_path / 'no'} do not exist" in refusal(
        consilium.SettingsError, lambda: consilium.simulate(heart, tmp_path / "no")
    )


@pytest.mark.parametrize(
    ("sites", "test"), [({}, Ward(1)), ({"north": "north.csv"}, Ward(1)), ({"north": Ward(1)}, {})]
)
def test_what_is_no_source_is_refused_at_once(sites: dict, test: object) -> None:
    refusal(consilium.SettingsError, lambda: consilium.Records(sites=sites, test=test))


def test_predictions_of_what_is_neither_source_nor_patients_are_refused(
    result: consilium.SimulationResult,
) -> None:
    assert "str is neither a source nor patients" in refusal(
        consilium.SettingsError, lambda: result.model.predict("records.csv")
    )


def test_workers_and_folders_are_checked(tmp_path: Path) -> None:
    assert "workers 0: must be at least 1" in refusal(
        consilium.SettingsError, lambda: consilium.simulate(study(), records(), workers=0)
    )
    (tmp_path / "file").write_text("")
    assert "is a file; name a folder" in refusal(
        consilium.SettingsError,
        lambda: consilium.simulate(study(), records(), out=tmp_path / "file"),
    )
    assert "cannot be read" in refusal(
        consilium.SettingsError, lambda: consilium.open_run(tmp_path)
    )


def test_the_study_of_the_tests_is_read_from_a_file_as_from_text(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(TEXT)
    assert consilium.load_study(tmp_path / "own.toml").digest == study().digest
