"""A hospital alone is told when a cohort has moved, and nothing breaks over it."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from consilium.client.commands.operations import _status_lines
from consilium.client.hospital.cohort_notes import note_approved, note_seen, read_notes
from consilium.client.hospital.folder import SiteFolder
from consilium.client.records.cohort import Cohort
from consilium.client.records.features import select
from consilium.client.service import moved_cohort
from consilium.client.service.moved_cohort import WatchedCohort, note_of
from consilium.shared.errors import PolicyError
from consilium.simulations.experiments.canary import cohort_of, usual_grid
from tests.client.site_folders import enrolled
from tests.study_text import small_study

STUDY = small_study()
WHOLE = usual_grid(STUDY, patients=12)
SICK = int((WHOLE.y_N == 1).sum())


class Records:
    """What the hospital's systems say at the moment."""

    def __init__(self) -> None:
        self.patients, self.read = 10, 0

    def __call__(self, *_: object) -> Cohort:
        self.read += 1
        return cohort_of(select(WHOLE, np.arange(self.patients)))


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Records:
    found = Records()
    monkeypatch.setattr(moved_cohort, "site_cohort", found)
    return found


@pytest.fixture
def folder(tmp_path: Path, records: Records) -> SiteFolder:
    made = enrolled(tmp_path / "site")
    note_approved(approvals(made), STUDY.digest, note_of(made, records(), STUDY))
    return made


def approvals(folder: SiteFolder) -> Path:
    return folder.path / "approvals"


def test_a_cohort_that_stays_is_given_out_and_nothing_is_said(folder, records, caplog) -> None:
    before = (approvals(folder) / f"{STUDY.digest.hex()}.cohort").stat()
    assert WatchedCohort(folder, STUDY, "stop")().training.patients == 10
    assert caplog.records == []
    after = (approvals(folder) / f"{STUDY.digest.hex()}.cohort").stat()
    assert (after.st_mtime_ns, after.st_mode & 0o777) == (before.st_mtime_ns, 0o600)


def test_what_changed_stands_in_the_status_and_no_number_in_the_log(
    folder, records, caplog
) -> None:
    records.patients = 12
    with caplog.at_level(logging.INFO):
        assert WatchedCohort(folder, STUDY, "tell")().training.patients == 12
    [line] = caplog.messages
    assert line == (
        "the cohort of study small is not the one that was approved; 'consilium-site status' says "
        "what changed"
    )
    notes = read_notes(approvals(folder), STUDY.digest)
    more_sick = SICK - int((WHOLE.y_N[:10] == 1).sum())
    told = f", with y {more_sick:+d}" if more_sick else ""
    assert notes.moved == f"persons +2, stays +2{told}"
    state = {"site": "n", "version": "1", "coordinator": "c", "running": False, "policy": "ok"}
    cohort = notes.model_dump(mode="json") | {"moved": notes.moved}
    shown = _status_lines(
        state | {"approved": [{"study": "small", "digest": STUDY.digest.hex(), "cohort": cohort}]}
    )
    assert any("its cohort is not the one approved: persons +2, stays +2" in line for line in shown)
    records.patients = 10
    WatchedCohort(folder, STUDY, "tell")()
    assert read_notes(approvals(folder), STUDY.digest).moved == ""


def test_other_persons_in_the_same_numbers_are_told_too(folder, records) -> None:
    note = note_of(folder, records(), STUDY)
    other = note.model_copy(update={"fingerprint": "0" * 64})
    notes = note_seen(approvals(folder), STUDY.digest, other)
    assert notes.moved == "the same numbers, but other persons, stays or outcomes"


def test_where_the_policy_says_stop_nothing_is_given_out_nor_read_again_until_a_new_approval(
    folder, records
) -> None:
    records.patients, read = 11, records.read
    watched = WatchedCohort(folder, STUDY, "stop")
    for _ in range(3):
        with pytest.raises(PolicyError, match="approve the study again"):
            watched()
    assert records.read == read + 1
    note_approved(approvals(folder), STUDY.digest, note_of(folder, records(), STUDY))
    assert WatchedCohort(folder, STUDY, "stop")().training.patients == 11


@pytest.mark.parametrize("found", [None, b"", b'{"approved": 3}'])
def test_without_a_readable_note_the_first_cohort_seen_stands_for_the_approved_one(
    folder, records, found: bytes | None
) -> None:
    file = approvals(folder) / f"{STUDY.digest.hex()}.cohort"
    file.unlink()
    if found is not None:
        file.write_bytes(found)
    records.patients = 12
    assert WatchedCohort(folder, STUDY, "stop")().training.patients == 12
    assert json.loads(file.read_text())["approved"]["persons"] == 12


def test_a_note_that_cannot_be_written_ends_no_round(folder, records, monkeypatch, caplog) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("consilium.client.hospital.cohort_notes.write_atomically", full)
    records.patients = 12
    assert WatchedCohort(folder, STUDY, "tell")().training.patients == 12
    assert "could not be written: No space left" in caplog.messages[0]
