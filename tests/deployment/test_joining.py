"""A study that changes hands: a fifth hospital joins, one leaves; the model is as it must be."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.known_sizes import KnownSizes
from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.state import SiteState
from consilium.client.ledger.store import Ledger
from consilium.client.round.session import Session
from consilium.client.secure_sum.journal import RoundJournal
from consilium.client.service.site_cohort import site_cohort
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.register import Register, Wanted
from consilium.server.coordinator.roster_book import versions_of
from consilium.server.secure_sum.group_sums import GroupSums
from consilium.server.study.aggregation import start
from consilium.server.study.checkpoints import load_checkpoint
from consilium.server.study.run import RunState, run_round
from consilium.shared.audit.reading import rosters_in_force
from consilium.shared.crypto.keys import Roster
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.rounds.contents import Purpose, group_parameters
from consilium.shared.secure_sum.messages import Action
from consilium.shared.study.definition import Study
from tests.deployment.federation import POLICY, SITES, Federation, tiny_study, write_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
JOINER = "hill"
ROUNDS = 90


def test_a_site_joins_a_running_study_and_another_leaves_it(tmp_path: Path) -> None:
    write_records(tmp_path / "records", patients=12, seed=3)
    made = Federation(
        root=tmp_path / "run",
        records=tmp_path / "records",
        sites={site: number + 1 for number, site in enumerate(SITES)} | {JOINER: 2},
    )
    made.prepare(tiny_study(rounds=ROUNDS))
    by_rule = "\n[roster]\nmembers_by_rule = true\n"
    (made.site("west") / "policy.toml").write_text(POLICY + by_rule)
    (made.site("north") / "policy.toml").write_text(POLICY + by_rule)
    try:
        made.start("coordinator")
        made.wait_for(made.is_serving, "the coordinator to serve", 30)
        for site in made.sites:
            made.start(site)
        made.pause_after(3)
        made.operator("roster", "tiny", "--join", JOINER)
        made.hospital(JOINER, "approve", "tiny", "--yes")
        for site in ("east", "south"):
            assert "hill joins" in made.hospital(site, "roster", "tiny", "--accept")
        made.wait_for(lambda: not proposed(made)["missing"], "the others to agree by rule", 60)
        go_on(made)
        made.kill("coordinator")  # whatever it was in: nothing of what was agreed is lost
        made.start("coordinator")
        made.wait_for(lambda: rounds_with(made, JOINER) >= 3, "rounds with the joiner", 90)
        made.pause_after(0)
        told = made.operator("roster", "tiny", "--leave", "south")
        assert "Roster 3 is proposed: south leaves" in told
        for site in ("east", JOINER):
            made.hospital(site, "roster", "tiny", "--accept")
        made.wait_for(lambda: not proposed(made)["missing"], "the others to agree by rule", 60)
        go_on(made)
        made.finish(240)
        (study,) = made.overview()["studies"]
        second, third = study["roster_versions"]
        assert (second["joined"], second["left"]) == ([JOINER], [])
        assert (third["joined"], third["left"]) == ([], ["south"])
        approvals = made.site("south") / "approvals"
        made.wait_for(lambda: not [*approvals.glob("*.offer")], "south to be told", 60)
        digest = bytes.fromhex(study["digest"])
        for site in made.sites:
            made.hospital(site, "audit", "verify")
            noted = rosters_in_force(made.site(site) / "audit.jsonl", digest)
            expected = [third] if site == JOINER else [second, third]
            assert [(e.version, e.roster.hex(), e.round) for e in noted] == [
                (v["version"], v["digest"], v["round"]) for v in expected
            ]
        made.operator("audit", "verify")
        assert "diverged" not in (made.coordinator / "audit.jsonl").read_text()
        for record in made.records_of():
            version = record["roster"]["version"]
            assert (JOINER in record["sites"]) <= (version >= 2)
            assert ("south" in record["sites"]) <= (version <= 2)
        played = replay(made, digest, tmp_path / "replay")
        ended = load_checkpoint(CoordinatorFolder.open(made.coordinator).study(digest))
        assert ended is not None
        assert np.array_equal(ended.state.server.weights_D, played)
    finally:
        made.close()


def proposed(made: Federation) -> dict[str, object]:
    from consilium.server.coordinator.roster_book import proposal_of

    register = Register(made.coordinator / "register.sqlite")
    found = proposal_of(register, register.study("tiny"))
    assert found is not None
    return {"missing": found.missing}


def go_on(made: Federation) -> None:
    from consilium.server.commands.steering import want

    want(CoordinatorFolder.open(made.coordinator), "tiny", Wanted.RUN, by="test")


def rounds_with(made: Federation, site: str) -> int:
    return sum(site in record["sites"] for record in made.records_of())


class Replayed:
    """Sessions of one roster's sites in this process; those that a round lacked are not asked."""

    def __init__(self, made: Federation, study: Study, roster: Roster, folder: Path) -> None:
        self.present: frozenset[str] = frozenset()
        self.sessions = {}
        for site in study.sites:
            place = folder / site
            place.mkdir(parents=True)
            opened = SiteFolder.open(made.site(site))
            state = SiteState(
                identity=opened.identity(),
                ledger=Ledger(place / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5),
                journal=RoundJournal(place / "journal.sqlite"),
                split_key=opened.split_key(),
                personal=PersonalStore(place / "personal"),
                audit=None,
            )
            self.sessions[site] = Session(
                site=site,
                study=study,
                roster=roster,
                sizes=KnownSizes({}),
                read=lambda opened=opened: site_cohort(opened, study),
                policy=Policy(allow_without_privacy=True, minimum_patients=1),
                state=state,
            )

    def names(self) -> tuple[str, ...]:
        return tuple(self.sessions)

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes]]:
        for site, body in bodies.items():
            if site in self.present:
                yield site, self.sessions[site].handle(action, body).body


def replay(made: Federation, digest: bytes, folder: Path) -> np.ndarray:
    """The weights that the same rounds give among the same rosters, in one process."""
    register = Register(made.coordinator / "register.sqlite")
    submitted = register.study(digest.hex())
    versions = {v.version.number: v.version.roster for v in versions_of(register, digest)}
    first = dict(versions[2].members)
    declared = dict(zip(versions[2].names, versions[2].declared, strict=True))
    versions[1] = Roster(
        tuple((site, first[site]) for site in sorted(SITES)),
        tuple(declared[site] for site in sorted(SITES)),
    )
    state = RunState(server=start(to_vector(study_model(submitted.study))))
    current, sums, sites, study = 0, None, None, submitted.study
    for record in sorted(made.records_of(), key=lambda record: record["round"]):
        if record["void"] is not None:
            continue  # it changed no weight
        if record["roster"]["version"] != current:
            current = record["roster"]["version"]
            roster, study = versions[current], submitted.study.among(versions[current].names)
            sites = Replayed(made, study, roster, folder / str(current))
            sites.present = frozenset(roster.names)
            parameters = group_parameters(study, roster, bytes(16))
            sums = GroupSums.secure(parameters, sites, timeout_s=60.0)
            state = RunState(**{**vars(state), "groups": sums.nothing_known()})
            sums.open(round=record["round"], known=state.groups)
        sites.present = frozenset(record["sites"])
        state = RunState(**{**vars(state), "next_round": record["round"]})
        result = run_round(study, sums, state, Purpose(record["purpose"]))
        assert result.void is None
        assert set(result.survivors) == set(record["sites"])
        state = result.state
    return state.server.weights_D
