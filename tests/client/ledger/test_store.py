"""The ledger: reserve before release, once each, never over budget, never lost."""

import itertools
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import consilium.client.ledger.rows
import consilium.client.ledger.store
from consilium.client.ledger.releases import largest_spent
from consilium.client.ledger.store import Ledger, Release
from consilium.shared.errors import BudgetError, PrivacyError
from consilium.shared.privacy.accounting import PrivacyEvent, epsilon_spent
from tests.needs import PATIENCE_S

DELTA = 1e-5
TRAINING = PrivacyEvent(sampling_rate=0.1, noise_multiplier=2.0, steps=10)
ROOT = Path(__file__).resolve().parents[3]


def release(number: int = 1, **changes: object) -> Release:
    given = {
        "study_digest": b"study-a".ljust(32, b"."),
        "study_hash": b"a run of study-a".ljust(32, b"."),
        "study_name": "study-a",
        "round": number,
        "purpose": "training",
        "events": (TRAINING,),
        "shards": (0, 80),
    }
    return Release(**{**given, **changes})


def ledger(folder: Path, lifetime: float = 16.0) -> Ledger:
    return Ledger(
        folder / "ledger.sqlite",
        lifetime_epsilon=lifetime,
        delta=DELTA,
        clock=lambda: datetime(2030, 1, 1, tzinfo=UTC),
    )


def reserve(book: Ledger, entry: Release, epsilon: float = 8.0) -> None:
    book.reserve(entry, study_epsilon=epsilon, study_delta=DELTA)


def reserve_many(book: Ledger, epsilon: float = 8.0, **changes: object) -> None:
    for number in range(100):
        reserve(book, release(number, **changes), epsilon)


def test_a_reserved_release_counts_and_a_confirmed_one_is_spent(tmp_path):
    book = ledger(tmp_path)
    reserve(book, release(1))
    cost = epsilon_spent((TRAINING,), DELTA)
    (study,) = book.summary().studies
    assert (study.account.spent, study.account.reserved) == (0.0, cost)
    assert study.account.left == pytest.approx(8.0 - cost)
    book.confirm(release(1))
    summary = book.summary()
    assert (summary.total.spent, summary.total.reserved) == (cost, 0.0)
    assert summary.total.left == pytest.approx(16.0 - cost)
    assert (summary.total.delta, summary.total.bound) == (DELTA, 16.0)
    (entry,) = book.entries()
    assert entry.confirmed
    assert entry.reserved_at == entry.confirmed_at == "2030-01-01T00:00:00+00:00"


def test_reserving_and_confirming_twice_charges_once(tmp_path):
    book = ledger(tmp_path)
    for _ in range(3):
        reserve(book, release(1))
        book.confirm(release(1))
    assert len(book.entries()) == 1
    assert book.summary().total.spent == epsilon_spent((TRAINING,), DELTA)


def test_another_release_under_the_same_round_and_purpose_is_refused(tmp_path):
    book = ledger(tmp_path)
    reserve(book, release(1))
    other = PrivacyEvent(sampling_rate=0.1, noise_multiplier=3.0, steps=10)
    with pytest.raises(PrivacyError, match="already noted"):
        reserve(book, release(1, events=(other,)))
    with pytest.raises(PrivacyError, match="already noted"):
        book.confirm(release(1, shards=(0, 100)))


def test_confirming_what_was_never_reserved_is_refused(tmp_path):
    with pytest.raises(PrivacyError, match="never reserved"):
        ledger(tmp_path).confirm(release(1))


def test_shards_out_of_order_are_refused(tmp_path):
    for shards in ((5, 4), (-1, 4), (0, 101)):
        with pytest.raises(PrivacyError, match="shards"):
            reserve(ledger(tmp_path), release(1, shards=shards))


def test_a_study_stops_at_its_own_budget_and_nothing_is_charged_for_the_refusal(tmp_path):
    book = ledger(tmp_path)
    with pytest.raises(BudgetError, match=r"above the budget of 1\.5 of study study-a"):
        reserve_many(book, epsilon=1.5)
    done = len(book.entries())
    assert done > 2
    events = PrivacyEvent(sampling_rate=0.1, noise_multiplier=2.0, steps=10 * done)
    assert epsilon_spent((events,), DELTA) <= 1.5 < epsilon_spent((events, TRAINING), DELTA)


def test_studies_share_the_lifetime_budget(tmp_path):
    book = ledger(tmp_path, lifetime=1.5)
    reserve(book, release(1))
    other = {"study_digest": b"b" * 32, "study_name": "study-b"}
    with pytest.raises(BudgetError, match="this site's lifetime") as refused:
        reserve_many(book, **other)
    # What other studies spent, and this site's bound, are told in no sentence that may leave.
    said = str(refused.value)
    assert re.findall(r"\d+", said.replace("study-b", "")) == re.findall(r"(?<=round )\d+", said)
    assert book.summary().total.left >= 0
    assert len(book.summary().studies) == 2


def test_patients_of_different_shards_do_not_pay_for_each_other(tmp_path):
    book = ledger(tmp_path)
    reserve(book, release(1))
    alone = book.summary().total.reserved
    reserve(book, release(1, purpose="metrics", shards=(80, 100)))
    assert book.summary().total.reserved == alone
    reserve(book, release(2, purpose="metrics", shards=(79, 100)))
    assert book.summary().total.reserved > alone
    reserve(book, release(3, purpose="metrics", shards=(100, 100)))
    assert len(book.entries()) == 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=6))
def test_spent_is_the_worst_shards_composition(ranges):
    releases = [release(i, shards=tuple(sorted(pair))) for i, pair in enumerate(ranges)]
    most = max(
        (sum(low <= shard < high for low, high in map(sorted, ranges)) for shard in range(10)),
        default=0,
    )
    expected = epsilon_spent((TRAINING,) * most, DELTA) if most else 0.0
    assert largest_spent(releases, DELTA) == expected


def test_the_file_is_the_owners_alone(tmp_path):
    reserve(ledger(tmp_path), release(1))
    path = tmp_path / "ledger.sqlite"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    ledger(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_ledger_outlives_its_process(tmp_path):
    reserve(ledger(tmp_path), release(1))
    assert [entry.release for entry in ledger(tmp_path).entries()] == [release(1)]


def test_a_missing_folder_a_foreign_file_and_a_newer_ledger_are_refused(tmp_path):
    with pytest.raises(PrivacyError, match="cannot be opened"):
        ledger(tmp_path / "nowhere")
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database, but long enough to look at" * 9)
    with pytest.raises(PrivacyError, match="cannot be used"):
        ledger(tmp_path)
    newer = tmp_path / "newer"
    newer.mkdir()
    connection = sqlite3.connect(newer / "ledger.sqlite")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(PrivacyError, match="has version 9"):
        ledger(newer)


RACER = """
import sys
from pathlib import Path
from consilium.client.ledger.store import Ledger
from consilium.shared.errors import BudgetError
from tests.client.ledger.test_store import ledger, release, reserve
book = ledger(Path(sys.argv[1]), lifetime=float(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
try:
    reserve(book, release(int(sys.argv[3])))
    print("won")
except BudgetError:
    print("refused")
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def test_of_processes_racing_for_the_last_of_the_budget_exactly_one_wins(tmp_path):
    room_for_one = 1.2 * epsilon_spent((TRAINING,), DELTA)
    assert epsilon_spent((TRAINING, TRAINING), DELTA) > room_for_one
    racers = [start(RACER, tmp_path, room_for_one, number) for number in range(3)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outcomes = sorted(racer.communicate(timeout=PATIENCE_S)[0].strip() for racer in racers)
    assert outcomes == ["refused", "refused", "won"]
    assert len(ledger(tmp_path, room_for_one).entries()) == 1


TRACED = (consilium.client.ledger.store.__file__, consilium.client.ledger.rows.__file__, __file__)


def release_in_child(folder: Path, kill_at: int) -> bool:
    """Reserve, release (a file, as a site sends its update) and confirm in a forked process.

    At the ``kill_at``-th traced line of the ledger's or this function's code it kills itself as
    kill -9 would. Returns whether it was killed.
    """
    pid = os.fork()
    if pid == 0:
        left = kill_at

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename in TRACED:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        def whole_release():
            book = ledger(folder)
            reserve(book, release(1))
            with (folder / "left-the-house").open("a") as out:
                out.write("once\n")
            book.confirm(release(1))

        status = 1
        try:
            sys.settrace(trace)
            whole_release()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.mark.slow
def test_killed_at_any_line_nothing_leaves_unnoted_and_nothing_is_charged_twice(tmp_path):
    cost = epsilon_spent((TRAINING,), DELTA)
    for kill_at in itertools.count(1):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        killed = release_in_child(folder, kill_at)
        book = ledger(folder)
        if (folder / "left-the-house").exists():
            assert [entry.release for entry in book.entries()] == [release(1)]
        reserve(book, release(1))  # the retry
        book.confirm(release(1))
        assert book.summary().total.spent == cost
        assert [entry.confirmed for entry in book.entries()] == [True]
        if not killed:
            break
    assert kill_at > 80


def test_a_process_killed_inside_a_transaction_leaves_no_lock_and_no_half_entry(tmp_path):
    reserve(ledger(tmp_path), release(1))
    pid = os.fork()
    if pid == 0:
        with ledger(tmp_path)._file(tmp_path / "ledger.sqlite") as connection:
            connection.execute("DELETE FROM releases")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [entry.release.round for entry in ledger(tmp_path).entries()] == [1]


def test_events_are_kept_as_readable_json(tmp_path):
    reserve(ledger(tmp_path), release(1))
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    (text,) = connection.execute("SELECT events FROM releases").fetchone()
    connection.close()
    assert json.loads(text) == [
        {
            "mechanism": "gaussian",
            "noise_multiplier": 2.0,
            "sampling_rate": 0.1,
            "steps": 10,
        }
    ]


def test_two_runs_of_one_study_share_the_budget_that_was_approved(tmp_path):
    book = ledger(tmp_path)

    def run_it_again_and_again():
        for run in range(100):
            reserve(book, release(1, study_hash=bytes([run]) * 32), 1.5)

    with pytest.raises(BudgetError, match="of study study-a"):
        run_it_again_and_again()
    assert len(book.summary().studies) == 1
    assert book.summary().studies[0].account.reserved <= 1.5
