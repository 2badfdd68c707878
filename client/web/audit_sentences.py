"""What the entries of a site's audit log say, in plain words."""

import json
from dataclasses import asdict, dataclass

from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import (
    Acted,
    Approved,
    AuditEvent,
    Charged,
    ConfigurationChanged,
    Diverged,
    Enrolled,
    HeadSeen,
    Opened,
    OptedOut,
    Refused,
    Released,
    SizeDeclared,
    Vouched,
)


@dataclass(frozen=True, kw_only=True)
class Told:
    """An entry as the page shows it; ``kind`` colours it: ``good``, ``bad`` or not at all."""

    number: int
    at: str
    sentence: str
    kind: str = ""


def told(entry: AuditEntry) -> Told | None:
    """Return an entry's sentence; None for those that only note another log's head or a price."""
    if isinstance(entry.event, HeadSeen | Charged):
        return None
    sentence, kind = _sentence(entry.event)
    return Told(
        number=entry.number, at=entry.at[:19].replace("T", " "), sentence=sentence, kind=kind
    )


def _sentence(event: AuditEvent) -> tuple[str, str]:
    match event:
        case Opened():
            return f"The log was opened by version {event.version}.", ""
        case Enrolled():
            return f"{event.site} enrolled with its coordinator.", ""
        case Approved(approved=True):
            return f"Study {event.study} was approved by {event.by}.", "good"
        case Approved():
            return f"The approval of study {event.study} was withdrawn by {event.by}.", "bad"
        case SizeDeclared():
            return f"A size of {event.patients} patients was declared.", ""
        case Released():
            spent = "" if event.epsilon is None else f", epsilon {event.epsilon:.2f} spent so far"
            return f"Round {event.round} ({event.purpose}): a masked vector left{spent}.", ""
        case Refused():
            return f"{event.peer} was refused {event.asked}: {event.sentence}", "bad"
        case Diverged():
            return f"The audit log of {event.peer} did not continue what it had shown.", "bad"
        case _:
            return _of_care(event), ""


def _of_care(event: AuditEvent) -> str:
    """Return the sentence of what is neither good nor bad and of no round."""
    match event:
        case OptedOut():
            return (
                f"Round {event.round}: {event.left_out} of {event.named} persons who opted out "
                "were among the records, and were left out."
            )
        case Vouched():
            done = "vouched for" if event.vouched else "took back the voucher for"
            return f"{event.by} {done} {event.hospital}."
        case ConfigurationChanged():
            return f"The file {event.file} was changed."
        case Acted():
            return f"{event.by}: {event.act} {event.subject}".strip()
        case _:
            facts = {k: v for k, v in asdict(event).items() if not isinstance(v, bytes)}
            return f"{event.kind} {json.dumps(facts) if facts else ''}".strip()
