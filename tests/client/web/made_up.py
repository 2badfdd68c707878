"""An enrolled hospital with invented records, whose coordinator answers in process."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Self

from consilium.client.hospital.folder import Enrolment, SiteFolder
from consilium.client.ledger.releases import Release
from consilium.shared.audit.events import Vouched
from consilium.shared.audit.own_log import open_audit
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.enrolment.fingerprint import fingerprint
from consilium.shared.enrolment.messages import (
    DECLARE_PATH,
    STUDIES_PATH,
    STUDY_PATH,
    SizeDeclaration,
    StudyList,
    StudyOffer,
    StudyRequest,
    offer_statement,
)
from consilium.shared.enrolment.roster_version import ROSTER_PATH, RosterReply
from consilium.shared.errors import ProtocolError, UnreachableError
from consilium.shared.privacy.accounting import plan
from consilium.shared.study.definition import Study, parse_study
from tests.deployment.federation import write_records

COORDINATOR = IdentityKey.from_seed(b"c" * 32)
OTHERS = {
    name: IdentityKey.from_seed(name.encode().ljust(32)) for name in ("east", "south", "west")
}
TEXT = """
schema = 1
name = "sepsis"
title = "Death in the intensive-care unit"
purpose = "A model that warns twelve hours after admission, for four hospitals."
rounds = 40
sites = ["north", "east", "south", "west"]
[data]
source = "physionet2012"
label = "In-hospital_death"
window_h = 12
minimum_patients = 5
[model]
hidden = 4
[training]
local_steps = 1
sampling_rate = 0.5
[privacy]
epsilon = 4.0
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
GCS = { unit = "{score}", low = 3, high = 15, center = 12, spread = 4 }
Age = { unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }
"""
POLICY = """
[federation]
minimum_patients = 5
[roster]
vouched_at_least = 0
"""


class Coordinator:
    """Answers a site's posts as the gate does, and keeps what sizes were declared."""

    def __init__(self) -> None:
        self.offers: dict[bytes, StudyOffer] = {}
        self.declared: dict[bytes, int] = {}
        self.reachable = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def offer(self, text: str, identities: Mapping[str, IdentityKey]) -> Study:
        """Offer a study under these identities, in the place of others of its digest."""
        study = parse_study(text)
        roster = {site: identities[site].public for site in study.sites}
        signed = offer_statement(text.encode(), Roster(tuple(sorted(roster.items()))))
        self.offers[study.digest] = StudyOffer(
            text=text.encode(), roster=roster, declared={}, signature=COORDINATOR.sign(signed)
        )
        return study

    def post(self, path: str, body: bytes) -> bytes:
        if not self.reachable:
            raise UnreachableError("the coordinator cannot be reached; try again")
        if path == STUDIES_PATH:
            return StudyList(digests=b"".join(self.offers)).to_bytes()
        if path == STUDY_PATH:
            return self.offers[StudyRequest.from_bytes(body).digest].to_bytes()
        if path == ROSTER_PATH:
            return RosterReply(in_force=None, proposed=None).to_bytes()
        assert path == DECLARE_PATH
        told = SizeDeclaration.from_bytes(body)
        patients = Declaration.from_bytes(told.declared).patients
        if self.declared.setdefault(told.digest, patients) != patients:
            raise ProtocolError("another size was declared before")
        return b""


def make_site(path: Path, records: Path, *, policy: str = POLICY) -> SiteFolder:
    """Make an enrolled site's folder, and its records where they are not there yet."""
    if not records.exists():
        write_records(records, patients=24, seed=3)
    site = SiteFolder.make(path, site="north")
    site.take_split_key(bytes(32))  # who trains is the same in every run
    with (path / "site.toml").open("a") as settings:
        settings.write(
            f'[data]\nsource = "physionet2012"\npath = "{records}"\nwhere = {{ ICUType = 1 }}\n'
        )
    (path / "policy.toml").write_text(policy)
    site.pin(
        Enrolment(
            site="north",
            node_id=bytes(8),
            host="coordinator.example.org",
            port=9092,
            coordinator=COORDINATOR.public,
            authority=b"x",
        )
    )
    open_audit(site)
    return site


def identities(site: SiteFolder) -> dict[str, IdentityKey]:
    """The keys of this site and of three others."""
    return {"north": site.identity(), **OTHERS}


def vouch(site: SiteFolder) -> None:
    """Vouch for the three others, as after telephone calls."""
    audit = open_audit(site)
    for name, key in OTHERS.items():
        known = fingerprint(name, key.public)
        event = Vouched(hospital=name, fingerprint=known, vouched=True, by="Anna")
        site.vouchers().vouch(name, known, recorded=partial(audit.append, event))


def spend(site: SiteFolder, study: Study, rounds: int, *, confirmed: bool = True) -> None:
    """Charge the site's ledger with so many training rounds of a study; the log is not told."""
    planned = plan(study)
    assert planned is not None
    ledger = site.ledger(site.policy())
    for number in range(1, rounds + 1):
        release = Release(
            study_digest=study.digest, study_hash=bytes(32), study_name=study.name, round=number,
            purpose="training", events=(planned.training_round,), shards=(0, 100),
        )  # fmt: skip
        ledger.reserve(release, study_epsilon=4.0, study_delta=study.privacy.delta)
        if confirmed:
            ledger.confirm(release)
