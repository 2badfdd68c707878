"""The records of rounds that people read lack none, whatever moment a process ends at."""

import json
from pathlib import Path

import pytest

from consilium.server.coordinator.register import State
from consilium.server.coordinator.round_records import RECORDS, add_record, put_in_missing
from consilium.server.service import study_process
from tests.server.service.test_feasibility_phase import TEXT, Coordinator

HISTORY = tuple({"round": number, "void": None} for number in range(1, 5))


def numbers(file: Path) -> list[int]:
    return [json.loads(line)["round"] for line in file.read_text().splitlines()]


@pytest.mark.parametrize("there", range(5))
@pytest.mark.parametrize("half", ["", '{"rou', '{"round": 9, "void": nu'])
def test_what_a_crash_left_out_is_put_in_and_half_a_line_taken_out(
    tmp_path: Path, there: int, half: str
) -> None:
    file = tmp_path / RECORDS
    for record in HISTORY[:there]:
        add_record(file, record)
    with file.open("a") as stream:
        stream.write(half)
    put_in_missing(file, HISTORY)
    assert numbers(file) == [1, 2, 3, 4]
    before = file.stat()
    put_in_missing(file, HISTORY)  # what is whole is not written again
    assert file.stat() == before
    add_record(file, {"round": 5})
    assert numbers(file) == [1, 2, 3, 4, 5]


def test_a_record_written_after_half_a_line_is_put_in(tmp_path: Path) -> None:
    file = tmp_path / RECORDS
    file.write_text('{"round": 1, "void": null}\n{"round": 2, "vo')
    add_record(file, HISTORY[2])
    put_in_missing(file, HISTORY[:3])
    assert numbers(file) == [1, 2, 3]


def test_a_checkpoint_of_an_older_backup_takes_no_record_away(tmp_path: Path) -> None:
    file = tmp_path / RECORDS
    for record in HISTORY:
        add_record(file, record)
    before = file.read_bytes()
    put_in_missing(file, HISTORY[:2])
    assert file.read_bytes() == before


def test_a_study_that_goes_on_puts_in_the_record_that_a_full_disk_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Coordinator(tmp_path, TEXT.replace("rounds = 1", "rounds = 3"))
    assert made.study.rounds == 3
    sites = made.approve()

    def full(file: Path, record: dict[str, object]) -> None:
        if record["round"] == 3:
            raise OSError(28, "No space left on device")
        add_record(file, record)

    with monkeypatch.context() as once:
        once.setattr(study_process, "add_record", full)
        with pytest.raises(OSError, match="No space"):
            made.run(sites)
    assert numbers(made.place / RECORDS) == [1, 2]
    assert made.run(sites) is State.FINISHED
    found = numbers(made.place / RECORDS)
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 4
