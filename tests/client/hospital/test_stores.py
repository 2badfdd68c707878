"""No way back: older and missing stores are refused at the start, and a crash never is."""

import itertools
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.recovery import recover, write_off
from consilium.client.hospital.stores import older_stores, open_compared
from consilium.client.ledger.store import Ledger
from consilium.client.secure_sum.journal import RoundJournal
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.study.run import RoundResult, run_study
from consilium.shared.audit.events import Mended, OwnPartGivenUp
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.site_record import read_site_record
from consilium.shared.backup.create import back_up
from consilium.shared.backup.restore import restore
from consilium.shared.errors import AuditError, BudgetError, ConsiliumError
from tests.client.hospital.hospitals import (
    APPROVED,
    POLICY,
    STUDY,
    VICTIM,
    Hospitals,
    copy,
    fresh,
    masked,
)
from tests.deployment.operations_page import LOSSES, says

LEDGER, JOURNAL, LOG, OWN = "ledger.sqlite", "journal.sqlite", "audit.jsonl", "personal"
ROOT = Path(__file__).parents[3]
STORES = (LEDGER, JOURNAL, LOG, OWN)
HEADS = "heads.sqlite"
NOW, OLDER, MISSING = "now", "older", "missing"


class Past:
    """A run of five rounds, every site's folder after three of them and now, and the states."""

    def __init__(self, root: Path) -> None:
        hospitals = Hospitals(root / "sites")
        three = hospitals.rounds(fresh(), 3)
        del hospitals
        self.older = copy(root / "sites", root / "older")
        hospitals = Hospitals(root / "sites")
        two = hospitals.rounds(three[-1].state, 2)
        self.results: list[RoundResult] = [*three, *two]
        assert [result.survivors for result in self.results] == [STUDY.sites] * 5
        self.parameters, self.roster = hospitals.parameters, hospitals.roster
        del hospitals
        self.now, self.state = root / "sites", self.results[-1].state

    def heads(self) -> SiteHeads:
        """What an honest coordinator holds now."""
        heads = SiteHeads(dict(self.roster.members))
        for site, head in self.results[-1].audit_heads.items():
            heads.note(site, head)
        return heads

    def mixed(self, to: Path, **stores: str) -> Path:
        """A copy of all sites now, the victim's stores as said; its known heads are the older."""
        copy(self.now, to)
        for store in (HEADS, *STORES):
            state = stores.get(store.partition(".")[0], OLDER if store == HEADS else NOW)
            if state != NOW:
                put(to / VICTIM / store, self.older / VICTIM / store, state)
        return to


def put(path: Path, older: Path, state: str) -> None:
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if state == OLDER:
        (shutil.copytree if older.is_dir() else shutil.copy)(older, path)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return Past(tmp_path_factory.mktemp("past"))


def victim(root: Path) -> SiteFolder:
    return SiteFolder.open(root / VICTIM)


def refused(root: Path) -> str:
    """The sentence with which the victim does not start; empty if it starts."""
    try:
        open_compared(victim(root), APPROVED)
    except ConsiliumError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_every_combination_of_older_and_missing_stores_is_refused_or_harmless(
    past, tmp_path
) -> None:
    started = []
    for number, states in enumerate(itertools.product((NOW, OLDER, MISSING), repeat=4)):
        stores = dict(zip((store.partition(".")[0] for store in STORES), states, strict=True))
        root = past.mixed(tmp_path / str(number), **stores)
        before = sorted(path.name for path in (root / VICTIM).iterdir())
        sentence = refused(root)
        if not sentence:
            started.append(states)
        else:
            assert "restore" in sentence or "consilium-site recover" in sentence, states
            after = sorted(path.name for path in (root / VICTIM).iterdir())
            assert set(after) - set(before) <= {f"{JOURNAL}-wal", f"{JOURNAL}-shm"}, states
        shutil.rmtree(root)
    # All as it is now; and the folder as it was, the own part of any age: what agrees with itself.
    assert started == [(NOW,) * 4, (OLDER, OLDER, OLDER, NOW), (OLDER,) * 4]


def test_each_loss_of_the_runbook_says_the_sentence_that_stands_in_its_table(
    past, tmp_path
) -> None:
    losses = [
        *({store.partition(".")[0]: state} for store in STORES for state in (OLDER, MISSING)),
        {"ledger": OLDER, "journal": OLDER, "audit": OLDER, "personal": OLDER, "heads": NOW},
    ]
    found = []
    for number, states in enumerate(losses):
        sentence = refused(past.mixed(tmp_path / str(number), **states))
        matching = [quoted for quoted in LOSSES if says(sentence, quoted)]
        assert matching, (states, sentence)
        found += matching
    assert set(found) == set(LOSSES)


@pytest.mark.parametrize("own", [NOW, OLDER])
def test_a_folder_that_was_put_back_as_a_whole_takes_part_in_no_round(past, tmp_path, own) -> None:
    root = past.mixed(tmp_path / "sites", ledger=OLDER, journal=OLDER, audit=OLDER, personal=own)
    hospitals, before = Hospitals(root), masked(root / VICTIM)
    # An honest coordinator shows the head that the victim signed; it refuses before any round.
    result = hospitals.rounds(past.state, 1, past.heads())[0]
    assert result.survivors == ("b", "c", "d")
    assert {refusal.code for refusal in hospitals.said(VICTIM)} == {"OldStateError"}
    assert "others were shown entry" in hospitals.noted(VICTIM)[0]
    assert masked(root / VICTIM) == before
    # It remembers, and does not start again.
    assert "others were shown entry" in refused(root)


def test_a_coordinator_that_hides_the_newest_head_finds_the_other_sites_refusing(
    past, tmp_path
) -> None:
    root = past.mixed(tmp_path / "sites", ledger=OLDER, journal=OLDER, audit=OLDER, personal=OLDER)
    hospitals = Hospitals(root)
    result = hospitals.rounds(past.state, 1)[0]  # it knows but what the sites now show it
    assert result.void is not None
    for site in ("b", "c", "d"):
        assert "audit log of site a is shown at entry" in hospitals.noted(site)[-1]
    # Nor do older heads, or none at all, help it.
    for shown in (past.results[0], past.results[2], None):
        shutil.rmtree(root)
        past.mixed(root, ledger=OLDER, journal=OLDER, audit=OLDER, personal=OLDER)
        hospitals = Hospitals(root)
        assert hospitals.rounds(past.state, 1, Lying(past, shown))[0].void is not None


class Lying(SiteHeads):
    """Heads of a coordinator that shows the victim's as of another round, and learns nothing."""

    def __init__(self, past: Past, shown: RoundResult | None) -> None:
        super().__init__(dict(past.roster.members))
        for site, head in past.results[-1].audit_heads.items():
            if site != VICTIM:
                super().note(site, head)
            elif shown is not None:
                super().note(site, shown.audit_heads[site])

    def note(self, site: str, encoded: bytes) -> None:
        if site != VICTIM:
            super().note(site, encoded)


def test_a_state_put_back_by_one_round_is_noticed_by_those_who_opened_that_round(
    tmp_path,
) -> None:
    hospitals = Hospitals(tmp_path / "sites")
    results = hospitals.rounds(fresh(), 2)
    del hospitals
    before = copy(tmp_path / "sites" / VICTIM, tmp_path / "before")
    hospitals = Hospitals(tmp_path / "sites")
    results += hospitals.rounds(results[-1].state, 1)
    del hospitals
    shutil.rmtree(tmp_path / "sites" / VICTIM)
    copy(before, tmp_path / "sites" / VICTIM)
    hospitals = Hospitals(tmp_path / "sites")
    assert hospitals.rounds(results[-1].state, 1)[0].void is not None
    assert "audit log of site a is shown at entry" in hospitals.noted("b")[-1]


def test_all_put_back_and_everybody_lying_is_the_case_that_remains(past, tmp_path) -> None:
    """If nobody who is asked has kept a later head, nothing tells the old state from the new."""
    root = copy(past.older, tmp_path / "sites")
    assert Hospitals(root).rounds(past.results[2].state, 1)[0].survivors == STUDY.sites


def test_a_site_that_answers_goes_on_in_the_next_round_and_after_a_restart(past, tmp_path) -> None:
    root = copy(past.now, tmp_path / "sites")
    hospitals = Hospitals(root)
    first = hospitals.rounds(past.state, 1, past.heads())[0]
    assert first.survivors == STUDY.sites
    second = Hospitals(root).rounds(first.state, 1)[0]  # a coordinator that forgot all heads
    assert second.survivors == STUDY.sites
    assert max(masked(root / VICTIM).values()) == 1


def test_a_site_that_joins_after_the_coordinator_forgot_its_head_voids_no_round(
    past, tmp_path
) -> None:
    hospitals = Hospitals(copy(past.now, tmp_path / "sites"))
    heads = SiteHeads(dict(past.roster.members))  # of a coordinator killed before it noted any
    absent = hospitals.sessions.pop(VICTIM)
    rounds = run_study(STUDY, past.parameters, hospitals, past.state, site_heads=heads)
    assert next(rounds).survivors == ("b", "c", "d")
    hospitals.sessions[VICTIM] = absent
    assert next(rounds).survivors == STUDY.sites


def test_a_coordinator_that_was_put_back_has_no_round_masked_twice(past, tmp_path) -> None:
    root = copy(past.now, tmp_path / "sites")
    hospitals, state = Hospitals(root), past.results[1].state
    for _ in range(8):
        try:
            state = hospitals.rounds(state, 1)[-1].state
        except ConsiliumError:
            state = replace(state, next_round=state.next_round + 1)
    assert "masked before" in " ".join(reason for _, reason in hospitals.reasons)
    for site in STUDY.sites:
        rounds = masked(root / site)
        assert max(rounds.values()) == 1
        assert {number for _, number in rounds} > {1, 2, 3, 4, 5}  # and it went on above them


@pytest.mark.sampled(2)
@pytest.mark.parametrize("state", [OLDER, MISSING])
@pytest.mark.parametrize("store", ["ledger", "journal"])
def test_a_lost_ledger_or_journal_is_written_anew_from_the_log(
    past, tmp_path, store, state
) -> None:
    root = past.mixed(tmp_path / "sites", **{store: state})
    assert "run 'consilium-site recover'" in refused(root)
    done = recover(victim(root), APPROVED, begin_own_parts_anew=False)
    assert (done.releases > 0, done.runs > 0) == (store == "ledger", store == "journal")
    assert refused(root) == ""
    now, again = (SiteFolder.open(at / VICTIM).ledger(POLICY) for at in (past.now, root))
    assert again.summary() == now.summary()
    assert [e.release for e in again.entries()] == [e.release for e in now.entries()]
    assert Hospitals(root).rounds(past.state, 1, past.heads())[0].survivors == STUDY.sites
    assert kinds(root).count(Mended) == 1
    assert recover(victim(root), APPROVED, begin_own_parts_anew=True).releases == 0


def kinds(root: Path) -> list[type]:
    from consilium.shared.audit.entry import AuditEntry
    from consilium.shared.audit.reading import read_lines

    lines = read_lines(root / VICTIM / LOG)
    return [type(AuditEntry.from_line(line).event) for line in lines]


@pytest.mark.parametrize("state", [OLDER, MISSING])
def test_a_lost_own_part_is_given_up_by_name_only(past, tmp_path, state) -> None:
    root = past.mixed(tmp_path / "sites", personal=state)
    assert "own part of study no-way-back" in refused(root)
    assert older_stores(victim(root), frozenset()) == []  # a study that is withdrawn needs none
    with pytest.raises(AuditError, match="own part of study"):
        recover(victim(root), APPROVED, begin_own_parts_anew=False)
    assert recover(victim(root), APPROVED, begin_own_parts_anew=True).own_parts == 1
    assert refused(root) == ""
    assert OwnPartGivenUp in kinds(root)


def test_nothing_is_recovered_from_a_log_that_is_older_itself(past, tmp_path) -> None:
    root = past.mixed(tmp_path / "sites", audit=OLDER)
    with pytest.raises(AuditError, match=r"audit.jsonl is older than journal.sqlite"):
        recover(victim(root), APPROVED, begin_own_parts_anew=True)
    (root / VICTIM / LOG).unlink()
    with pytest.raises(AuditError, match="is missing, and this site was used"):
        recover(victim(root), APPROVED, begin_own_parts_anew=True)
    root = past.mixed(tmp_path / "cut", ledger=MISSING, heads=NOW)
    lines = (root / VICTIM / LOG).read_bytes().splitlines(keepends=True)
    (root / VICTIM / LOG).write_bytes(b"".join(lines[:-6]))
    with pytest.raises(AuditError, match="nothing can be written anew from it"):
        recover(victim(root), APPROVED, begin_own_parts_anew=True)


def test_a_state_that_is_written_off_can_spend_nothing_until_the_lifetime_is_raised(
    past, tmp_path
) -> None:
    root = past.mixed(tmp_path / "sites", ledger=OLDER, journal=OLDER, audit=OLDER)
    folder, identity = victim(root), victim(root).identity().public
    release = folder.ledger(POLICY).entries()[-1].release
    written, aside = write_off(folder)
    assert written.epsilon == POLICY.lifetime_epsilon
    assert folder.identity().public != identity
    assert not (folder.path / "coordinator.msgpack").exists()
    assert {path.name for path in aside.iterdir()} >= {f"old-{LOG}", f"old-{JOURNAL}"}
    book = folder.ledger(POLICY)
    assert book.summary().total.left == 0.0
    later = replace(release, study_digest=b"n" * 32, study_hash=b"n" * 32)
    with pytest.raises(BudgetError, match="this site's lifetime"):
        book.reserve(later, study_epsilon=8.0, study_delta=1e-5)
    raised = Ledger(
        folder.path / LEDGER, lifetime_epsilon=POLICY.lifetime_epsilon + 8.0, delta=POLICY.delta
    )
    raised.reserve(later, study_epsilon=8.0, study_delta=1e-5)
    with pytest.raises(BudgetError, match="lost and written off"):
        raised.reserve(replace(release, study_hash=b"o" * 32), study_epsilon=80.0, study_delta=1e-5)
    spent = raised.summary().total
    assert POLICY.lifetime_epsilon < spent.spent + spent.reserved <= POLICY.lifetime_epsilon + 8.0


def test_an_older_backup_comes_back_closed_or_not_at_all(past, tmp_path) -> None:
    archive = tmp_path / "older.tar"
    back_up(past.older / VICTIM, archive, kind="site", owner=VICTIM, version="0.1.0")
    newest = AuditHead.from_bytes(past.results[-1].audit_heads[VICTIM])
    how = {"kind": "site", "version": "0.1.0", "newest": [newest]}
    with pytest.raises(AuditError, match="give --write-off"):
        restore(archive, tmp_path / "back", **how)
    restore(archive, tmp_path / "back", **how, close=lambda at: write_off(SiteFolder.open(at)))
    closed = SiteFolder.open(tmp_path / "back")
    assert closed.ledger(POLICY).summary().total.left == 0.0
    assert closed.identity().public != SiteFolder.open(past.now / VICTIM).identity().public
    back_up(closed.path, tmp_path / "closed.tar", kind="site", owner=VICTIM, version="0.1.0")


def test_a_backup_of_now_comes_back_and_the_site_goes_on(past, tmp_path) -> None:
    root = copy(past.now, tmp_path / "sites")
    back_up(root / VICTIM, tmp_path / "now.tar", kind="site", owner=VICTIM, version="0.1.0")
    shutil.rmtree(root / VICTIM)
    newest = AuditHead.from_bytes(past.results[-1].audit_heads[VICTIM])
    restore(
        tmp_path / "now.tar", root / VICTIM, kind="site", version="0.1.0", newest=[newest, newest]
    )
    assert Hospitals(root).rounds(past.state, 1, past.heads())[0].survivors == STUDY.sites


def test_a_ledger_that_is_put_back_while_the_site_runs_is_refused(past, tmp_path, caplog) -> None:
    root = copy(past.now, tmp_path / "sites")
    hospitals = Hospitals(root)
    result = hospitals.rounds(past.state, 1, past.heads())[0]
    put(root / VICTIM / LEDGER, past.older / VICTIM / LEDGER, OLDER)
    hospitals.rounds(result.state, 1)
    assert hospitals.said(VICTIM)[-1].code == "UnableError"
    assert "put back to an older state while the site ran" in caplog.text


def test_a_folder_of_an_older_version_opens(past, tmp_path) -> None:
    """Its journal noted no end of the log, its ledger has no write-offs, its log no charges."""
    import sqlite3

    root = copy(past.now, tmp_path / "sites")
    with sqlite3.connect(root / VICTIM / JOURNAL) as journal:
        journal.execute("DROP TABLE log_end")
    with sqlite3.connect(root / VICTIM / LEDGER) as ledger:
        ledger.execute("DROP TABLE written_off")
        ledger.execute("PRAGMA user_version = 1")
    assert refused(root) == ""


# Crashes: at any line between the first and the last write of a round.


def kill_and_go_on(past: Past, tmp_path: Path, kills: int) -> set[str]:
    """Kill at so many lines of a round, start again, run another; say what the crashes had left."""
    copy(past.now, tmp_path / "sites")
    (tmp_path / "state").write_bytes(pickle.dumps(past.state))
    (tmp_path / "heads").write_bytes(pickle.dumps(past.results[-1].audit_heads))
    program = [sys.executable, "-m", "tests.client.hospital.kills", str(tmp_path), str(kills)]
    done = subprocess.run(
        program,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    left = set()
    for root in sorted((tmp_path / "killed").iterdir()):
        assert refused(root) == "", root.name
        left.add(what_is_left(root, past.state.next_round))
        state = past.state.after_crash(STUDY)
        result = Hospitals(root).rounds(state, 1, past.heads())[0]
        assert result.survivors == STUDY.sites, (root.name, result.void, result.refusals)
        check_books(root)
    return left


def what_is_left(root: Path, number: int) -> str:
    """Which of a round's steps are on disk, as one word each."""
    folder = victim(root)
    entries = [e for e in folder.ledger(POLICY).entries() if e.release.round == number]
    record = read_site_record(folder.path / LOG)
    run = next(iter(record.rounds))
    held = folder.personal().held(STUDY.digest, run)
    steps = {
        "reserved": bool(entries),
        "claimed": RoundJournal(folder.path / JOURNAL).highest(run) == number,
        "kept": held is not None and held.round == number,
        "recorded": record.rounds[run] == number,
        "confirmed": any(entry.confirmed for entry in entries),
    }
    done = list(steps.values())
    assert done == sorted(done, reverse=True), steps  # in this order, and no other
    return "-".join(name for name, is_done in steps.items() if is_done) or "nothing"


def check_books(root: Path) -> None:
    for site in STUDY.sites:
        folder = SiteFolder.open(root / site)
        assert max(masked(folder.path).values()) == 1, root.name
        assert older_stores(folder, APPROVED) == [], root.name


ORDER = ["reserved", "claimed", "kept", "recorded", "confirmed"]
STEPS = {"-".join(ORDER[:done]) or "nothing" for done in range(6)}


@pytest.mark.slow
def test_a_site_that_is_killed_while_it_writes_starts_and_goes_on(past, tmp_path) -> None:
    assert {"nothing", "-".join(ORDER)} < kill_and_go_on(past, tmp_path, 12) <= STEPS


@pytest.mark.slow
def test_a_site_that_is_killed_at_any_line_that_writes_starts_and_goes_on(past, tmp_path) -> None:
    assert kill_and_go_on(past, tmp_path, 60) == STEPS
