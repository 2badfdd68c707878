"""Whoever knocks at the coordinator's port without a right to: refused, recorded, others served."""

import base64
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree

from consilium.client.hospital.folder import SiteFolder, public_pem
from consilium.client.service.connection import Connection, pinned_context
from consilium.client.service.enroll import enrol_request
from consilium.client.service.pinned_connection import approvals_of
from consilium.server.coordinator.enrolment import invite
from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.flower.connections import HEAD_TIMEOUT_S
from consilium.shared.enrolment.messages import (
    ENROL_PATH,
    STUDIES_PATH,
    STUDY_PATH,
    VERSION_HEADER,
    StudyOffer,
    StudyRequest,
)
from consilium.shared.errors import AuthenticationError, MessageError, ProtocolError
from consilium.shared.study.definition import parse_study
from consilium.shared.version import VERSION
from consilium.shared.wire.bundle import FETCH_PATH, HAND_IN_PATH, pack_bundle
from tests.deployment.federation import Federation, tiny_study, write_records

pytestmark = pytest.mark.slow
STUDY = tiny_study()
AT_ONCE_S = 0.8 * HEAD_TIMEOUT_S  # whoever waits behind a silent connection waits longer
CLOSED_WITHIN_S = 5 * HEAD_TIMEOUT_S


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A coordinator that serves, and enrolled sites that the tests play."""
    root = tmp_path_factory.mktemp("hostile")
    write_records(root / "records", patients=10, seed=1)
    made = Federation(root / "federation", root / "records")
    made.prepare(STUDY)
    made.serve()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _still_serving(federation: Federation) -> Iterator[None]:
    """After every attack the service answers an honest site at once."""
    yield
    began = time.monotonic()
    with federation.line("south") as line:
        assert line.post(STUDIES_PATH, b"")
    assert time.monotonic() - began < AT_ONCE_S


def authority(federation: Federation) -> bytes:
    return SiteFolder.open(federation.site("south")).enrolment().authority


def refusals(federation: Federation) -> list[str]:
    """What the coordinator's log says of refusals; the audit log counts them by the minute."""
    lines = federation.said("coordinator").splitlines()
    told = [json.loads(line)["message"] for line in lines if line.startswith("{")]
    return [sentence for sentence in told if sentence.startswith("refused ")]


def signed(key: ec.EllipticCurvePrivateKey, shown: bytes, at: datetime) -> dict[str, str]:
    stamp = at.isoformat()
    signature = key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
    return {
        "flwr-public-key": base64.b64encode(shown).decode(),
        "flwr-timestamp": stamp,
        "flwr-signature": base64.b64encode(signature).decode(),
        VERSION_HEADER: VERSION,
    }


def raw(federation: Federation) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", federation.port), timeout=30)
    return pinned_context(authority(federation)).wrap_socket(plain, server_hostname="127.0.0.1")


def ask(
    federation: Federation,
    path: str,
    headers: dict[str, str],
    body: bytes = b"",
    *,
    method: str = "POST",
) -> tuple[int, str]:
    """Send one request by hand; return status and what was said."""
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if "content-length" not in headers and "transfer-encoding" not in headers:
        head += f"content-length: {len(body)}\r\n"
    with raw(federation) as line:
        line.sendall(head.encode() + b"\r\n")
        with suppress(OSError):  # refused before all of it was sent
            line.sendall(body)
        return answer(line)


def answer(line: ssl.SSLSocket) -> tuple[int, str]:
    reply = b""
    with suppress(TimeoutError, ConnectionError):
        while piece := line.recv(65536):
            reply += piece
            head, _, content = reply.partition(b"\r\n\r\n")
            if content.endswith(b"}") or b"content-length: 0" in head:
                break
    return (int(reply.split()[1]), reply.decode("latin-1")) if reply else (0, "")


def key_of(federation: Federation, site: str) -> ec.EllipticCurvePrivateKey:
    return SiteFolder.open(federation.site(site)).node_key()


def now() -> datetime:
    return datetime.now(UTC)


def test_an_unknown_site_is_refused_before_its_body_is_read(federation: Federation) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert ask(federation, FETCH_PATH, {}, b"x" * 100)[0] == 401

    def recorded() -> bool:
        with (
            Connection("127.0.0.1", federation.port, authority(federation), stranger) as line,
            pytest.raises(AuthenticationError, match="not enrolled, or was revoked"),
        ):
            line.post(FETCH_PATH, b"")
        return any("not enrolled" in sentence for sentence in refusals(federation))

    # Other attacks may have used up what is recorded in a minute.
    federation.wait_for(recorded, "the refusal to be recorded", 60)


def test_a_revoked_site_is_refused_within_a_second(federation: Federation) -> None:
    with federation.line("west") as line:
        assert line.post(STUDIES_PATH, b"")
        federation.operator("revoke", "west", "--reason", "a test")

        def refused() -> bool:
            try:
                line.post(STUDIES_PATH, b"")
            except AuthenticationError as error:
                return "was revoked" in str(error)
            return False

        federation.wait_for(refused, "the refusal", 1)


def test_a_site_that_shows_anothers_key_without_holding_it_is_refused(
    federation: Federation,
) -> None:
    shown = public_pem(key_of(federation, "north"))
    headers = signed(key_of(federation, "east"), shown, now())
    status, told = ask(federation, FETCH_PATH, headers)
    assert (status, "not signed by the node key of site north" in told) == (401, True)


def test_a_request_captured_ten_minutes_ago_is_refused(federation: Federation) -> None:
    key = key_of(federation, "north")
    headers = signed(key, public_pem(key), now() - timedelta(minutes=10))
    status, told = ask(federation, FETCH_PATH, headers)
    assert (status, "was signed 6" in told) == (401, True)


def test_an_invitation_enrols_once_and_expires(federation: Federation, tmp_path: Path) -> None:
    folder = CoordinatorFolder.open(federation.coordinator)
    invitation = invite(folder, "newcomer")
    first, second = (SiteFolder.make(tmp_path / name) for name in ("first", "second"))
    with Connection("127.0.0.1", federation.port, authority(federation)) as line:
        request = enrol_request(first, invitation).to_bytes()
        assert line.post(ENROL_PATH, request) == line.post(ENROL_PATH, request)  # a lost answer
        with pytest.raises(ProtocolError, match="unknown, used or expired"):
            line.post(ENROL_PATH, enrol_request(second, invitation).to_bytes())
        late = invite(folder, "latecomer", hours=1, now=time.time() - 7200)
        with pytest.raises(ProtocolError, match="unknown, used or expired"):
            line.post(ENROL_PATH, enrol_request(second, late).to_bytes())


def test_keys_that_the_sender_does_not_hold_cannot_be_enrolled(
    federation: Federation, tmp_path: Path
) -> None:
    invitation = invite(CoordinatorFolder.open(federation.coordinator), "thief")
    own = enrol_request(SiteFolder.make(tmp_path / "thief"), invitation)
    stolen = public_pem(key_of(federation, "north"))
    forged = replace(own, node_key=stolen).to_bytes()
    with (
        Connection("127.0.0.1", federation.port, authority(federation)) as line,
        pytest.raises(ProtocolError, match="not signed by the keys it brings"),
    ):
        line.post(ENROL_PATH, forged)


def test_a_site_cannot_answer_in_anothers_name(federation: Federation) -> None:
    other = SiteFolder.open(federation.site("north")).enrolment().node_id
    source = int.from_bytes(other, "big")
    reply = Message(metadata=Metadata(src_node_id=source, dst_node_id=1, message_type="query"))
    push = PushMessagesRequest(messages_list=[reply], message_object_trees=[ObjectTree()])
    with federation.line("east") as line:
        with pytest.raises(ProtocolError, match="another site's name"):
            line.post(HAND_IN_PATH, pack_bundle(push.SerializeToString(), {}))
        with pytest.raises(ProtocolError, match="another site's name"):
            line.post("/v1/fleet/push-messages", push.SerializeToString())


@pytest.mark.parametrize(
    "path",
    ["/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task",
     "/v1/fleet/register-node", "/v1/fleet/get-fab", "/v1/fleet/unregister-node", "/docs",
     "/openapi.json", "/", "/consilium/v1/../../v1/control/start-run",
     "/consilium/v1/%2e%2e/%2e%2e/etc/passwd", "//v1/control/start-run"],
)  # fmt: skip
def test_nothing_else_that_the_superlink_could_serve_can_be_reached(
    federation: Federation, path: str
) -> None:
    key = key_of(federation, "north")
    headers = signed(key, public_pem(key), now()) | {"content-type": "application/protobuf"}
    for method in ("POST", "GET", "PUT"):
        status, told = ask(federation, path, headers, method=method)
        assert (status, "there is nothing here" in told) == (404, True), told


def service_memory(federation: Federation) -> int:
    pid = federation.processes["coordinator"].pid
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def test_a_body_of_a_gibibyte_is_refused_without_being_held(federation: Federation) -> None:
    key = key_of(federation, "north")
    honest = signed(key, public_pem(key), now())
    before = service_memory(federation)
    gibibyte = {"content-length": str(1 << 30)}
    assert ask(federation, HAND_IN_PATH, gibibyte)[0] == 401
    assert ask(federation, ENROL_PATH, gibibyte)[0] == 413
    assert ask(federation, HAND_IN_PATH, honest | gibibyte)[0] == 413
    sent = 0
    piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with raw(federation) as line:
        head = f"POST {HAND_IN_PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in honest.items())
        line.sendall(head.encode() + b"\r\n")
        with suppress(OSError):
            while sent < 1 << 30:
                line.sendall(piece)
                sent += 1 << 20
    assert sent < 1 << 29  # cut off, at the speed of a loopback
    assert service_memory(federation) - before < 100


def test_a_hundred_slow_connections_are_closed_and_hinder_nobody(federation: Federation) -> None:
    slow = [raw(federation) for _ in range(100)]
    for line in slow:
        line.sendall(b"POST /consilium/v1/fetch HTTP/1.1\r\nx-slow: ")
    began = time.monotonic()
    with federation.line("south") as honest:
        honest.post(STUDIES_PATH, b"")
    assert time.monotonic() - began < AT_ONCE_S
    closed = 0
    for line in slow:
        line.settimeout(max(0.1, CLOSED_WITHIN_S - (time.monotonic() - began)))
        with suppress(TimeoutError, ConnectionError, ssl.SSLError):
            line.sendall(b"x")
            closed += line.recv(1) == b""
            closed -= 1
        closed += 1
        line.close()
    assert closed == 100
    assert time.monotonic() - began < CLOSED_WITHIN_S + 10


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "a/b", "..", "a\x00b", "", "A" * 65])
def test_names_that_would_leave_the_folder_are_refused(federation: Federation, name: str) -> None:
    if "\x00" not in name:
        assert "must be 1 to 64" in federation.operator("invite", name, fails=True)
        told = federation.hospital("south", "approve", name, "--yes", fails=True)
        assert "no study" in told
    with pytest.raises(MessageError):
        StudyOffer(text=STUDY.encode(), roster={name: bytes(32)}, declared={}, signature=bytes(64))
    with pytest.raises(MessageError):
        StudyRequest(digest=b"../../../../../../etc/passwd")


def test_a_study_that_the_records_cannot_serve_is_not_approved_and_only_the_hospital_hears_why(
    federation: Federation,
) -> None:
    policy = federation.site("south") / "policy.toml"
    before, heard = policy.read_text(), len(refusals(federation))
    policy.write_text(before.replace("minimum_patients = 5", "minimum_patients = 10000"))
    try:
        told = federation.hospital("south", "approve", "tiny", "--yes", fails=True)
    finally:
        policy.write_text(before)
    assert "patients of the study are below this site's own bound of 10000" in told
    assert len(refusals(federation)) == heard


def test_an_offer_changed_on_its_way_is_not_approved(federation: Federation) -> None:
    digest = parse_study(STUDY).digest
    with federation.line("south") as line:
        reply = line.post(STUDY_PATH, StudyRequest(digest=digest).to_bytes())
    offer = StudyOffer.from_bytes(reply)
    approvals = approvals_of(SiteFolder.open(federation.site("south")))
    approvals.check(offer)
    swapped = dict(zip(offer.roster, reversed(offer.roster.values()), strict=True))
    for changed in (
        replace(offer, text=offer.text.replace(b"rounds = 3", b"rounds = 30")),
        replace(offer, roster=swapped),
        replace(offer, signature=bytes(64)),
    ):
        with pytest.raises(AuthenticationError, match="is not signed by the coordinator"):
            approvals.check(changed)


def test_refusals_are_logged_without_end_but_recorded_within_bounds(
    federation: Federation,
) -> None:
    before, began = len(refusals(federation)), time.monotonic()
    for _ in range(60):
        assert ask(federation, "/nothing", {})[0] == 404
    minutes = 1 + int((time.monotonic() - began) // 60)
    assert len(refusals(federation)) - before <= 30 * minutes
    json.loads(federation.operator("watch", "--json"))
    assert (federation.coordinator / "audit.jsonl").stat().st_mode & 0o077 == 0
