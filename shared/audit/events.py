"""What an audit log records: one frozen event a line, and its canonical JSON.

An event carries names, digests, numbers and reasons. It never carries a row, a key that is secret,
an update or one site's metrics, so a log can be handed to an auditor as it is.
"""

import json
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, ClassVar, get_args, get_type_hints

from consilium.shared.errors import AuditError

LARGEST_TEXT = 1000
LARGEST_LIST = 1000
LARGEST_NUMBER = 2**53  # whole numbers up to here are exact in every JSON reader

_KINDS: dict[str, type["AuditEvent"]] = {}


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """Base of all events: fields are text, whole numbers, floats, bytes, or lists of names.

    Raises:
        AuditError: a field has another type or is longer than an entry may be.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        _KINDS[cls.kind] = cls

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if name != "kind" and not _fits(getattr(self, name), hint):
                raise AuditError(
                    f"audit event {self.kind}: {name} is not a {_in_words(hint)} within its bound; "
                    "record something shorter or of that type"
                )


@dataclass(frozen=True, kw_only=True)
class Opened(AuditEvent):
    """The first line: whose log this is and by which build it was begun."""

    kind = "opened"
    owner: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Enrolled(AuditEvent):
    """A site's identity became known to the coordinator, and the coordinator's to the site."""

    kind = "enrolled"
    site: str
    site_identity: bytes
    coordinator_identity: bytes


@dataclass(frozen=True, kw_only=True)
class Revoked(AuditEvent):
    """A site was shut out, from now on."""

    kind = "revoked"
    site: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Approved(AuditEvent):
    """A person at the hospital approved a study, or took the approval back."""

    kind = "approved"
    study: str
    study_digest: bytes
    approved: bool
    by: str


@dataclass(frozen=True, kw_only=True)
class Vouched(AuditEvent):
    """A person here vouched for a hospital with this fingerprint, or took it back."""

    kind = "vouched"
    hospital: str
    fingerprint: bytes
    vouched: bool
    by: str


@dataclass(frozen=True, kw_only=True)
class VouchersTaken(AuditEvent):
    """The signed list of whom another hospital vouches for was taken over; ``issued`` is its time.

    ``list_digest`` is SHA-256 of the file.
    """

    kind = "vouchers-taken"
    signer: str
    signer_identity: bytes
    issued: int
    list_digest: bytes
    by: str


@dataclass(frozen=True, kw_only=True)
class SizeDeclared(AuditEvent):
    """The hospital declared its size for a study, in patients; written before it leaves."""

    kind = "size-declared"
    study_digest: bytes
    patients: int


@dataclass(frozen=True, kw_only=True)
class StudyChanged(AuditEvent):
    """A study was submitted, begun, paused, resumed, stopped or finished."""

    kind = "study-changed"
    study: str
    study_digest: bytes
    state: str


@dataclass(frozen=True, kw_only=True)
class Released(AuditEvent):
    """Something may leave the site from now on; written before it does.

    ``message_digest`` is SHA-256 of the masked vector that leaves. ``epsilon`` is what the study
    has spent at ``delta`` on a patient of this site with this release, None without privacy.
    """

    kind = "released"
    study_digest: bytes
    study_hash: bytes
    round: int
    purpose: str
    message_digest: bytes
    epsilon: float | None
    delta: float | None


@dataclass(frozen=True, kw_only=True)
class Charged(AuditEvent):
    """What the release on the next line costs, and what it left behind at the site.

    ``charges`` is JSON: a list of [purpose, low shard, high shard, privacy events], from which a
    lost ledger is written anew; ``study_epsilon`` and ``study_delta`` are the study's budget, None
    without privacy. ``own_part`` is SHA-256 of the file with the part of the model that stays at
    the site, empty if there is none. Nothing of it depends on a record but that digest.
    """

    kind = "charged"
    study: str
    study_digest: bytes
    study_hash: bytes
    round: int
    study_epsilon: float | None
    study_delta: float | None
    charges: str
    own_part: bytes


@dataclass(frozen=True, kw_only=True)
class BudgetCarried(AuditEvent):
    """This hospital's budget goes on from a certificate of its former identity.

    ``number`` is the entry to which the former log had come, ``releases`` how many :class:`Carried`
    entries follow, ``written_off`` the epsilon that counts as spent beside them.
    """

    kind = "budget-carried"
    identity: bytes
    number: int
    certificate_digest: bytes
    releases: int
    written_off: float


@dataclass(frozen=True, kw_only=True)
class Carried(AuditEvent):
    """What the former identity had spent in one study on some shards, all releases added up.

    ``charges`` is JSON: low shard, high shard, privacy events. ``closed``: it was spent before a
    ledger was written off. ``study_hash`` and ``round`` name the entry in the new ledger.
    """

    kind = "carried"
    identity: bytes
    certificate_digest: bytes
    study: str
    study_digest: bytes
    study_hash: bytes
    round: int
    study_epsilon: float
    study_delta: float
    charges: str
    closed: bool


@dataclass(frozen=True, kw_only=True)
class RosterChanged(AuditEvent):
    """From here on a study has another roster: a site stands in it under another key, or left.

    ``version`` counts the study's rosters from 1, ``roster`` is the digest of the one now in force.
    ``before`` and ``after`` are the site's identities, ``after`` empty if it left for good. At a
    site, ``by`` names the rule or the person that accepted it.
    """

    kind = "roster-changed"
    study: str
    study_digest: bytes
    version: int
    roster: bytes
    site: str
    before: bytes
    after: bytes
    by: str


@dataclass(frozen=True, kw_only=True)
class RosterAgreed(AuditEvent):
    """A hospital agreed to a proposed roster of a study; its own log has it before it is sent.

    ``version`` and ``roster`` are the roster's number and digest, ``joined`` and ``left`` the sites
    that it adds and takes away. ``by`` names the rule or the person; the coordinator's log has the
    site there.
    """

    kind = "roster-agreed"
    study: str
    study_digest: bytes
    version: int
    roster: bytes
    joined: tuple[str, ...]
    left: tuple[str, ...]
    by: str


@dataclass(frozen=True, kw_only=True)
class RosterInForce(AuditEvent):
    """From this round on a study has another roster, to which all that stay agreed.

    ``version``, ``roster``, ``joined`` and ``left`` are as in :class:`RosterAgreed`. ``round`` is
    the number of the first sum that may be of it.
    """

    kind = "roster-in-force"
    study: str
    study_digest: bytes
    version: int
    roster: bytes
    round: int
    joined: tuple[str, ...]
    left: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Succeeded(AuditEvent):
    """A hospital came back under a new key, by its recovery code; its former log had come so far.

    Written by the coordinator.
    """

    kind = "succeeded"
    site: str
    before: bytes
    after: bytes
    number: int


@dataclass(frozen=True, kw_only=True)
class AddressChanged(AuditEvent):
    """The coordinator is reached elsewhere; at the coordinator, its certificate has other names."""

    kind = "address-changed"
    before: str
    after: str
    by: str


@dataclass(frozen=True, kw_only=True)
class OptedOut(AuditEvent):
    """The release on the lines after this one holds nobody who opted out, of so many named.

    ``left_out`` is how many of them are among this study's records. One stands before each release
    of a site that keeps such a file, whatever the file says, so the entries' number tells nothing
    of it; and ``blind`` is 32 random bytes, so that the digest of the line, which others see, does
    not tell the counts to somebody who tries them out.
    """

    kind = "opted-out"
    study_digest: bytes
    round: int
    named: int
    left_out: int
    blind: bytes


@dataclass(frozen=True, kw_only=True)
class Mended(AuditEvent):
    """Ledger and journal were brought up to this log: so many releases charged, runs claimed."""

    kind = "mended"
    releases: int
    runs: int


@dataclass(frozen=True, kw_only=True)
class OwnPartGivenUp(AuditEvent):
    """A person at the hospital gave up a lost or older part of a model; the run begins it anew."""

    kind = "own-part-given-up"
    study_digest: bytes
    study_hash: bytes
    own_part: bytes


@dataclass(frozen=True, kw_only=True)
class RoundClosed(AuditEvent):
    """What the coordinator learned in a round: a sum over these sites, or nothing and why."""

    kind = "round-closed"
    study_digest: bytes
    study_hash: bytes
    round: int
    purpose: str
    survivors: tuple[str, ...]
    model_digest: bytes
    void: str | None


@dataclass(frozen=True, kw_only=True)
class LeftOut(AuditEvent):
    """From the next round on the coordinator does without these sites, as suspects of garbage.

    No sites: all take part again. ``narrowing`` says that whose garbage it is, is still being found
    out, by leaving out different sites in turn.
    """

    kind = "left-out"
    study_digest: bytes
    study_hash: bytes
    round: int
    sites: tuple[str, ...]
    narrowing: bool


@dataclass(frozen=True, kw_only=True)
class Refused(AuditEvent):
    """Something asked was refused: who asked, for what, and the sentence they got."""

    kind = "refused"
    peer: str
    asked: str
    code: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class RefusedOften(AuditEvent):
    """Within ``seconds`` as many requests were refused as the log holds here in one line.

    ``codes`` and ``peers`` say which status or code and which address how often, the most frequent
    first: ``401 x1440``. ``first`` is what the first of them asked for, and the sentence it got.
    """

    kind = "refused-often"
    refusals: int
    seconds: int
    codes: tuple[str, ...]
    peers: tuple[str, ...]
    first: str


@dataclass(frozen=True, kw_only=True)
class Acted(AuditEvent):
    """An operator did something: who by their own account or the machine's, what, and to what."""

    kind = "acted"
    by: str
    act: str
    subject: str


@dataclass(frozen=True, kw_only=True)
class ConfigurationChanged(AuditEvent):
    """A settings or policy file is now another one; digests are SHA-256, all zero if none."""

    kind = "configuration-changed"
    file: str
    before: bytes
    after: bytes


@dataclass(frozen=True, kw_only=True)
class HeadSeen(AuditEvent):
    """How far the other side's log had come, with its signature: our anchor for their log.

    ``study_digest`` is of the study in whose round it was shown.
    """

    kind = "head-seen"
    peer: str
    study_digest: bytes
    number: int
    digest: bytes
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class Diverged(AuditEvent):
    """The other side showed a head that does not follow the one it showed before."""

    kind = "diverged"
    peer: str
    study_digest: bytes
    known_number: int
    known_digest: bytes
    shown_number: int
    shown_digest: bytes
    shown_signature: bytes


@dataclass(frozen=True, kw_only=True)
class KeyRotated(AuditEvent):
    """The log's owner signs with another key from the next line on; both keys vouch for it."""

    kind = "key-rotated"
    new_identity: bytes
    endorsement: bytes


@dataclass(frozen=True, kw_only=True)
class Healed(AuditEvent):
    """A crash had left this many bytes of a line that was never acknowledged; they were removed."""

    kind = "healed"
    removed_bytes: int
    removed_digest: bytes


@dataclass(frozen=True, kw_only=True)
class Sealed(AuditEvent):
    """The first entry of a new file: all before it are in the sealed segments up to this one."""

    kind = "sealed"
    segment: int
    by: str


@dataclass(frozen=True, kw_only=True)
class Restored(AuditEvent):
    """The state folder was put back from a backup with this manifest digest, made at that time."""

    kind = "restored"
    manifest_digest: bytes
    made_at: str


def event_to_plain(event: AuditEvent) -> dict[str, Any]:
    """Return the fields as JSON writes them; bytes are lower-case hexadecimal."""
    return {field.name: _to_plain(getattr(event, field.name)) for field in fields(event)}


def event_from_plain(kind: str, plain: Any) -> AuditEvent:
    """Return the event of this kind with these fields.

    Raises:
        AuditError: an unknown kind, or other fields than the kind has.
    """
    found = _KINDS.get(kind)
    if found is None:
        raise AuditError(f"audit event {kind[:64]!r} is not known to this version; use a later one")
    hints = {name: hint for name, hint in get_type_hints(found).items() if name != "kind"}
    if not isinstance(plain, dict) or plain.keys() != hints.keys():
        raise AuditError(f"audit event {kind}: has other fields than this version records")
    try:
        return found(**{name: _from_plain(plain[name], hint) for name, hint in hints.items()})
    except (ValueError, TypeError) as error:
        raise AuditError(f"audit event {kind}: a field is malformed") from error


def canonical_json(content: dict[str, Any]) -> bytes:
    """ASCII JSON with sorted keys and no spaces: one content, one encoding, no line break in it."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _fits(value: Any, hint: Any) -> bool:
    choices = get_args(hint)
    if choices and choices[-1] is NoneType:
        return value is None or _fits(value, choices[0])
    if hint is int:
        return type(value) is int and 0 <= value <= LARGEST_NUMBER
    if hint is float:
        return type(value) is float and value - value == 0  # neither NaN nor infinite
    if hint in (str, bytes):
        return type(value) is hint and len(value) <= LARGEST_TEXT
    if hint is bool:
        return type(value) is bool
    within = isinstance(value, tuple) and len(value) <= LARGEST_LIST
    return within and all(_fits(item, str) and len(item) <= 64 for item in value)


def _in_words(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


def _to_plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return list(value) if isinstance(value, tuple) else value


def _from_plain(value: Any, hint: Any) -> Any:
    if hint is bytes:
        return bytes.fromhex(value)
    return tuple(value) if isinstance(value, list) else value
