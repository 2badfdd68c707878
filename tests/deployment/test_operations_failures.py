"""Each failure of docs/operations.md, brought about: what is said is what stands there."""

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.peer_heads import PeerHeads
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.round_audit import RoundAudit, check_not_older
from consilium.client.ledger.store import Ledger
from consilium.client.round.answer import answer_or_refuse
from consilium.client.round.told import refusal_of
from consilium.client.service.connection import Connection
from consilium.client.service.enroll import enrol_request
from consilium.server.coordinator.certificates import (
    CertificateFiles,
    issue_server_certificate,
    make_authority,
)
from consilium.server.coordinator.enrolment import EnrolmentService
from consilium.server.coordinator.register import Register
from consilium.server.flower.authentication import KeyRing
from consilium.server.flower.gate import FULL
from consilium.server.secure_sum.exchange import RoundLog, ask, require_sites
from consilium.server.secure_sum.key_exchange import KeyExchange
from consilium.server.service import study_process
from consilium.server.service.study_process import StudyProcess
from consilium.server.study.checkpoints import begin, load_checkpoint
from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.events import Revoked, RoundClosed
from consilium.shared.audit.log import AuditLog
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.crypto.keys import IdentityKey, Roster
from consilium.shared.enrolment.compatibility import disagreement
from consilium.shared.enrolment.invitation import Invitation
from consilium.shared.errors import BudgetError, ConsiliumError, PolicyError, UnableError
from consilium.shared.rounds.contents import Purpose, RoundConfiguration
from consilium.shared.secure_sum.dealt_shares import commit_share, judge
from consilium.shared.secure_sum.messages import Action, ChannelKey, ChannelRequest
from consilium.shared.secure_sum.tail import check_tail
from tests.client.ledger.test_store import release
from tests.client.round.test_session import NIGHTS
from tests.client.service.test_study_sessions import KEYS, ROSTER, STUDY
from tests.client.service.test_study_sessions import TEXT as STUDY_TEXT
from tests.client.vouching import roster, study, trust
from tests.deployment.ledgers import events
from tests.deployment.operations_page import QUOTED, says
from tests.shared.secure_sum.test_dealt_shares import KEYS as BOX_KEYS
from tests.shared.secure_sum.test_dealt_shares import OTHER, SHARE, USES, sealed

Producer = Callable[[Path], str]


def told(work: Callable[[], object]) -> str:
    """The sentence in which something ends."""
    with pytest.raises(ConsiliumError) as caught:
        work()
    return str(caught.value)


def authority(folder: Path) -> CertificateFiles:
    folder.mkdir()
    files = CertificateFiles.under(folder)
    make_authority(files, name="c")
    issue_server_certificate(files, ("127.0.0.1",))
    return files


def unreachable(tmp_path: Path) -> str:
    with socket.socket() as probe:  # bound and not listening: it refuses
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        trusted = authority(tmp_path / "a").authority_der()
        with Connection("127.0.0.1", port, trusted) as line:
            return told(line.hello)


def other_certificate(tmp_path: Path) -> str:
    ours, theirs = authority(tmp_path / "a"), authority(tmp_path / "b")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs.server, theirs.server_key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            accepted, _ = server.accept()
            with suppress(OSError), context.wrap_socket(accepted, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        with Connection("127.0.0.1", server.getsockname()[1], ours.authority_der()) as line:
            sentence = told(line.hello)
        thread.join()
    return sentence


def bad_invitation(tmp_path: Path) -> str:
    register = Register(tmp_path / "register.sqlite")
    service = EnrolmentService(
        register=register,
        identity=IdentityKey.generate(),
        audit=audit(tmp_path),
        nodes=lambda _site, _key: 1,
    )
    invitation = Invitation(
        site="north",
        host="a.org",
        port=1,
        secret=b"s" * 32,
        coordinator=IdentityKey.generate().public,
        authority=authority(tmp_path / "a").authority_der(),
        expires=4_000_000_000,
    )
    request = enrol_request(SiteFolder.make(tmp_path / "site"), invitation)
    return told(lambda: service.enrol(request.to_bytes()))


def unknown_key(tmp_path: Path) -> str:
    keys = KeyRing(Register(tmp_path / "register.sqlite"))
    headers = {
        "flwr-public-key": "AAAA",
        "flwr-timestamp": datetime.now().astimezone().isoformat(),
        "flwr-signature": "AAAA",
    }
    return told(lambda: keys.authenticate(headers, "0.1.0"))


def audit(folder: Path, owner: str = "coordinator") -> AuditLog:
    key = IdentityKey.from_seed(b"k" * 32)
    return AuditLog(folder / "audit.jsonl", owner=owner, key=key, version="0.1.0")


class Declining:
    """Sites of which one declines, in a code and its fixed sentence."""

    def names(self) -> tuple[str, ...]:
        return ROSTER.names

    def ask(self, action: Action, bodies, *, timeout_s: float):
        for site in bodies:
            yield site, refusal_of(site, PolicyError("a figure", case="unvouched")).to_bytes()


def waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, declared: bool, died: bool = False
) -> str:
    """What the register holds while a study waits: for declared sizes, or for its sites.

    With ``died`` an earlier process ended within a round: then why that round is void.
    """
    register = Register(tmp_path / "register.sqlite")
    text = STUDY_TEXT.encode()
    register.submit(
        digest=STUDY.digest,
        name=STUDY.name,
        text=text,
        roster=Roster(ROSTER.members),
        signature=b"",
        now=0.0,
    )
    for site in STUDY.sites if declared else ():
        sign = KEYS[site].sign
        size = Declaration.signed(7, study_digest=STUDY.digest, site=site, sign=sign)
        register.declare(STUDY.digest, site, size)
    submitted = register.study(STUDY.name)
    process = StudyProcess(register, submitted, tmp_path, audit(tmp_path))

    def stop(_: float) -> None:
        register.want(STUDY.digest, study_process.Wanted.STOP)

    monkeypatch.setattr(study_process.time, "sleep", stop)
    if died:
        begin(tmp_path, STUDY)  # and not put to rest: its first round may have begun
    process.run(Declining(), 0.0)
    if died:
        [record] = map(json.loads, (tmp_path / "rounds.jsonl").read_text().splitlines())
        [closed] = [e for e in events(tmp_path / "audit.jsonl") if isinstance(e, RoundClosed)]
        assert (record["round"], record["purpose"]) == (closed.round, closed.purpose)
        assert load_checkpoint(tmp_path).history == (record,)
        assert closed.void == record["void"]
        return closed.void
    return DETAILS[-1]


DETAILS: list[str] = []


@pytest.fixture(autouse=True)
def _details(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Register.note

    def kept(self, digest, state, detail="") -> None:
        if detail:
            DETAILS.append(detail)
        note(self, digest, state, detail)

    monkeypatch.setattr(Register, "note", kept)


def policy_told(work: Callable[[], object]) -> str:
    with pytest.raises(PolicyError) as caught:
        work()
    return refusal_of("north", caught.value).sentence


def strict() -> object:
    return Policy(largest_study_epsilon=4.0).check_study(STUDY)


def sybils() -> object:
    return Policy().check_roster(study(), roster(), trust("east"))


def at_noon() -> object:
    return Policy(hours=NIGHTS).check_time(datetime(2030, 1, 7, 14, 3))


def void_round(_: Path) -> str:
    log = RoundLog(clock=time.monotonic)
    return told(
        lambda: require_sites(2, 3, "sent a masked update", round=12, roster=ROSTER, log=log)
    )


def expelled(_: Path) -> str:
    use, keys = USES[0], BOX_KEYS
    why = judge(
        keys.secret("dealer"),
        keys.public("dealer"),
        sealed(use, OTHER),
        commit_share(use, SHARE),
        use,
    )
    exchange = KeyExchange.__new__(KeyExchange)
    exchange._expelled = {}
    exchange.expel("dealer", why)
    return f"dealer: {exchange._expelled['dealer']}"


def garbage(_: Path) -> str:
    tail = np.array([3, 30, 1, 0, 0, 0], np.uint32)
    return "round 12 is void and the model unchanged: " + told(
        lambda: check_tail(tail, survivors=3, weight=30)
    )


def over_budget(tmp_path: Path, *, study_epsilon: float, lifetime: float) -> str:
    book = Ledger(tmp_path / "ledger.sqlite", lifetime_epsilon=lifetime, delta=1e-5)
    return told(lambda: book.reserve(release(1), study_epsilon=study_epsilon, study_delta=1e-5))


def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    log = audit(tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as here:
        here.setattr(os, "pwrite", full)
        return told(lambda: log.append(Revoked(site="south", reason="x")))


def altered(tmp_path: Path) -> str:
    path = audit(tmp_path).path
    path.write_bytes(path.read_bytes().replace(b'"0.1.0"', b'"0.1.1"'))
    return told(lambda: audit(tmp_path))


def put_back(tmp_path: Path) -> tuple[str, str]:
    """What an older log says at its site, and what the coordinator is told of it."""
    log = audit(tmp_path, "north")
    older = log.path.read_bytes()
    head = log.append(Revoked(site="south", reason="x"))
    log.path.write_bytes(older)
    with pytest.raises(ConsiliumError) as caught:
        check_not_older(audit(tmp_path, "north"), head)
    return str(caught.value), refusal_of("north", caught.value).sentence


def went_back(tmp_path: Path) -> str:
    (tmp_path / "site").mkdir()
    theirs, anchors = audit(tmp_path), Anchors(audit(tmp_path / "site", "north"))
    first = theirs.head()
    second = theirs.append(Revoked(site="south", reason="x"))
    identities = {"coordinator": IdentityKey.from_seed(b"k" * 32).public}
    found: dict[str, str] = {}
    for head in (second, first):
        shown = {"coordinator": head.to_bytes()}
        found = anchors.record(shown, identities, study_digest=bytes(32))
    return found["coordinator"]


def other_key() -> object:
    return Policy().check_roster(study(), roster(invented=("east",)), trust("east"))


def hidden_release(tmp_path: Path) -> str:
    """What a site says when no head is shown of a site whose log it has seen."""
    theirs, own = audit(tmp_path, "a"), tmp_path / "own"
    own.mkdir()
    heads = PeerHeads(own / "heads.sqlite")
    identity = IdentityKey.from_seed(b"k" * 32).public
    heads.note(STUDY.digest, {identity: theirs.head()})
    ours = RoundAudit(audit(own, "b"), identity=b"b" * 32, coordinator=b"c" * 32, heads=heads)
    asked = RoundConfiguration(purpose=Purpose.TRAINING)
    shown = Roster((("a", identity), ("b", b"b" * 32)))
    return told(lambda: ours.begin(STUDY, asked, shown, ("a", "b")))


def too_little_memory(_: Path) -> str:
    def work() -> bytes:
        raise MemoryError

    return answer_or_refuse("north", Action.UPDATE, work).reason


def channel_refusal(_: Path) -> str:
    """A refusal as the coordinator keeps it: the sentence, the step and the code."""
    log = RoundLog(clock=time.monotonic)
    request = ChannelRequest(study_digest=STUDY.digest, run_id=bytes(16), study_hash=bytes(32),
                             declared={})  # fmt: skip
    requests = dict.fromkeys(ROSTER.names, request)
    assert not list(ask(Declining(), Action.CHANNEL, requests, ChannelKey, log, timeout_s=1))
    assert log.refusals["a"].endswith("[channel: PolicyError.unvouched]")
    return log.refusals["a"]


PRODUCERS: dict[str, Producer] = {
    "cannot be reached": unreachable,
    "does not show the certificate": other_certificate,
    "the invitation of site": bad_invitation,
    "the node key is not enrolled": unknown_key,
    "does not allow> the study's epsilon": lambda _: policy_told(strict),
    "the study's epsilon <": lambda _: told(strict),
    "too few of the study's sites": channel_refusal,
    "sites summed with this one are vouched": lambda _: told(sybils),
    "ANOTHER KEY": lambda _: policy_told(other_key),
    "this site cannot answer": lambda _: refusal_of("a", UnableError()).sentence,
    "it is outside": lambda _: policy_told(at_noon),
    "this site takes part from": lambda _: told(at_noon),
    "is void and the model unchanged: <2>": void_round,
    "taken out of this run": expelled,
    "check coordinates are wrong": garbage,
    "would bring epsilon to": lambda p: over_budget(p, study_epsilon=0.01, lifetime=16.0),
    "this site's lifetime budget": lambda p: over_budget(p, study_epsilon=8.0, lifetime=0.01),
    "the coordinator's disk is full": lambda _: FULL.sentence,
    "the signature of its last line": altered,
    "and others were shown entry": lambda p: put_back(p)[0],
    "is older than what it signed": lambda p: put_back(p)[1],
    "is shown at entry": hidden_release,
    "and stood at entry": went_back,
    "the coordinator runs version": lambda _: str(disagreement("0.3.0", "0.1.0")),
    "it needs more memory": too_little_memory,
}


@pytest.mark.parametrize("quoted", QUOTED)
def test_each_failure_of_the_page_says_the_sentence_that_stands_there(
    quoted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if quoted.startswith("waiting for"):
        said = waiting(tmp_path, monkeypatch, declared="declared size" not in quoted)
    elif quoted.startswith("the study's process ended"):
        said = waiting(tmp_path, monkeypatch, declared=True, died=True)
    elif quoted.startswith("audit log <path>: cannot be written"):
        said = full_disk(tmp_path, monkeypatch)
    elif quoted.startswith("this site's privacy budget does not cover"):
        said = refusal_of("a", BudgetError("figures")).sentence
    else:
        [said] = [make(tmp_path) for key, make in PRODUCERS.items() if key in quoted]
    assert says(said, quoted), said


def test_every_producer_is_of_a_sentence_on_the_page() -> None:
    assert all(any(key in quoted for quoted in QUOTED) for key in PRODUCERS)
