"""Whatever is done to a log, the first line that does not fit is named, and why."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.shared.audit.anchors import Anchors
from consilium.shared.audit.check import AuditReport, Reason, check_log
from consilium.shared.audit.entry import AuditEntry, line_digest
from consilium.shared.audit.events import Approved, Healed, KeyRotated
from consilium.shared.audit.heads import AuditHead
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.reading import identities_of, recorded_heads
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import AuditError
from tests.in_process import memory_folder
from tests.shared.audit.rotated_logs import rotate

KEY = IdentityKey.from_seed(b"a" * 32)
PEER = IdentityKey.from_seed(b"p" * 32)
THIEF = IdentityKey.from_seed(b"t" * 32)
LINES = 8
STUDY = bytes(32)


def write_log(path: Path, key: IdentityKey = KEY, owner: str = "site-a", lines: int = LINES):
    log = AuditLog(path, owner=owner, key=key, version="0.1.0")
    for number in range(2, lines + 1):
        log.append(
            Approved(study=f"study-{number}", study_digest=bytes(32), approved=True, by="dr")
        )
    return log


def make_whole() -> list[bytes]:
    with memory_folder() as folder:
        write_log(folder / "audit.jsonl")
        return (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)


WHOLE = make_whole()
LAST = AuditHead.sign(KEY, owner="site-a", number=LINES, digest=line_digest(WHOLE[-1]))


def check_lines(lines: list[bytes], **how: object) -> AuditReport:
    with memory_folder() as folder:
        path = folder / "audit.jsonl"
        path.write_bytes(b"".join(lines))
        return check_log(path, trusted=KEY.public, owner="site-a", **how)


def found(lines: list[bytes], **how: object) -> tuple[int, Reason]:
    finding = check_lines(lines, **how).finding
    return finding.line, finding.reason


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_byte_changed_is_named_at_its_line(data):
    content = b"".join(WHOLE)
    place = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    line = content[:place].count(b"\n") + 1
    changed = content[:place] + bytes([value]) + content[place + 1 :]
    torn = place == len(content) - 1
    assert found([changed]) == (line, Reason.TORN if torn else Reason.ALTERED)


@pytest.mark.parametrize(
    "bit", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 8))]
)
def test_every_bit_of_a_line_counts(bit):
    line = WHOLE[3]
    for place in range(len(line)):
        flipped = line[:place] + bytes([line[place] ^ 1 << bit]) + line[place + 1 :]
        assert found([*WHOLE[:3], flipped, *WHOLE[4:]])[0] == 4


@given(st.integers(0, LINES - 2), st.integers(1, 3))
def test_lines_taken_out_are_named_at_the_first_of_them(first, count):
    count = min(count, LINES - 1 - first)
    lines = WHOLE[:first] + WHOLE[first + count :]
    assert found(lines) == (first + 1, Reason.REMOVED)
    assert found([*lines, b"and then noise\n"]) == (first + 1, Reason.REMOVED)


@given(st.permutations(range(LINES)).filter(lambda order: order != list(range(LINES))))
@settings(deadline=None)
def test_lines_in_another_order_are_named_at_the_first_out_of_place(order):
    first = next(place for place, number in enumerate(order) if place != number)
    line, reason = found([WHOLE[number] for number in order])
    assert line == first + 1
    assert reason is Reason.REORDERED


@given(st.integers(0, LINES - 1), st.integers(0, LINES - 1))
def test_a_line_that_stands_twice_is_named_the_second_time(number, place):
    if place >= number:
        lines = [*WHOLE[: place + 1], WHOLE[number], *WHOLE[place + 1 :]]
        assert found(lines) == (place + 2, Reason.REORDERED)


@given(st.integers(0, LINES - 1))
def test_lines_cut_off_at_the_end_are_seen_by_whoever_has_seen_a_later_head(kept):
    assert found(WHOLE[:kept], anchors=[LAST]) == (kept + 1, Reason.TRUNCATED)
    if kept:
        report = check_lines(WHOLE[:kept])
        assert (report.finding, report.entries) == (None, kept)  # alone, a log cannot tell


@given(st.integers(0, LINES - 1), st.data())
def test_a_line_cut_off_in_the_middle_is_named_torn(kept, data):
    part = data.draw(st.integers(1, len(WHOLE[kept]) - 1))
    assert found([*WHOLE[:kept], WHOLE[kept][:part]]) == (kept + 1, Reason.TORN)


def test_an_empty_log_is_no_log():
    assert found([]) == (1, Reason.TRUNCATED)
    with pytest.raises(AuditError, match="cannot be read"):
        check_log(Path("missing"), trusted=KEY.public, owner="site-a")


def test_a_log_written_by_another_key_is_named_at_line_1():
    with memory_folder() as folder:
        write_log(folder / "audit.jsonl", THIEF)
        forged = (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)
    assert found(forged) == (1, Reason.WRONG_SIGNER)
    assert found([*WHOLE[:4], *forged[4:]]) == (5, Reason.WRONG_SIGNER)
    with memory_folder() as folder:
        write_log(folder / "audit.jsonl", owner="site-b")
        of_another = (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)
    assert found(of_another) == (1, Reason.WRONG_SIGNER)


def test_a_line_of_another_log_of_the_same_key_does_not_fit():
    with memory_folder() as folder:
        write_log(folder / "audit.jsonl")
        other = (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)
    assert found([*WHOLE[:4], other[4], *WHOLE[5:]]) == (5, Reason.ALTERED)


def test_a_log_its_owner_wrote_anew_is_betrayed_by_the_heads_the_peer_recorded():
    with memory_folder() as folder:
        write_log(folder / "audit.jsonl", lines=LINES + 3)
        anew = (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)
    assert check_lines(anew).finding is None  # it is consistent in itself
    early = AuditHead.sign(KEY, owner="site-a", number=5, digest=line_digest(WHOLE[4]))
    report = check_lines(anew, anchors=[early, LAST])
    assert (report.finding.line, report.finding.reason) == (5, Reason.FOREIGN_HEAD)
    assert "from line 1 to here" in report.finding.detail
    assert check_lines(WHOLE, anchors=[early, LAST]).anchors == 2


def test_a_rotation_that_the_new_key_did_not_vouch_for_is_named():
    with memory_folder() as folder:
        path = folder / "audit.jsonl"
        log = write_log(path, THIEF, lines=2)
        stolen = KeyRotated(new_identity=KEY.public, endorsement=bytes(64))
        log.append(stolen)  # the thief's log claims to lead to the trusted key
        report = check_log(path, trusted=KEY.public, owner="site-a")
    assert (report.finding.line, report.finding.reason) == (3, Reason.WRONG_SIGNER)
    assert "does not vouch" in report.finding.detail


def test_an_endorsement_is_good_for_one_place_of_one_log_only():
    with memory_folder() as folder:
        path = folder / "genuine.jsonl"
        rotate(write_log(path, THIEF, lines=2), THIEF, KEY)
        event = AuditEntry.from_line(path.read_bytes().splitlines(keepends=True)[-1]).event
        path = folder / "forged.jsonl"
        write_log(path, THIEF, lines=2).append(event)
        report = check_log(path, trusted=KEY.public, owner="site-a")
    assert (report.finding.line, report.finding.reason) == (3, Reason.WRONG_SIGNER)


def test_a_line_of_endless_length_takes_bounded_memory_and_is_named():
    huge = b'{"at":"' + b"x" * 3_000_000 + b'"}\n'
    assert found([*WHOLE[:2], huge]) == (3, Reason.ALTERED)


def test_a_log_that_does_not_begin_with_its_opening_is_named_at_line_1():
    with memory_folder() as folder:
        path = folder / "audit.jsonl"
        write_log(path, lines=1)
        lines = path.read_bytes().splitlines(keepends=True)
    entry = AuditEntry.from_line(lines[0])
    healed = AuditEntry(
        **{**vars(entry), "event": Healed(removed_bytes=1, removed_digest=bytes(32))}
    )
    signed = AuditEntry(**{**vars(healed), "signature": KEY.sign(healed.statement())})
    assert found([signed.to_line()]) == (1, Reason.WRONG_SIGNER)


def two_logs(folder: Path) -> tuple[AuditLog, AuditLog]:
    site = AuditLog(folder / "site.jsonl", owner="site-a", key=KEY, version="0.1.0")
    coordinator = AuditLog(folder / "c.jsonl", owner="coordinator", key=PEER, version="0.1.0")
    return site, coordinator


def exchange(site: AuditLog, coordinator: AuditLog) -> None:
    """One round: each side records the head that the other shows."""
    identities = {"site-a": KEY.public, "coordinator": PEER.public}
    assert (
        Anchors(site).record(
            {"coordinator": coordinator.head().to_bytes()}, identities, study_digest=STUDY
        )
        == {}
    )
    assert (
        Anchors(coordinator).record(
            {"site-a": site.head().to_bytes()}, identities, study_digest=STUDY
        )
        == {}
    )


def test_two_logs_that_saw_each_other_grow_confirm_each_other(tmp_path):
    site, coordinator = two_logs(tmp_path)
    for _ in range(3):
        exchange(site, coordinator)
    anchors = recorded_heads(coordinator.path, owner="site-a", identities=[KEY.public])
    report = check_log(site.path, trusted=KEY.public, owner="site-a", anchors=anchors)
    assert (report.finding, report.anchors) == (None, 3)
    anchors = recorded_heads(site.path, owner="coordinator", identities=[PEER.public])
    report = check_log(coordinator.path, trusted=PEER.public, owner="coordinator", anchors=anchors)
    assert (report.finding, report.anchors) == (None, 3)
    content = site.path.read_bytes().splitlines(keepends=True)
    site.path.write_bytes(b"".join(content[:-1]))
    anchors = recorded_heads(coordinator.path, owner="site-a", identities=[KEY.public])
    report = check_log(site.path, trusted=KEY.public, owner="site-a", anchors=anchors)
    assert report.finding.reason is Reason.TRUNCATED
    assert report.finding.line == len(content)


def test_a_head_that_the_owner_did_not_sign_is_recorded_as_refused_and_is_no_evidence(tmp_path):
    site, coordinator = two_logs(tmp_path)
    forged = AuditHead.sign(THIEF, owner="site-a", number=99, digest=bytes(32))
    unknown = AuditHead.sign(THIEF, owner="site-x", number=1, digest=bytes(32))
    wrong = Anchors(coordinator).record(
        {
            "site-a": forged.to_bytes(),
            "site-x": unknown.to_bytes(),
            "site-y": b"noise",
            "site-z": b"",
        },
        {"site-a": KEY.public},
        study_digest=STUDY,
    )
    assert set(wrong) == {"site-a", "site-x", "site-y", "site-z"}
    assert wrong["site-z"] == "site-z showed no audit head in this round"
    coordinator.append(forged.as_event(STUDY))  # a lying coordinator writes it down all the same
    assert recorded_heads(coordinator.path, owner="site-a", identities=[KEY.public]) == []
    report = check_log(coordinator.path, trusted=PEER.public, owner="coordinator")
    assert report.events == {"opened": 1, "refused": 4, "head-seen": 1}
    assert site.head().number == 1


def test_a_log_put_back_to_an_older_state_is_noticed_at_the_next_exchange(tmp_path):
    site, coordinator = two_logs(tmp_path)
    exchange(site, coordinator)
    old = coordinator.path.read_bytes()
    for _ in range(2):
        exchange(site, coordinator)
    coordinator.path.write_bytes(old)
    restored = AuditLog(coordinator.path, owner="coordinator", key=PEER, version="0.1.0")
    anchors = Anchors(site)
    identities = {"coordinator": PEER.public}
    wrong = anchors.record(
        {"coordinator": restored.head().to_bytes()}, identities, study_digest=STUDY
    )
    assert "was cut, restored from an older backup, or written anew" in wrong["coordinator"]
    report = check_log(site.path, trusted=KEY.public, owner="site-a")
    assert (report.finding, report.diverged) == (None, (report.entries,))
    # From then on the log is compared with what it shows now, also after a restart.
    restored.append(Approved(study="s", study_digest=bytes(32), approved=True, by="dr"))
    assert (
        Anchors(site).record(
            {"coordinator": restored.head().to_bytes()}, identities, study_digest=STUDY
        )
        == {}
    )


def test_another_entry_of_the_same_number_is_a_divergence_and_the_same_one_is_not(tmp_path):
    site, coordinator = two_logs(tmp_path)
    anchors = Anchors(site)
    identities = {"coordinator": PEER.public}
    head = coordinator.head()
    assert anchors.record({"coordinator": head.to_bytes()}, identities, study_digest=STUDY) == {}
    assert anchors.record({"coordinator": head.to_bytes()}, identities, study_digest=STUDY) == {}
    fork = AuditHead.sign(PEER, owner="coordinator", number=head.number, digest=b"f" * 32)
    assert anchors.record(
        {"coordinator": fork.to_bytes()}, identities, study_digest=STUDY
    ).keys() == {"coordinator"}
    assert anchors.record({}, identities, study_digest=STUDY) == {}


def test_readers_pass_over_lines_that_are_not_entries(tmp_path):
    site, coordinator = two_logs(tmp_path)
    exchange(site, coordinator)
    with coordinator.path.open("ab") as file:
        file.write(b"not an entry\n")
    assert Anchors(coordinator).record({}, {}, study_digest=STUDY) == {}
    assert identities_of(coordinator.path) == (PEER.public,)
    assert len(recorded_heads(coordinator.path, owner="site-a", identities=[KEY.public])) == 1


def test_studies_that_overtake_each_other_are_no_divergence(tmp_path):
    site, coordinator = two_logs(tmp_path)
    identities = {"coordinator": PEER.public}
    anchors = Anchors(site)
    early = coordinator.head().to_bytes()
    coordinator.append(Approved(study="s", study_digest=bytes(32), approved=True, by="dr"))
    late = coordinator.head().to_bytes()
    first, second = b"1" * 32, b"2" * 32
    assert anchors.record({"coordinator": late}, identities, study_digest=first) == {}
    assert anchors.record({"coordinator": early}, identities, study_digest=second) == {}
    again = Anchors(site)  # a restart remembers each study's own last head
    assert again.record({"coordinator": late}, identities, study_digest=second) == {}
    assert again.record({"coordinator": early}, identities, study_digest=first) != {}
