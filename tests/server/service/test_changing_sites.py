"""The process of a study whose sites change: what is charged, which noise, what the records say."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.known_sizes import KnownSizes
from consilium.client.hospital.personal_store import Kept, PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.state import SiteState
from consilium.client.ledger.store import Ledger
from consilium.client.records.cohort import read_cohort
from consilium.client.round.session import Session
from consilium.client.secure_sum.journal import RoundJournal
from consilium.server.coordinator.enrolment import submit
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.coordinator.register import State, Wanted
from consilium.server.coordinator.roster_book import events_in_force, proposal_of, versions_of
from consilium.server.coordinator.rosters import Rosters
from consilium.server.coordinator.round_records import recent_records, rounds_file
from consilium.server.service.overview import overview
from consilium.server.service.study_process import StudyProcess
from consilium.server.study.checkpoints import load_checkpoint
from consilium.server.study.export import export_model
from consilium.shared.audit.log import FILE_NAME
from consilium.shared.audit.own_log import open_audit
from consilium.shared.audit.reading import rosters_in_force
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.enrolment.messages import roster_digest
from consilium.shared.enrolment.roster_version import (
    RosterAgreement,
    RosterReply,
    RosterRequest,
    agreement,
    members_digest,
)
from consilium.shared.errors import StudyError
from consilium.shared.export.manifest import ManifestRoster
from consilium.shared.privacy.accounting import epsilon_spent, plan
from consilium.shared.privacy.shared_noise import noise_share
from consilium.shared.secure_sum.messages import Action, UpdateRequest
from consilium.shared.study.definition import parse_study
from consilium.simulations.cohorts.hospitals import synthetic_hospital
from tests.in_process import memory_folder

TEXT = """
name = "changing"
title = "Changing"
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
sampling_rate = 0.5
[privacy]
mode = "distributed"
epsilon = 8.0
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
"""
STUDY = parse_study(TEXT)
KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in "abcde"}


class Recording(PersonalStore):
    """Files of own parts; what was saved last, and what a run under another roster began with."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.saved: Kept = {}
        self.began: list[tuple[Kept, Kept]] = []

    def save(self, study_digest, study_hash, kept, **more):
        self.saved = {name: array.copy() for name, array in kept.items()}
        return super().save(study_digest, study_hash, kept, **more)

    def under_another_roster(self, study_digest, run_id):
        found = super().under_another_roster(study_digest, run_id)
        self.began.append((self.saved, found))
        return found


class ChangingSites:
    """Sessions of the roster in force; between two rounds the operator and the sites act."""

    def __init__(self, folder: Path, desk: "Desk") -> None:
        self.folder, self.desk = folder, desk
        self.states = {site: self._state(site) for site in KEYS}
        self.cohorts = {
            site: read_cohort(
                synthetic_hospital(n, desk.study), desk.study, site=site, split_key=bytes(32)
            )
            for n, site in enumerate(KEYS)
        }
        self.sessions: dict[str, Session] = {}
        self.version = 0

    def _state(self, site: str) -> SiteState:
        place = self.folder / site
        place.mkdir(parents=True)
        return SiteState(
            identity=KEYS[site],
            ledger=Ledger(place / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5),
            journal=RoundJournal(place / "journal.sqlite"),
            split_key=bytes(32),
            personal=Recording(place / "personal"),
            audit=None,
        )

    def names(self) -> tuple[str, ...]:
        return tuple(self.desk.now.roster.names)

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes]]:
        now = self.desk.now
        if action is Action.CHANNEL and now.version != self.version:
            self.version = now.version
            self.sessions = {
                site: Session(
                    site=site, study=now.study, roster=now.roster, sizes=KnownSizes({}),
                    read=lambda site=site: self.cohorts[site],
                    policy=Policy(minimum_patients=1), state=self.states[site],
                )
                for site in now.roster
            }  # fmt: skip
        if action is Action.UPDATE:
            self.desk.during(UpdateRequest.from_bytes(next(iter(bodies.values()))).round)
        for site, body in bodies.items():
            yield site, self.sessions[site].handle(action, body).body


class Desk:
    """A coordinator whose operator lets e join in round 3, and c leave in round 6, paused."""

    def __init__(self, path: Path, text: str = TEXT) -> None:
        self.study = parse_study(text)
        settings = Settings(name="c", host="localhost", port=9092, listen="127.0.0.1")
        self.folder = CoordinatorFolder.make(path / "coordinator", settings, ("localhost",))
        self.register, self.log = self.folder.register(), open_audit(self.folder)
        for node, (site, key) in enumerate(KEYS.items(), start=1):
            self.register.enrol(site, identity=key.public, node_key=site.encode(), node_id=node,
                                version="0.1.0", now=0.0)  # fmt: skip
        submit(self.register, self.folder.identity(), self.log, self.study, text.encode())
        for site in self.study.sites:
            self.declare(site)
        self.rosters = Rosters(
            register=self.register, identity=self.folder.identity(), audit=self.log
        )

    @property
    def now(self):
        return self.register.study(self.study.digest.hex())

    def declare(self, site: str) -> None:
        sign = KEYS[site].sign
        declared = Declaration.signed(20, study_digest=self.study.digest, site=site, sign=sign)
        self.register.declare(self.study.digest, site, declared)

    def during(self, number: int) -> None:
        if number == 3 and self.now.version == 1:
            self.rosters.propose(self.now, join=["e"], leave=[])
            self.declare("e")
            self.all_agree()
        if number == 6 and self.now.version == 2:
            self.rosters.propose(self.now, join=[], leave=["c"])
            self.all_agree()
            self.register.want(self.study.digest, Wanted.PAUSE)

    def all_agree(self) -> None:
        members = {member.name: member for member in self.register.members()}
        before = members_digest(self.now.roster)
        asked = RosterRequest(study=self.study.digest, number=1, before=before).to_bytes()
        for site in proposal_of(self.register, self.now).missing:
            shown = RosterReply.from_bytes(self.rosters.show(members[site], asked)).proposed
            signature = KEYS[site].sign(agreement(shown, shown.roster))
            message = RosterAgreement(
                study=self.study.digest, number=shown.number, signature=signature
            )
            self.rosters.agree(members[site], message.to_bytes())

    def run(self, sites: ChangingSites) -> None:
        place = self.folder.study(self.study.digest)
        place.mkdir(parents=True, exist_ok=True)
        StudyProcess(self.register, self.now, place, open_audit(self.folder)).run(sites, 5.0)


def lived_through(path: Path, text: str = TEXT) -> tuple[Desk, ChangingSites]:
    """A study from its first round to its last, among changing sites."""
    desk = Desk(path, text)
    sites = ChangingSites(path / "sites", desk)
    desk.run(sites)
    assert desk.now.state is State.PAUSED
    assert desk.now.version == 2  # what all agreed to waits for the next round
    desk.register.want(desk.study.digest, Wanted.RUN)
    desk.run(sites)
    assert desk.now.state is State.FINISHED
    return desk, sites


@pytest.fixture(scope="module")
def finished():
    with memory_folder() as path:
        yield lived_through(path)


def records(desk: Desk) -> list[dict[str, object]]:
    return recent_records(rounds_file(desk.folder, desk.study.digest), 99)[::-1]


def test_each_round_is_of_the_roster_in_force_and_says_so(finished) -> None:
    desk, _ = finished
    found = records(desk)
    assert [record["void"] for record in found] == [None] * len(found)
    of = {1: ["a", "b", "c", "d"], 2: ["a", "b", "c", "d", "e"], 3: ["a", "b", "d", "e"]}
    for record in found:
        version = 1 if record["round"] <= 3 else 2 if record["round"] <= 6 else 3
        assert (record["roster"]["version"], record["sites"]) == (version, of[version])
    noted = rosters_in_force(desk.folder.path / FILE_NAME, STUDY.digest)
    assert [(e.version, e.round, e.joined, e.left) for e in noted] == [
        (2, 4, ("e",), ()),
        (3, 7, (), ("c",)),
    ]
    shown = [version.version.roster for version in versions_of(desk.register, STUDY.digest)]
    assert [event.roster for event in noted] == [roster_digest(roster) for roster in shown]
    (study,) = overview(desk.folder, desk.register)["studies"]
    assert [version["digest"] for version in study["roster_versions"]] == [
        event.roster.hex() for event in noted
    ]
    assert (study["roster_version"], study["roster_proposed"]) == (3, None)


def test_a_ledger_is_charged_for_the_rounds_that_its_site_took_part_in(finished) -> None:
    desk, sites = finished
    costs = plan(STUDY)
    took_part = {
        site: [record["round"] for record in records(desk) if site in record["sites"]]
        for site in KEYS
    }
    for site, rounds in took_part.items():
        entries = sites.states[site].ledger.entries()
        assert [entry.release.round for entry in entries] == rounds
        events = costs.training_events(len(rounds) - (site != "e"), statistics=int(site != "e"))
        spent = sites.states[site].ledger.summary().total.spent
        assert spent == pytest.approx(epsilon_spent(events, STUDY.privacy.delta), rel=1e-6)
    everything = sites.states["a"].ledger.summary().total.spent
    assert sites.states["e"].ledger.summary().total.spent < everything
    assert everything == pytest.approx(STUDY.privacy.epsilon, rel=1e-2)


def test_the_shares_of_noise_are_those_of_the_sites_in_force() -> None:
    shares = [noise_share(STUDY.among(sites), 50) for sites in ("abcd", "abcde", "abcdefgh")]
    honest = [share.honest for share in shares]
    assert honest == [2, 3, 5]
    for share, number in zip(shares, honest, strict=True):
        assert share.variance == pytest.approx(shares[0].variance * 2 / number, rel=1e-3)
        assert share.noise_multiplier == shares[0].noise_multiplier


def test_an_export_names_the_rosters_after_the_first(finished, tmp_path) -> None:
    desk, _ = finished
    checkpoint = load_checkpoint(desk.folder.study(STUDY.digest))
    rosters = tuple(
        ManifestRoster(version=event.version, digest=event.roster.hex(), round=event.round,
                       joined=event.joined, left=event.left)
        for event in events_in_force(desk.register, desk.now)
    )  # fmt: skip
    manifest = export_model(
        desk.now.study, checkpoint, desk.folder.identity(), tmp_path / "model", simulated=False,
        rosters=rosters,
    )  # fmt: skip
    assert manifest.study_digest == STUDY.digest.hex()
    assert manifest.sites == (
        "Its sites changed: from round 4 on (roster 2) e joined; from round 7 on (roster 3) c left."
    )
    assert type(manifest).from_bytes(manifest.to_bytes()) == manifest
    assert b"rosters" not in manifest.model_copy(update={"rosters": ()}).to_bytes()


def test_another_roster_is_no_other_study() -> None:
    joined = STUDY.among([*STUDY.sites, "e"])
    assert (joined.digest, joined.first_sites) == (STUDY.digest, STUDY.sites)
    assert joined.sites == ("a", "b", "c", "d", "e")
    assert joined.among(STUDY.sites) == STUDY
    assert (STUDY.minimum_sites, joined.minimum_sites) == (3, 4)
    assert not np.array_equal(STUDY.digest, parse_study(TEXT.replace('"d"]', '"d", "e"]')).digest)


@pytest.mark.parametrize(
    "own", ['[personalisation]\nparts = ["head", "inputs"]', "[personalisation.ditto]\npull = 0.3"]
)
def test_what_a_site_keeps_for_itself_goes_on_under_each_roster(own: str) -> None:
    with memory_folder() as path:
        desk, sites = lived_through(path, TEXT.replace("distributed", "site") + own)
        assert {record["void"] for record in records(desk)} == {None}
        began = {site: state.personal.began for site, state in sites.states.items()}
    rosters = {"a": 3, "b": 3, "c": 2, "d": 3, "e": 2}
    assert {site: len(found) for site, found in began.items()} == rosters
    for found in began.values():
        assert found[0] == ({}, {})  # the joiner's begins as the others' began
        for saved, taken in found[1:]:
            assert saved.keys() == taken.keys() != set()
            assert all(np.array_equal(saved[name], taken[name]) for name in saved)


def test_a_study_with_control_variates_keeps_its_sites(tmp_path: Path) -> None:
    plain = TEXT[: TEXT.index("[privacy]")] + '[privacy]\nmode = "none"\n'
    text = plain.replace("local_steps = 1", "local_steps = 2\ncontrol_variates = true")
    desk = Desk(tmp_path, text.replace("sampling_rate = 0.5\n", "") + TEXT[TEXT.index("[variab") :])
    for change in ({"join": ["e"], "leave": []}, {"join": [], "leave": ["c"]}):
        with pytest.raises(StudyError, match="whose mean is of the sites that it began with"):
            desk.rosters.propose(desk.now, **change)
