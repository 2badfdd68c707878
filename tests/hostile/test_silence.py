"""A coordinator that chooses weights, edges and statistics at will learns nothing from an answer.

Two federations are the same but for one patient of site ``a``. For every purpose of a round the
messages of that site must agree in kind, code and number of bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.known_sizes import KnownSizes
from consilium.client.hospital.peer_heads import PeerHeads
from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.round_audit import RoundAudit
from consilium.client.hospital.state import SiteState
from consilium.client.ledger.store import Ledger
from consilium.client.records.cohort import Cohort
from consilium.client.round.session import Session
from consilium.client.secure_sum.journal import RoundJournal
from consilium.client.sources.common.opt_outs import OptOuts
from consilium.server.secure_sum.protocol import SecureSum
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.errors import RoundVoidError, UnableError
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.study_model import study_model
from consilium.shared.model.weight_vector import to_vector
from consilium.shared.rounds.contents import (
    Purpose,
    RoundConfiguration,
    sum_parameters,
    vector_spec,
)
from consilium.shared.secure_sum.messages import Action, Refusal
from consilium.shared.study.definition import Study
from consilium.shared.wire.encoding import VECTOR_BYTES, open_envelope
from tests.hostile.neighbours import PATIENTS, STUDIES, hostile_normalisation, hostile_weights, pair
from tests.rosters import SIZE, sized_roster

KEYS = {site: IdentityKey.from_seed(site.encode() * 32) for site in ("a", "b", "c")}
COORDINATOR = IdentityKey.from_seed(b"k" * 32)
RUN = bytes(16)


def rounds_of(study: Study) -> tuple[Purpose, ...]:
    calibration = [Purpose.CALIBRATION] * study.calibration_rounds
    training = [Purpose.TRAINING, Purpose.TRAINING]
    return (Purpose.STATISTICS, *training, *calibration, Purpose.EVALUATION)


class Federation:
    """Three sessions in this process; what site ``a`` answers is kept."""

    def __init__(
        self,
        folder: Path,
        study: Study,
        cohort: Cohort,
        others: Cohort,
        opted_out: Callable[[], OptOuts | None] = lambda: None,
    ) -> None:
        self.opted_out = opted_out
        self.said: list[tuple[Action, str, str, int]] = []
        self.roster = sized_roster(KEYS, study.digest)
        self.sessions = {
            site: self._session(folder / site, site, study, cohort if site == "a" else others)
            for site in study.sites
        }

    def _session(self, folder: Path, site: str, study: Study, cohort: Cohort) -> Session:
        folder.mkdir(parents=True)
        log = AuditLog(folder / "audit.jsonl", owner=site, key=KEYS[site], version="0.1.0")
        state = SiteState(
            identity=KEYS[site],
            ledger=Ledger(folder / "ledger.sqlite", lifetime_epsilon=16.0, delta=1e-5),
            journal=RoundJournal(folder / "journal.sqlite"),
            split_key=bytes(32),
            personal=PersonalStore(folder / "personal"),
            audit=RoundAudit(
                log,
                identity=KEYS[site].public,
                coordinator=COORDINATOR.public,
                heads=PeerHeads(folder / "heads.sqlite"),
            ),
        )
        return Session(
            site=site,
            study=study,
            roster=Roster(self.roster.members),
            sizes=KnownSizes({}),
            read=lambda: cohort,
            policy=Policy(),
            state=state,
            opted_out=self.opted_out if site == "a" else lambda: None,
        )

    def names(self) -> tuple[str, ...]:
        return tuple(self.sessions)

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes]]:
        for site, body in bodies.items():
            answer = self.sessions[site].handle(action, body)
            if site == "a":
                kind, _ = open_envelope(answer.body, VECTOR_BYTES)
                code = answer.refusal.code if answer.refusal else ""
                self.said.append((action, kind, code, len(answer.body)))
            yield site, answer.body


def play(
    folder: Path,
    study: Study,
    cohort: Cohort,
    others: Cohort,
    opted_out: Callable[[], OptOuts | None] = lambda: None,
) -> list[tuple]:
    """Run a study under hostile weights; return what site ``a`` said."""
    sites = Federation(folder, study, cohort, others, opted_out)
    parameters = sum_parameters(study, sites.roster, RUN, site="a")
    secure = SecureSum(parameters, sites, timeout_s=60, threads=1)
    secure.open()
    size = to_vector(study_model(study)).size
    sent = size - _own_weights(study, size)
    for number, purpose in enumerate(rounds_of(study), 1):
        asked = RoundConfiguration(
            purpose=purpose,
            evaluate=purpose is Purpose.TRAINING,
            normalisation=(
                b"" if purpose is Purpose.STATISTICS else hostile_normalisation(study, number)
            ),
        )
        model = hostile_weights(size, number + 2)
        if study.training.control_variates and purpose is Purpose.TRAINING:
            model = np.concatenate([model, np.zeros_like(model)])
        secure.sum(
            round=number,
            spec=vector_spec(study, asked, parameters=sent, largest_size=SIZE),
            model=model.astype("<f4").tobytes(),
            configuration=asked.to_bytes(),
        )
    return sites.said


def _own_weights(study: Study, size: int) -> int:
    return size - int(shared_weights(study, size).sum())


FIRST = ("ordinary", "sixty stays", "huge")
KINDS = [
    pytest.param(kind, marks=() if kind in FIRST else pytest.mark.slow, id=kind)
    for kind in PATIENTS
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STUDIES)
def test_every_message_has_the_same_kind_code_and_size_with_a_patient_and_without(
    tmp_path: Path, name: str, kind: str
) -> None:
    study = STUDIES[name]
    two, others = pair(study, kind), pair(study, "ordinary").absent
    present = play(tmp_path / "+", study, two.present, others)
    absent = play(tmp_path / "-", study, two.absent, others)
    assert present == absent
    assert {code for _, _, code, _ in present} == {""}  # nothing was refused
    assert [action for action, *_ in present].count(Action.UPDATE) == len(rounds_of(study))


@pytest.mark.parametrize(
    "error", [MemoryError("4711"), FloatingPointError("4711"), OSError("4711")]
)
def test_a_failure_with_the_records_is_one_refusal_whatever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    study = STUDIES["distributed"]
    two = pair(study, "ordinary")
    sites = Federation(tmp_path, study, two.present, two.absent)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("consilium.client.round.contribution.Contributor.vector", fail)
    parameters = sum_parameters(study, sites.roster, RUN, site="a")
    secure = SecureSum(parameters, sites, timeout_s=60, threads=1)
    secure.open()
    asked = RoundConfiguration(purpose=Purpose.STATISTICS)
    with pytest.raises(RoundVoidError):
        secure.sum(
            round=1,
            spec=vector_spec(study, asked, parameters=1, largest_size=SIZE),
            model=b"",
            configuration=asked.to_bytes(),
        )
    expected = Refusal.of("a", UnableError()).to_bytes()
    assert sites.said[-1] == (Action.UPDATE, "refusal", "UnableError", len(expected))
