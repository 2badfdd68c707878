"""A hospital that comes back: after a revocation, and on a new machine by its recovery code."""

import shutil
from pathlib import Path

import pytest

from consilium.client.hospital.folder import SiteFolder
from consilium.client.ledger.store import Ledger
from consilium.client.service.enroll import leave_recovery
from consilium.shared.audit.events import Vouched
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.reading import roster_changes
from consilium.shared.enrolment.fingerprint import fingerprint
from tests.deployment.federation import Federation, tiny_study, write_records

ROUNDS = 1000  # more than a study can have while commands start
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def federation(tmp_path: Path) -> Federation:
    """Four hospitals that have approved a study."""
    write_records(tmp_path / "records", patients=30, seed=3)
    made = Federation(root=tmp_path / "run", records=tmp_path / "records")
    made.prepare(tiny_study(rounds=ROUNDS, mode="distributed"))
    return made


def run(made: Federation) -> None:
    """Start all of them."""
    made.start("coordinator")
    made.wait_for(made.is_serving, "the coordinator to serve", 30)
    for site in made.sites:
        made.start(site)


def trained(made: Federation, rounds: int, site: str = "north") -> bool:
    """Whether so many rounds held this site's update."""
    return sum(site in record["sites"] for record in made.records_of()) >= rounds


def ledger(folder: Path) -> Ledger:
    return Ledger(folder / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5)


def test_a_revoked_site_comes_back_with_its_ledger_and_into_its_study(tmp_path: Path) -> None:
    made = federation(tmp_path)
    try:
        run(made)
        made.wait_for(lambda: trained(made, 3), "three rounds with north", 60)
        made.operator("revoke", "north", "--reason", "test")
        made.kill("north", 15)
        spent = ledger(made.site("north")).summary().total.spent
        assert spent > 0
        identity = SiteFolder.open(made.site("north")).identity().public
        made.enrol("north")
        made.start("north")
        before = sum("north" in record["sites"] for record in made.records_of())
        made.wait_for(lambda: trained(made, before + 2), "north to be back", 60)
        assert SiteFolder.open(made.site("north")).identity().public == identity
        assert ledger(made.site("north")).summary().total.spent > spent
        made.hospital("north", "audit", "verify")
    finally:
        made.close()


def test_a_lost_machine_goes_on_under_a_new_key_with_the_budget_that_is_left(
    tmp_path: Path,
) -> None:
    made = federation(tmp_path)
    place = tmp_path / "second"
    place.mkdir()
    north = SiteFolder.open(made.site("north"))
    made_code = north.make_recovery_code()
    assert made_code is not None
    code = " ".join(made_code.words())
    with (made.site("north") / "site.toml").open("a") as settings:
        settings.write(f'[recovery]\nsecond_place = "{place}"\n')
    try:
        run(made)
        assert leave_recovery(north, open_audit(north))
        made.wait_for(lambda: trained(made, 3), "three rounds with north", 60)
        made.kill("north")
        spent = ledger(made.site("north")).summary()
        size = made.overview()["studies"][0]["declared_sizes"]["north"]
        shutil.move(made.site("north"), tmp_path / "lost")

        made.hospital("north", "init", "--site", "north")
        with (made.site("north") / "site.toml").open("a") as settings:
            settings.write(made._data_settings(made.sites["north"]))
            settings.write(f'[recovery]\nsecond_place = "{place}"\n')
        (made.site("north") / "policy.toml").write_text(made.policy)
        made.operator("revoke", "north", "--reason", "its machine is lost")
        token = made.operator("invite", "north")
        head = made.hospital("east", "audit", "head", "north").split()[0]
        told = made.hospital(
            "north", "enroll", "-", "--recover", "--second-place", str(place), "--head", head,
            said=f"{token}\n{code}\n",
        )  # fmt: skip
        assert "The budget goes on" in told
        carried = ledger(made.site("north")).summary()
        most = spent.total.spent + spent.total.reserved  # of a round that may not have left
        assert spent.total.spent * (1 - 1e-9) <= carried.total.spent <= most * (1 + 1e-9)

        vouch_for_all(made, "north")
        made.hospital("north", "approve", "tiny", "--yes", "--patients", str(size))
        made.start("north")
        before = sum("north" in record["sites"] for record in made.records_of())
        made.wait_for(lambda: trained(made, before + 2), "north to be back", 60)
        assert ledger(made.site("north")).summary().total.spent > carried.total.spent
        made.hospital("north", "audit", "verify")
        new = SiteFolder.open(made.site("north")).identity().public
        for site in ("east", "south", "west"):
            made.hospital(site, "audit", "verify")
            folder = SiteFolder.open(made.site(site))
            digest = next(iter((made.site(site) / "approvals").glob("*.offer"))).stem
            (change,) = roster_changes(folder.path / "audit.jsonl", bytes.fromhex(digest))
            assert (change.site, change.after, change.version) == ("north", new, 2)
            assert change.by == "rule: same hospital, new key"
        made.operator("audit", "verify")
        assert "diverged" not in (made.coordinator / "audit.jsonl").read_text()
    finally:
        made.close()


def vouch_for_all(made: Federation, site: str) -> None:
    """Let a new machine's people telephone all others."""
    folder = SiteFolder.open(made.site(site))
    audit = open_audit(folder)
    for name in made.sites:
        if name != site:
            known = fingerprint(name, SiteFolder.open(made.site(name)).identity().public)
            event = Vouched(hospital=name, fingerprint=known, vouched=True, by="test")
            folder.vouchers().vouch(name, known, recorded=lambda event=event: audit.append(event))
