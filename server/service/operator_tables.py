"""The tables of the operator's page: sites, the last round, the latest rounds, events."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from consilium.server.service.overview import SEEN_LATELY_S
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import (
    Acted,
    Diverged,
    Enrolled,
    HeadSeen,
    LeftOut,
    Opened,
    Refused,
    RefusedOften,
    Restored,
    Revoked,
    RoundClosed,
    StudyChanged,
)
from consilium.shared.files.json_record import JsonRecord

SHOWN_ROUNDS = 12
EVENTS = 25


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A text in a table; ``kind`` colours it: ``good``, ``bad``, ``dim`` or not at all."""

    text: str
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A caption, the headings of the columns, and rows of cells."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def sites_table(sites: Sequence[JsonRecord]) -> Table:
    """Return who is enrolled, and when each site was last seen."""
    rows = []
    for site in sites:
        ago = site["seen_s_ago"]
        if site["revoked"]:
            state = Cell(text="revoked", kind="bad")
        elif ago is None:
            state = Cell(text="never seen", kind="dim")
        elif ago < SEEN_LATELY_S:
            state = Cell(text="present", kind="good")
        else:
            state = Cell(text=f"last seen {_duration(ago)} ago", kind="bad")
        left = "not told" if site["budget_left"] is None else f"{site['budget_left']:.2f}"
        rest = _cells(site["version"] or "–", left, site["identity"][:16])
        rows.append((Cell(text=site["site"]), state, *rest))
    return Table(
        caption="Enrolled sites",
        headings=("site", "state", "version", "lifetime epsilon left, as it says", "identity"),
        rows=tuple(rows),
    )


def last_round_table(
    study: JsonRecord, rounds: Sequence[JsonRecord], sites: Sequence[JsonRecord]
) -> Table:
    """Return which sites were in the last round, and what is known of the others."""
    last = rounds[-1]
    revoked = {site["site"] for site in sites if site["revoked"]}
    rows = []
    for name in study["roster_sites"]:
        if name in last["sites"]:
            state = Cell(text="in the sum", kind="good")
        elif name in last.get("left_out", ()):
            state = Cell(text="left out: may send garbage", kind="bad")
        else:
            state = Cell(text="revoked" if name in revoked else "not in the sum", kind="bad")
        sent, received = (_bytes(last[key].get(name)) for key in ("bytes_up", "bytes_down"))
        reason = last["refusals"].get(name, "")
        size = str(study["declared_sizes"].get(name, "–"))
        rows.append((Cell(text=name), state, *_cells(size, sent, received, reason)))
    return Table(
        caption=f"Sites in round {last['round']}",
        headings=("site", "state", "declared size", "sent", "received", "what it said"),
        rows=tuple(rows),
    )


def rounds_table(rounds: Sequence[JsonRecord]) -> Table:
    """Return the figures of the latest rounds, latest first."""
    rows = []
    for r in reversed(rounds[-SHOWN_ROUNDS:]):
        validation = r.get("validation") or {}
        risks = [o["auroc"] for o in validation.get("outputs", ()) if o]
        void = Cell(text=f"void: {r['void']}", kind="bad")
        rows.append((
            *_cells(str(r["round"]), r["purpose"]),
            void if r["void"] else Cell(text=f"{len(r['sites'])} sites"),
            *_cells(
                _number(validation.get("loss")),
                _number(sum(risks) / len(risks) if risks else None),
                _number(r["epsilon"], 2),
                _number(r["seconds"], 2),
            ),
        ))  # fmt: skip
    return Table(
        caption="The latest rounds",
        headings=("round", "purpose", "sum", "validation loss", "AUROC", "epsilon", "seconds"),
        rows=tuple(rows),
    )


def events_table(entries: Iterable[AuditEntry]) -> Table:
    """Return what the audit log's entries say, latest first, without noted heads of site logs."""
    rows: list[tuple[Cell, ...]] = []
    for entry in entries:
        if isinstance(entry.event, HeadSeen):
            continue  # there is one for each site and round
        sentence, bad = _sentence_of(entry)
        when = entry.at[:19].replace("T", " ")
        rows.append(
            (*_cells(when, str(entry.number)), Cell(text=sentence, kind="bad" if bad else ""))
        )
        if len(rows) == EVENTS:
            break
    return Table(
        caption="From the audit log, the latest first",
        headings=("time (UTC)", "entry", "what"),
        rows=tuple(rows),
    )


def _sentence_of(entry: AuditEntry) -> tuple[str, bool]:
    """Return an entry's sentence, and whether it reports something bad."""
    match entry.event:
        case Opened() as e:
            return f"log opened by version {e.version}", False
        case Enrolled() as e:
            return f"{e.site} enrolled", False
        case Revoked() as e:
            return f"{e.site} revoked" + (f": {e.reason}" if e.reason else ""), True
        case StudyChanged() as e:
            return f"study {e.study}: {e.state}", False
        case RoundClosed() as e if e.void is None:
            return f"round {e.round} ({e.purpose}): {len(e.survivors)} sites", False
        case RoundClosed() as e:
            return f"round {e.round} ({e.purpose}) is void: {e.void}", True
        case LeftOut(sites=()):
            return "all sites take part again", False
        case LeftOut() as e:
            why = "to find out who sends garbage" if e.narrowing else "they send garbage"
            return f"after round {e.round} without {', '.join(e.sites)}: {why}", True
        case Refused() as e:
            return f"{e.peer} was refused {e.asked}: {e.sentence}", True
        case Acted() | RefusedOften() | Restored() as e:
            return _of_operation(e), isinstance(e, RefusedOften)
        case Diverged() as e:
            return f"the audit log of {e.peer} did not continue what it had shown", True
        case event:
            facts = {k: v for k, v in asdict(event).items() if not isinstance(v, bytes)}
            return f"{event.kind} {json.dumps(facts) if facts else ''}".strip(), False


def _of_operation(event: Acted | RefusedOften | Restored) -> str:
    if isinstance(event, Restored):
        return f"restored from the backup of {event.made_at}"
    if isinstance(event, Acted):
        return f"{event.by}: {event.act} {event.subject}".strip()
    who = ", ".join(event.peers)
    return f"{event.refusals} refusals within {event.seconds} s, of {who}: {event.first}"


def _cells(*texts: str) -> tuple[Cell, ...]:
    return tuple(Cell(text=text) for text in texts)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _bytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1000:,.1f} kB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
