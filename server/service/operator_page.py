"""The operator's page: who is there, how far each study is, what happened; read-only.

Made anew for each request, without scripts: the browser asks again every few seconds. Whatever a
site, a study or a log says is text in it. It shows sums and totals, no site's own figures; of a
hospital's lifetime budget what the hospital says, if its policy lets it.
"""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.service.overview import (
    SEEN_LATELY_S,
    recent_entries,
    recent_records,
    rounds_file,
)
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import (
    Diverged,
    Enrolled,
    HeadSeen,
    Opened,
    Refused,
    Restored,
    Revoked,
    RoundClosed,
    StudyChanged,
)
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE

AGAIN_S = 5
MOST_ROUNDS = 300
SHOWN_ROUNDS = 12
EVENTS = 25
_LOOKED_AT = 400  # entries; most of a log's are heads seen, which say nothing to a person
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

Record = Mapping[str, Any]


def read_page(folder: CoordinatorFolder, status: Record, wrong: Sequence[str]) -> str:
    """Return the page as the folder stands now.

    Args:
        folder: of the coordinator.
        status: what :func:`consilium.server.service.overview.status` returns.
        wrong: one sentence for each thing that is wrong.
    """
    rounds = {
        study["digest"]: recent_records(
            rounds_file(folder, bytes.fromhex(study["digest"])), MOST_ROUNDS
        )[::-1]
        for study in status["studies"]
    }
    return operator_page(
        status, wrong, rounds, recent_entries(folder.path / AUDIT_FILE, _LOOKED_AT)
    )


def operator_page(
    status: Record,
    wrong: Sequence[str],
    rounds: Mapping[str, Sequence[Record]],
    entries: Iterable[AuditEntry],
) -> str:
    """Return the page.

    Args:
        status: what :func:`consilium.server.service.overview.status` returns.
        wrong: one sentence for each thing that is wrong.
        rounds: the latest rounds of each study by its digest, oldest first.
        entries: of the audit log, the latest first.
    """
    health = (
        f"<ul class='bad'>{''.join(f'<li>{_text(sentence)}</li>' for sentence in wrong)}</ul>"
        if wrong
        else "<p class='good'>Nothing is known to be wrong.</p>"
    )
    studies = "".join(_study(s, rounds.get(s["digest"], ()), status["sites"])
                      for s in reversed(status["studies"]))  # fmt: skip
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta http-equiv='refresh' content='{AGAIN_S}'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>Consilium coordinator</title><style>{_STYLE}</style></head><body>"
        "<header><h1>Consilium coordinator</h1>"
        f"<p>Version {_text(status['version'])}; the server's certificate ends "
        f"{_text(status['certificate_ends'][:10])}. Read-only; asks again every {AGAIN_S} s.</p>"
        f"</header><main><h2>Health</h2>{health}"
        f"<h2>Sites</h2>{_sites(status['sites'])}"
        f"<h2>Studies</h2>{studies or '<p>No study was submitted yet.</p>'}"
        f"<h2>Events</h2>{_events(entries)}</main></body></html>\n"
    )


def _sites(sites: Sequence[Record]) -> str:
    if not sites:
        return "<p>No site has enrolled yet; invite one.</p>"
    rows = []
    for site in sites:
        ago = site["seen_s_ago"]
        if site["revoked"]:
            state, kind = "revoked", "bad"
        elif ago is None:
            state, kind = "never seen", "dim"
        elif ago < SEEN_LATELY_S:
            state, kind = "present", "good"
        else:
            state, kind = f"last seen {_duration(ago)} ago", "bad"
        left = "not told" if site["budget_left"] is None else f"{site['budget_left']:.2f}"
        told = (site["version"] or "–", left, site["identity"][:16])
        rows.append((site["site"], (state, kind), *told))
    headings = ("site", "state", "version", "lifetime epsilon left, as it says", "identity")
    return _table("Enrolled sites", headings, rows)


def _study(study: Record, rounds: Sequence[Record], sites: Sequence[Record]) -> str:
    trained = [r for r in rounds if r["purpose"] == "training"]
    done = _trained_in_all(study, trained)
    progress = ""
    if study["rounds"]:
        progress = (
            f"<p><progress max='{study['rounds']}' value='{min(done, study['rounds'])}' "
            f"aria-label='training rounds done'></progress> {done} of {study['rounds']} training "
            "rounds</p>"
        )
    detail = f"<p>{_text(study['detail'])}</p>" if study["detail"] else ""
    return (
        f"<section><h3>{_text(study['title'])}</h3><p>{_text(study['study'])} "
        f"<code>{study['digest'][:16]}</code>: <b>{_text(study['state'])}</b>"
        f"</p>{detail}{progress}{_budget(study)}{_curves(trained)}"
        f"{_in_last(study, rounds, sites)}{_rounds(rounds)}</section>"
    )


def _trained_in_all(study: Record, trained: Sequence[Record]) -> int:
    """Training rounds so far: those read, and those before them, told from the last number.

    The number of a round counts all rounds; the first is for statistics.
    """
    if not trained:
        return 0
    if len(trained) < MOST_ROUNDS - 2:
        return len(trained)
    return int(min(trained[-1]["round"] - 1, study["rounds"] or trained[-1]["round"]))


def _budget(study: Record) -> str:
    last, bound = study["last_round"], study["epsilon_bound"]
    if bound is None:
        return "<p>No differential privacy.</p>"
    spent = (last or {}).get("epsilon") or 0.0
    return (
        f"<p>Epsilon of a training patient: {spent:.2f} spent, {max(bound - spent, 0.0):.2f} left "
        f"of the study's {bound:g}. What a hospital has left for its lifetime, it does not send: "
        "'consilium-site status' there tells.</p>"
    )


def _curves(trained: Sequence[Record]) -> str:
    """Small curves of what the sums say, round by round."""
    judged = [r["validation"] for r in trained if r.get("validation")]
    risks = [[o["auroc"] for o in v["outputs"] if o] for v in judged]
    series = (
        ("validation loss", [v["loss"] for v in judged]),
        ("validation AUROC, mean", [sum(v) / len(v) for v in risks if v]),
        ("epsilon spent", [r["epsilon"] for r in trained]),
        ("seconds a round", [r["seconds"] for r in trained]),
    )
    drawn = "".join(_curve(name, [v for v in values if v is not None]) for name, values in series)
    return f"<div class='curves'>{drawn}</div>"


def _curve(name: str, values: Sequence[float]) -> str:
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{200 * i / (len(values) - 1):.1f},{44 - 40 * (value - low) / span:.1f}"
        for i, value in enumerate(values)
    )
    told = f"{name}: now {values[-1]:.4g}; from {low:.4g} to {high:.4g} in {len(values)} rounds"
    return (
        f"<figure><svg viewBox='-2 0 204 48' role='img' aria-label='{_text(told)}'>"
        f"<polyline points='{points}'/></svg><figcaption>{_text(name)}: <b>{values[-1]:.4g}</b> "
        f"<span class='dim'>({low:.4g} to {high:.4g})</span></figcaption></figure>"
    )


def _in_last(study: Record, rounds: Sequence[Record], sites: Sequence[Record]) -> str:
    """Who was in the last round, and what is known of those who were not."""
    if not rounds:
        return ""
    last = rounds[-1]
    names = study["roster_sites"]
    revoked = {site["site"] for site in sites if site["revoked"]}
    rows = []
    for name in names:
        if name in last["sites"]:
            state = ("in the sum", "good")
        else:
            state = ("revoked" if name in revoked else "not in the sum", "bad")
        sent, received = (last[key].get(name) for key in ("bytes_up", "bytes_down"))
        rows.append(
            (name, state, _bytes(sent), _bytes(received), last["refusals"].get(name, ""))
        )  # fmt: skip
    return _table(
        f"Sites in round {last['round']}",
        ("site", "state", "sent", "received", "what it said"),
        rows,
    )


def _rounds(rounds: Sequence[Record]) -> str:
    rows = []
    for r in reversed(rounds[-SHOWN_ROUNDS:]):
        validation = r.get("validation") or {}
        risks = [o["auroc"] for o in validation.get("outputs", ()) if o]
        rows.append((
            str(r["round"]),
            r["purpose"],
            (f"void: {r['void']}", "bad") if r["void"] else f"{len(r['sites'])} sites",
            _number(validation.get("loss")),
            _number(sum(risks) / len(risks) if risks else None),
            _number(r["epsilon"], 2),
            _number(r["seconds"], 2),
        ))  # fmt: skip
    headings = ("round", "purpose", "sum", "validation loss", "AUROC", "epsilon", "seconds")
    return _table("The latest rounds", headings, rows) if rows else ""


def _events(entries: Iterable[AuditEntry]) -> str:
    rows = []
    for entry in entries:
        if isinstance(entry.event, HeadSeen):
            continue  # one a site and round
        told, bad = _told(entry)
        rows.append(
            (entry.at[:19].replace("T", " "), str(entry.number), (told, "bad" if bad else ""))
        )
        if len(rows) == EVENTS:
            break
    return _table("From the audit log, the latest first", ("time (UTC)", "entry", "what"), rows)


def _told(entry: AuditEntry) -> tuple[str, bool]:
    """What an entry says to a person, and whether it is a worry."""
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
        case Refused() as e:
            return f"{e.peer} was refused {e.asked}: {e.sentence}", True
        case Diverged() as e:
            return f"the audit log of {e.peer} did not continue what it had shown", True
        case Restored() as e:
            return f"restored from the backup of {e.made_at}", False
        case event:
            facts = {k: v for k, v in asdict(event).items() if not isinstance(v, bytes)}
            return f"{event.kind} {json.dumps(facts) if facts else ''}".strip(), False


Cell = str | tuple[str, str]


def _table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table of texts; a cell may be (text, class)."""
    head = "".join(f"<th scope='col'>{_text(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f"<table><caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{_text(cell)}</td>"
    return f"<td class='{cell[1]}'>{_text(cell[0])}</td>"


def _text(words: str) -> str:
    return html.escape(words, quote=True)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _bytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1000:,.1f} kB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1b2430;max-width:64rem;margin:1rem auto;
padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.15rem;border-top:2px solid #1b2430;padding-top:.5rem;
margin:1.6rem 0 .5rem}h3{margin:.2rem 0}p{margin:.3rem 0}
section{border:1px solid #d5dbe3;border-left:.3rem solid #0a5c9e;padding:.6rem 1rem;margin:.8rem 0}
table{border-collapse:collapse;margin:.6rem 0;font-size:.9rem}
caption{text-align:left;font-weight:600}
th,td{text-align:left;padding:.2rem .9rem .2rem 0;border-bottom:1px solid #dfe4ea;
vertical-align:top;font-variant-numeric:tabular-nums}th{white-space:nowrap}
td.bad,td:last-child{overflow-wrap:anywhere}
.good{color:#00634f;font-weight:600}.bad{color:#a02a12;font-weight:600}.dim{color:#5b6470}
.curves{display:flex;flex-wrap:wrap;gap:.4rem 1.4rem;margin:.5rem 0}
figure{margin:0;width:13rem}svg{width:100%;display:block;background:#f4f6f9}
polyline{fill:none;stroke:#0a5c9e;stroke-width:1.6}figcaption{font-size:.82rem}
progress{width:16rem;vertical-align:middle;accent-color:#0a5c9e}
"""
