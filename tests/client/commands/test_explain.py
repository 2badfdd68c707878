"""What a site is shown of one stay, and what it is told when there is nothing to show."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consilium.client.cli import app
from consilium.shared.study.definition import Study, with_changes
from tests.client.commands.test_site_records import site
from tests.client.sources.test_damaged_files import FORMATS
from tests.signed_models import KEY, written

ICU = with_changes(FORMATS["physionet2012"].study, model={"pooling": "attention"})


def explain(tmp_path: Path, *arguments: str, study: Study = ICU, name: str = "physionet2012"):
    model, records = tmp_path / "model", tmp_path / "site"
    if not model.exists():
        written(model, study)
        site(records, name)
    told = ["explain", str(model), "--signer", KEY.public.hex()]
    chosen = ["--settings", str(records / "site.toml"), *arguments]
    result = CliRunner().invoke(app, told + chosen)
    return result.exit_code, result.stdout + str(result.exception or "")


def stay_of(tmp_path: Path) -> str:
    """A stay of the site's records."""
    out = tmp_path / "scores.jsonl"
    told = ["predict", tmp_path / "model", "--signer", KEY.public.hex(), "--out", out]
    settings = ["--settings", tmp_path / "site" / "site.toml"]
    CliRunner().invoke(app, list(map(str, [*told, *settings])), catch_exceptions=False)
    return str(json.loads(out.read_text().splitlines()[0])["stay"])


def test_a_stay_is_explained_in_a_table_in_json_and_in_a_picture_of_its_own(
    tmp_path: Path,
) -> None:
    assert explain(tmp_path, "--stay", "nobody")[0] == 1
    stay = stay_of(tmp_path)
    picture = tmp_path / "why.svg"
    code, told = explain(tmp_path, "--stay", stay, "--plot", str(picture))
    assert code == 0, told
    assert "In-hospital_death: 0." in told
    assert "attention most in hours" in told
    assert "HR" in picture.read_text()
    assert picture.stat().st_mode & 0o777 == 0o600
    code, told = explain(tmp_path, "--stay", stay, "--json")
    found = json.loads(told)
    assert code == 0
    assert found["scale"] == "log-odds"
    assert sum(found["attention"]) == pytest.approx(1, abs=1e-5)
    sizes = [max(abs(v["gradients"]), abs(v["absence"])) for v in found["variables"]]
    assert sizes == sorted(sizes, reverse=True)
    for variable in found["variables"]:
        assert sum(variable["gradients_by_step"]) == pytest.approx(variable["gradients"])


def test_codes_and_targets_are_explained_too(tmp_path: Path) -> None:
    molecules = FORMATS["molecules"].study
    explain(tmp_path / "m", "--stay", "nobody", study=molecules, name="molecules")
    stay = stay_of(tmp_path / "m")
    names = molecules.data.label.split("+")
    code, told = explain(tmp_path / "m", "--stay", stay, "--output", names[-1])
    assert code == 0, told
    assert told.startswith(f"{names[-1]}: ")
    assert "token" in told
    parkinsons = FORMATS["parkinsons"].study
    explain(tmp_path / "p", "--stay", "nobody", study=parkinsons, name="parkinsons")
    code, told = explain(tmp_path / "p", "--stay", stay_of(tmp_path / "p"))
    assert code == 0, told
    assert "In the target's unit" in told


def test_what_cannot_be_explained_is_told_in_a_sentence(tmp_path: Path) -> None:
    assert "no stay 'nobody' is among these records" in explain(tmp_path, "--stay", "nobody")[1]
    stay = stay_of(tmp_path)
    for arguments, sentence in (
        (("--output", "sepsis"), "is none of In-hospital_death; name one"),
        (("--plot", "why.pdf"), "must end in .png or .svg"),
        (("--plot", str(tmp_path / "model" / "study.json" / "why.png")), "name another --plot"),
    ):
        code, told = explain(tmp_path, "--stay", stay, *arguments)
        assert code == 1
        assert sentence in told
