"""``consilium-simulate report``: from run.json alone, the same bytes twice, mistakes a sentence."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from consilium.shared.errors import SettingsError, StudyError
from consilium.simulations.report.files import write_report
from consilium.simulations.report.records import write_json
from tests.simulations.report.made_up import demo_study, record_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_json(tmp_path / "run.json", record_of(demo_study(), groups=[]))
    return tmp_path


def comparison(digest: str) -> dict[str, Any]:
    plain = record_of(demo_study(privacy={"mode": "none"}), groups=[])
    private = record_of(demo_study(), groups=[])
    return {"schema": 1, "study_digest": digest,
            "settings": {"logistic-regression": plain, "pooled": plain, "federated": plain,
                         "federated-private": private}}  # fmt: skip


@pytest.mark.slow
def test_the_same_record_gives_the_same_bytes(folder: Path) -> None:
    first = write_report(folder).read_bytes()
    assert write_report(folder, folder / "again.html").read_bytes() == first
    assert first.startswith(b"<!doctype html>")


@pytest.mark.slow
def test_a_comparison_is_found_given_and_reported_by_itself(folder: Path, tmp_path: Path) -> None:
    digest = demo_study().digest.hex()
    alone = write_report(folder).read_text()
    assert "id='settings'" not in alone
    elsewhere = tmp_path / "compared"
    write_json(elsewhere / "compare.json", comparison(digest))
    given = write_report(folder, compare=elsewhere).read_text()
    assert "id='settings'" in given
    assert write_report(folder, compare=elsewhere / "compare.json").read_text() == given
    assert "id='settings'" in write_report(elsewhere).read_text()
    write_json(folder / "compare.json", comparison(digest))
    assert write_report(folder).read_text() == given


def test_a_comparison_of_another_study_is_refused(folder: Path) -> None:
    write_json(folder / "compare.json", comparison("ab" * 32))
    with pytest.raises(SettingsError, match="compares study abababababab, and the run is of"):
        write_report(folder)


def test_a_comparison_that_has_no_federation_yet_is_refused(tmp_path: Path) -> None:
    begun = comparison("ab" * 32)
    del begun["settings"]["federated"], begun["settings"]["federated-private"]
    write_json(tmp_path / "compare.json", begun)
    with pytest.raises(SettingsError, match="no federated setting yet; let the comparison end"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "lacks 'schema'"),
        (json.dumps(record_of(demo_study()) | {"schema": 2}), "has schema 2"),
        (json.dumps({"schema": 1}), "lacks 'study' and was made by another version"),
    ],
)
def test_a_damaged_or_old_record_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(SettingsError, match=sentence):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_record_that_lacks_what_every_run_writes_is_refused_by_its_name(folder: Path) -> None:
    whole = record_of(demo_study())
    for key in ("privacy", "software", "synthetic", "test_cohort", "seconds"):
        write_json(folder / "run.json", {k: v for k, v in whole.items() if k != key})
        with pytest.raises(SettingsError, match=f"lacks '{key}'"):
            write_report(folder)


def test_a_folder_without_a_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"run.json: cannot be read .* name the folder"):
        write_report(tmp_path)


def test_a_record_whose_study_was_changed_is_refused(folder: Path) -> None:
    record = record_of(demo_study())
    declared = record["study_declared"].replace('"epsilon":8.0', '"epsilon":1.0')
    write_json(folder / "run.json", record | {"study_declared": declared})
    with pytest.raises(SettingsError, match="does not have the record's digest"):
        write_report(folder)


def test_what_is_no_study_is_refused(folder: Path) -> None:
    record = record_of(demo_study())
    made_up = {"study_declared": "{}", "study_digest": hashlib.sha256(b"{}").hexdigest()}
    write_json(folder / "run.json", record | made_up)
    with pytest.raises(StudyError, match="is not a study's canonical JSON"):
        write_report(folder)


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be written"):
        write_report(folder, folder / "run.json" / "report.html")
