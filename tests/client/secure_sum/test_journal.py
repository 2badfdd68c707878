import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.secure_sum.journal import RoundJournal
from consilium.shared.errors import ProtocolError, SettingsError
from tests.needs import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
STUDY, OTHER = bytes(32), bytes([1]) * 32


def try_to_claim(path, round):
    try:
        RoundJournal(path).claim(STUDY, round)
    except ProtocolError:
        return False
    return True


def test_a_round_is_claimed_once_and_only_upwards_also_after_a_restart(tmp_path):
    path = tmp_path / "journal.sqlite"
    assert RoundJournal(path).highest(STUDY) == 0
    RoundJournal(path).claim(STUDY, 3)
    for again in (3, 2, 1, 0, -1):
        with pytest.raises(ProtocolError, match="after round 3 was masked at this site"):
            RoundJournal(path).claim(STUDY, again)
    RoundJournal(path).claim(STUDY, 4)
    assert RoundJournal(path).highest(STUDY) == 4


def test_studies_do_not_disturb_each_other(tmp_path):
    journal = RoundJournal(tmp_path / "journal.sqlite")
    journal.claim(STUDY, 5)
    journal.claim(OTHER, 1)
    assert (journal.highest(STUDY), journal.highest(OTHER)) == (5, 1)


@given(st.lists(st.integers(1, 6), max_size=8))
@settings(max_examples=20, deadline=None)
def test_the_claims_that_succeed_are_strictly_rising(tmp_path_factory, rounds):
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    won = [round for round in rounds if try_to_claim(path, round)]
    assert won == sorted(set(won))
    assert not rounds or max(rounds) in won


def test_of_many_threads_one_claims_a_round(tmp_path):
    path = tmp_path / "journal.sqlite"
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: try_to_claim(path, 1), range(16)))
    assert sum(outcomes) == 1


CLAIMANT = """
import sys
from pathlib import Path
from consilium.client.secure_sum.journal import RoundJournal
from consilium.shared.errors import ProtocolError
print("ready", flush=True)
sys.stdin.readline()
try:
    RoundJournal(Path(sys.argv[1])).claim(bytes(32), 1)
    print("claimed")
except ProtocolError:
    print("refused")
"""


def test_of_several_processes_one_claims_a_round(tmp_path):
    path = tmp_path / "journal.sqlite"
    claimants = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMANT, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for _ in range(4)
    ]  # fmt: skip
    for claimant in claimants:
        assert claimant.stdout.readline() == "ready\n"
    for claimant in claimants:
        claimant.stdin.write("go\n")
        claimant.stdin.flush()
    outcomes = [claimant.communicate(timeout=PATIENCE_S)[0].strip() for claimant in claimants]
    assert sorted(outcomes) == ["claimed", "refused", "refused", "refused"]


def test_the_file_is_for_the_site_alone_and_holds_no_secret(tmp_path):
    path = tmp_path / "journal.sqlite"
    RoundJournal(path).claim(STUDY, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = sqlite3.connect(path).execute("SELECT * FROM claims").fetchall()
    assert rows == [(STUDY, 1)]


def test_every_claim_is_flushed_to_the_disk(tmp_path):
    connection = RoundJournal(tmp_path / "journal.sqlite")._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_claim_survives_a_process_that_is_killed_at_once(tmp_path):
    path = tmp_path / "journal.sqlite"
    program = (
        "import os, sys, pathlib; from consilium.client.secure_sum.journal import RoundJournal; "
        "RoundJournal(pathlib.Path(sys.argv[1])).claim(bytes(32), 9); os.kill(os.getpid(), 9)"
    )
    died = subprocess.run([sys.executable, "-c", program, path], check=False)
    assert died.returncode == -9
    assert RoundJournal(path).highest(STUDY) == 9


def test_an_unusable_file_is_reported_in_one_sentence(tmp_path):
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"this is not a database" * 100)
    for path in (tmp_path / "missing" / "journal.sqlite", damaged):
        with pytest.raises(SettingsError, match=r"the round journal .* cannot be used"):
            RoundJournal(path)


def test_a_claim_that_cannot_be_written_is_not_granted(tmp_path):
    path = tmp_path / "journal.sqlite"
    journal = RoundJournal(path)
    journal._connection.execute("PRAGMA query_only=ON")
    with pytest.raises(SettingsError, match="cannot be used"):
        journal.claim(STUDY, 1)
    journal._connection.execute("PRAGMA query_only=OFF")
    assert journal.highest(STUDY) == 0
    journal.claim(STUDY, 1)
    journal.close()
    with pytest.raises(SettingsError, match="cannot be used"):
        journal.claim(STUDY, 2)
    assert RoundJournal(path).highest(STUDY) == 1
