"""Outages that a study lives through: absence, partition, full disk, wrong clock, old papers."""

import resource
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consilium.server.coordinator.certificates import CertificateFiles, issue_server_certificate
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.register import Register, Wanted
from consilium.server.flower.database_link import LinkGrid
from consilium.server.flower.sites import FlowerSites
from consilium.server.service.study_process import StudyProcess
from consilium.shared.audit.own_log import open_audit
from consilium.shared.secure_sum.messages import Action
from tests.deployment.cable import Cable
from tests.deployment.federation import PATIENCE, SITES, Federation, tiny_study, write_records
from tests.deployment.ledgers import check_books
from tests.deployment.moments import TAKEN, Moment, Watcher

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SKEWED = """
import datetime, time
_real, _ahead = time.time, {seconds}
time.time = lambda: _real() + _ahead
class Skewed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
datetime.datetime = Skewed
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, patients=60, seed=1)
    return folder


@pytest.fixture
def federation(records: Path, tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path / "federation", records)
    yield made
    made.close()


def start(federation: Federation) -> None:
    federation.start("coordinator")
    for site in SITES:
        federation.start(site)


def rounds_with(federation: Federation, site: str) -> list[bool]:
    return [site in record["sites"] for record in federation.records_of()]


def test_absent_cut_off_and_full_sites_miss_rounds_and_come_back(federation: Federation) -> None:
    # Weights too long for a short message, so that both ways of messages are tried.
    # More rounds than pass while a site starts, on however fast a machine; it is stopped.
    federation.prepare(tiny_study(rounds=400, mode="site", timeout=12.0, hidden=300))
    cable = Cable(federation.port)
    with (federation.site("south") / "site.toml").open("a") as settings:
        settings.write(f'[coordinator]\nhost = "127.0.0.1"\nport = {cable.port}\n')
    start(federation)

    def reach(rounds: int) -> None:
        def there() -> bool:
            return len(federation.records_of()) >= rounds

        federation.wait_for(there, f"{rounds} rounds", 90)

    def back(site: str) -> None:
        federation.wait_for(lambda: rounds_with(federation, site)[-1], f"{site} to be back", 60)

    reach(3)
    # A site offline for three rounds and more.
    federation.kill("north")
    reach(len(federation.records_of()) + 4)
    assert not any(rounds_with(federation, "north")[-3:])
    federation.start("north")
    back("north")

    # A partition in the middle of unmask.
    watcher = Watcher(federation.coordinator / "link.sqlite")
    assert watcher.wait_for(Moment("unmask", TAKEN), 30 * PATIENCE)
    cable.pull()
    before = len(federation.records_of())
    reach(before + 2)
    assert not rounds_with(federation, "south")[-1]
    cable.plug()
    back("south")

    # A disk that takes nothing more: files of this process cannot grow.
    pid = federation.processes["east"].pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    released = (federation.site("east") / "audit.jsonl").stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    before = len(federation.records_of())
    reach(before + 3)
    assert not any(rounds_with(federation, "east")[-2:])
    assert (federation.site("east") / "audit.jsonl").stat().st_size <= released + 8192
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    back("east")

    federation.want(Wanted.STOP)
    federation.close()
    cable.close()
    records = federation.records_of()
    assert all(record["void"] is None for record in records), [r["void"] for r in records]
    check_books(federation)


def test_an_expired_certificate_stops_the_line_and_a_renewed_one_opens_it(
    federation: Federation,
) -> None:
    federation.prepare(tiny_study(rounds=400, mode="none", timeout=12.0))
    start(federation)
    federation.wait_for(lambda: len(federation.records_of()) >= 3, "the first rounds", 60)
    files = CertificateFiles.under(federation.coordinator / "tls")
    long_ago = datetime.now(UTC) - timedelta(days=30)
    issue_server_certificate(files, ["127.0.0.1"], days=10, now=long_ago)
    federation.wait_for(lambda: "has expired" in federation.said("north"), "sites to notice", 30)
    told = federation.hospital("north", "preflight", fails=True)
    assert "certificate has expired" in told
    assert "rotate-keys" in told
    stood = len(federation.records_of())
    federation.operator("rotate-keys")
    federation.wait_for(
        lambda: [len(r["sites"]) for r in federation.records_of()[stood + 2 :]].count(4) >= 2,
        "all sites to be back", 90,
    )  # fmt: skip
    federation.want(Wanted.STOP)
    federation.close()
    check_books(federation, private=False)


class Confusing:
    """Sites that get every message twice, and between rounds those of the round before again."""

    def __init__(self, sites: FlowerSites) -> None:
        self._sites = sites
        self._before: dict[Action, dict[str, bytes]] = {}

    def names(self) -> tuple[str, ...]:
        return self._sites.names()

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes]]:
        kept = {site: bodies[site] for site in bodies}
        if action is Action.UPDATE:  # yesterday's unmask comes late, and yesterday's update again
            for old in (Action.UNMASK, Action.UPDATE):
                if old in self._before:
                    list(self._sites.ask(old, self._before[old], timeout_s=timeout_s))
        self._before[action] = kept
        yield from self._sites.ask(action, kept, timeout_s=timeout_s)
        list(self._sites.ask(action, kept, timeout_s=timeout_s))


def test_doubled_and_reordered_messages_change_nothing(federation: Federation) -> None:
    federation.prepare(tiny_study(rounds=4, mode="site", timeout=20.0))
    federation.serve()
    for site in SITES:
        federation.start(site)
    folder = CoordinatorFolder.open(federation.coordinator)
    register: Register = folder.register()
    [submitted] = register.studies()
    nodes = {member.name: member.node_id for member in register.members()}
    place = folder.study(submitted.digest)
    with LinkGrid(folder.link_database, place / "flower-run") as grid:
        sites = FlowerSites(grid, nodes, poll_s=0.01, forget=grid.forget)
        process = StudyProcess(register, submitted, place, open_audit(folder))
        process.run(Confusing(sites), 60.0 * PATIENCE)
    records = federation.records_of()
    assert [len(record["sites"]) for record in records] == [4] * 5
    assert all(record["void"] is None for record in records)
    federation.close()
    check_books(federation)


def test_clocks_an_hour_off_hinder_nobody_and_a_paused_study_resumes_at_the_next_round(
    federation: Federation, tmp_path: Path
) -> None:
    federation.prepare(tiny_study(rounds=20, mode="site"))
    skewed = {"west": (3600, "ahead of"), "east": (-3600, "behind")}
    for site, (seconds, _) in skewed.items():
        wrong = tmp_path / f"clock-{site}"
        wrong.mkdir()
        (wrong / "sitecustomize.py").write_text(SKEWED.format(seconds=seconds))
        federation.environments[site] = {"PYTHONPATH": str(wrong)}
    start(federation)
    federation.pause_after(3)
    stood = federation.records_of()
    for site, (_, side) in skewed.items():
        told = federation.hospital(site, "preflight", fails=True, name=site)
        assert f"s {side} the coordinator" in told
        assert "switch on the system's time service" in told
    assert federation.records_of() == stood
    federation.operator("resume", "tiny")
    federation.finish(60)
    rounds = federation.records_of()
    assert [record["round"] for record in rounds] == sorted({r["round"] for r in rounds})
    assert sum(record["purpose"] == "training" for record in rounds) == 20
    assert all(rounds_with(federation, "west"))
    assert all(rounds_with(federation, "east"))
    federation.close()
    check_books(federation)
