"""A site's own part of a model: bound to study and run, readable by the site alone, never torn."""

from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.personal_store import PersonalStore
from consilium.shared.errors import SettingsError

STUDY, RUN, OTHER = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
OWN = {"own_weights": np.arange(5, dtype=np.float32)}


def test_what_was_kept_of_a_run_comes_back_after_a_restart_and_is_no_other_runs(
    tmp_path: Path,
) -> None:
    PersonalStore(tmp_path / "personal").save(STUDY, RUN, OWN)
    again = PersonalStore(tmp_path / "personal")
    assert again.load(STUDY, RUN)["own_weights"].tobytes() == OWN["own_weights"].tobytes()
    assert again.load(STUDY, OTHER) == {}
    assert again.load(OTHER, RUN) == {}
    assert again.latest(OTHER) == {}
    assert again.latest(STUDY).keys() == OWN.keys()


def test_the_latest_run_of_a_study_is_the_one_saved_last(tmp_path: Path) -> None:
    store = PersonalStore(tmp_path)
    for run in (RUN, OTHER, RUN):
        kept = {"own_weights": np.full(2, run[0], dtype=np.float32)}
        store.save(STUDY, run, kept)
        assert store.latest(STUDY)["own_weights"][0] == run[0]
        _let_the_clock_tick(tmp_path)


def _let_the_clock_tick(folder: Path) -> None:
    """Wait until a file written now is later than all before: file systems count milliseconds."""
    newest = max(file.stat().st_mtime_ns for file in folder.iterdir())
    probe = folder / "probe"
    while not probe.exists() or probe.stat().st_mtime_ns <= newest:
        probe.touch()
    probe.unlink()


def test_files_are_the_sites_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    store = PersonalStore(tmp_path / "personal")
    for _ in range(2):
        store.save(STUDY, RUN, OWN)
    (file,) = (tmp_path / "personal").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "personal").stat().st_mode & 0o777 == 0o700


def test_the_same_part_of_the_same_run_is_the_same_file(tmp_path: Path) -> None:
    kept = {"own_weights": np.arange(5, dtype=np.float32), "mean_V": np.arange(3.0)}
    PersonalStore(tmp_path / "one").save(STUDY, RUN, kept)
    PersonalStore(tmp_path / "other").save(STUDY, RUN, dict(reversed(kept.items())))
    (one,), (other,) = (tmp_path / "one").iterdir(), (tmp_path / "other").iterdir()
    assert one.read_bytes() == other.read_bytes()


def test_another_studys_file_under_this_name_and_damage_are_refused(tmp_path: Path) -> None:
    store = PersonalStore(tmp_path)
    store.save(OTHER, RUN, OWN)
    (file,) = tmp_path.iterdir()
    moved = file.rename(tmp_path / f"{STUDY.hex()}-{RUN.hex()}.safetensors")
    for look in (lambda: store.load(STUDY, RUN), lambda: store.latest(STUDY)):
        with pytest.raises(SettingsError, match="another study or run than its name says"):
            look()
    moved.write_bytes(moved.read_bytes()[:50])
    with pytest.raises(SettingsError, match="restore it from a backup"):
        store.load(STUDY, RUN)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "personal").write_text("in the way")
    with pytest.raises(SettingsError, match="cannot be written"):
        PersonalStore(tmp_path / "personal").save(STUDY, RUN, OWN)
