"""A log at a glance: counts, the latest of each, and what passes for no entry is passed over."""

from consilium.shared.audit.events import Diverged, HeadSeen, Refused, Released, RoundClosed
from consilium.shared.audit.log import AuditLog
from consilium.shared.audit.summary import summarise
from consilium.shared.crypto.keys import IdentityKey

RELEASED = Released(
    study_digest=bytes(32),
    study_hash=bytes(32),
    round=1,
    purpose="training",
    message_digest=bytes(32),
    epsilon=1.0,
    delta=1e-5,
)
CLOSED = RoundClosed(
    study_digest=bytes(32),
    study_hash=bytes(32),
    round=1,
    purpose="training",
    survivors=("a", "b", "c"),
    model_digest=bytes(32),
    void=None,
)
SEEN = HeadSeen(
    peer="north", study_digest=bytes(32), number=7, digest=bytes(32), signature=bytes(64)
)
WENT_BACK = Diverged(
    peer="north",
    study_digest=bytes(32),
    known_number=7,
    known_digest=bytes(32),
    shown_number=3,
    shown_digest=bytes(32),
    shown_signature=bytes(64),
)
REFUSED = Refused(peer="north", asked="enrol", code="401", sentence="no")


def test_the_latest_of_each_is_told_and_noise_is_passed_over(tmp_path):
    key = IdentityKey.from_seed(b"a" * 32)
    log = AuditLog(tmp_path / "audit.jsonl", owner="a", key=key, version="0.1.0")
    head = log.append(SEEN, RELEASED, CLOSED, REFUSED, WENT_BACK)
    told = summarise(log.path)
    assert (told.entries, told.head) == (head.number, head.digest)
    assert (told.released[1], told.closed[1], told.refused[1]) == (RELEASED, CLOSED, REFUSED)
    assert told.peers == {"north": 3}
    assert told.divergences == {"north": 1}
    assert told.counts["head-seen"] == 1
    with log.path.open("ab") as file:
        file.write(b"noise\n")
    assert summarise(log.path) == told
