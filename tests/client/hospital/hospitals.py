"""Four hospitals with real folders, opened as `run_site` does, and a coordinator in process."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from consilium.client.hospital.folder import JOURNAL_FILE, Enrolment, SiteFolder
from consilium.client.hospital.known_sizes import KnownSizes
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.stores import open_compared
from consilium.client.records.cohort import read_cohort
from consilium.client.round.session import Session
from consilium.client.secure_sum.journal import RoundJournal
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.study.aggregation import start
from consilium.server.study.run import RoundResult, RunState, run_study
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.site_record import read_site_record
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.rounds.contents import group_parameters
from consilium.shared.secure_sum.messages import Action, Refusal
from consilium.shared.study.definition import parse_study
from consilium.shared.study.input_names import feature_names
from consilium.simulations.cohorts.hospitals import synthetic_hospital
from tests.rosters import sized_roster

STUDY = parse_study("""
name = "no-way-back"
title = "No way back"
rounds = 9
sites = ["a", "b", "c", "d"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
window_h = 6
[model]
hidden = 4
[training]
local_steps = 1
[personalisation]
parts = ["head"]
[evaluation]
validation_fraction = 0
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
""")
COORDINATOR = IdentityKey.from_seed(b"c" * 32)
RUN = bytes(16)
VICTIM = "a"
APPROVED = frozenset([STUDY.digest])
POLICY = Policy(allow_without_privacy=True)
COHORTS = {}


def cohort(site: str):
    """A site's synthetic patients; made once."""
    if site not in COHORTS:
        source = synthetic_hospital(STUDY.sites.index(site), STUDY)
        COHORTS[site] = read_cohort(source, STUDY, site=site, split_key=bytes(32))
    return COHORTS[site]


class Hospitals:
    """The sites of one folder, all started."""

    def __init__(self, root: Path, sites: tuple[str, ...] = STUDY.sites) -> None:
        self.root, self.refusals = root, []
        self.reasons: list[tuple[str, str]] = []
        for site in STUDY.sites:
            if not (root / site).exists():
                enrol(root / site, site)
        keys = {site: SiteFolder.open(root / site).identity() for site in sorted(STUDY.sites)}
        self.roster = sized_roster(keys, STUDY.digest)
        self.sessions = {site: self.start(site) for site in sites}

    def start(self, site: str) -> Session:
        """Open a site's state as its process does."""
        folder = SiteFolder.open(self.root / site)
        audit = open_compared(folder, APPROVED)
        return Session(
            site=site,
            study=STUDY,
            roster=Roster(self.roster.members),
            sizes=KnownSizes({}),
            read=lambda: cohort(site),
            policy=POLICY,
            state=folder.state(POLICY, audit),
        )

    @property
    def parameters(self):
        return group_parameters(STUDY, self.roster, RUN)

    def names(self) -> tuple[str, ...]:
        return tuple(self.sessions)

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes]]:
        for site, body in bodies.items():
            if site in self.sessions:
                answer = self.sessions[site].handle(action, body)
                if answer.refusal is not None:
                    self.refusals.append(answer.refusal)
                    self.reasons.append((site, answer.reason))
                yield site, answer.body

    def rounds(
        self, state: RunState, count: int, heads: SiteHeads | None = None
    ) -> list[RoundResult]:
        """Run so many rounds, or until one is void."""
        results: list[RoundResult] = []
        for result in run_study(STUDY, self.parameters, self, state, site_heads=heads):
            results.append(result)
            if result.void is not None or len(results) == count:
                break
        return results

    def said(self, site: str) -> list[Refusal]:
        return [refusal for refusal in self.refusals if refusal.site == site]

    def noted(self, site: str) -> list[str]:
        """The whole reasons of a site's refusals, which only it knows."""
        return [reason for name, reason in self.reasons if name == site]


def enrol(path: Path, site: str) -> None:
    """Make an enrolled site's folder; the approval is a file that only its presence counts."""
    folder = SiteFolder.make(path, site=site)
    folder.pin(
        Enrolment(
            site=site,
            node_id=bytes(8),
            host="localhost",
            port=1,
            coordinator=COORDINATOR.public,
            authority=b"x",
        )
    )
    open_audit(folder)
    (path / "approvals" / "kept").touch()


def fresh() -> RunState:
    """The state of a run that has not begun."""
    return RunState(
        server=start(to_vector(build_model(STUDY, len(feature_names(STUDY)), seed=STUDY.seed)))
    )


def copy(root: Path, to: Path) -> Path:
    """A copy of all sites' folders, or of one site's; no journal has a write-ahead log left."""
    shutil.copytree(root, to)
    for journal in to.rglob(JOURNAL_FILE):
        RoundJournal(journal).close()
    return to


def masked(path: Path) -> Counter[tuple[bytes, int]]:
    """How often each round of each run was released, by a site's audit log."""
    releases = read_site_record(path / "audit.jsonl").releases
    return Counter((one.released.study_hash, one.released.round) for one in releases)
