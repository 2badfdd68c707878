"""The table of a month: what happened, what was released, and how logs and processes grew."""

from collections.abc import Iterator
from pathlib import Path

from consilium.client.hospital.folder import SiteFolder
from consilium.shared.audit.events import Carried, Released, RoundClosed
from consilium.shared.audit.segments import segments
from tests.deployment.ledgers import events, own_ledger
from tests.deployment.month_notices import LISTENERS
from tests.deployment.month_seen import Month

NOWHERE = float("nan")  # spent of a hospital without a machine


def table(month: Month) -> str:
    """What happened, counted; the processes have ended."""
    parts = (_events, _studies, _releases, _notices, _logs, _memory)
    return "\n\n".join("\n".join(part(month)) for part in parts)


def _events(month: Month) -> Iterator[str]:
    sites = list(month.federation.sites)
    spent = f"epsilon spent, before and after: {', '.join(sites)}"
    yield f"{'event':<52} {'rounds':<9} {'s':>5}  {spent}"
    for one in month.happened:
        spent = "  ".join(
            f"{one.before.get(site, NOWHERE):.2f} {one.after.get(site, NOWHERE):.2f}"
            for site in sites
        )
        yield f"{one.event.what:<52} {one.began:>4}-{one.ended:<4} {one.seconds:>5.0f}  {spent}"


def _studies(month: Month) -> Iterator[str]:
    for study in month.studies:
        records = month.records(study)
        void = sum(record["void"] is not None for record in records)
        sites = sum(len(record["sites"]) for record in records) / len(records)
        yield f"study {study}: {len(records)} rounds, {void} void, {sites:.1f} hospitals on average"


def _releases(month: Month) -> Iterator[str]:
    yield f"{'rounds':<12} {'charged':>8} {'logged':>8} {'summed there':>13}"
    theirs = month.federation.coordinator / "audit.jsonl"
    closed = [event for event in events(theirs) if isinstance(event, RoundClosed)]
    for site in month.federation.sites:
        folders = [month.federation.site(site), *([month.lost[site]] if site in month.lost else [])]
        logged = sum(isinstance(e, Released) for f in folders for e in events(f / "audit.jsonl"))
        held = sum(site in event.survivors for event in closed)
        yield f"{site:<12} {sum(map(_charged, folders)):>8} {logged:>8} {held:>13}"


def _charged(folder: Path) -> int:
    """In how many rounds a folder's ledger has charged something, what was carried left out."""
    site = SiteFolder.open(folder)
    carried = {(one.study_hash, one.round) for one in events(folder / "audit.jsonl")
               if isinstance(one, Carried)}  # fmt: skip
    entries = (entry.release for entry in own_ledger(site).entries())
    return len({(one.study_hash, one.round) for one in entries} - carried)


def _notices(month: Month) -> Iterator[str]:
    yield f"{'notices':<12} {'told':>8} {'posted':>8}  kinds"
    for name in LISTENERS:
        deliveries, kinds = month.notices.deliveries(name), month.notices.kinds(name)
        listed = ", ".join(f"{kind} {number}" for kind, number in sorted(kinds.items()))
        yield f"{name:<12} {len(deliveries):>8} {deliveries.total():>8}  {listed}"


def _logs(month: Month) -> Iterator[str]:
    federation = month.federation
    rounds = sum(len(month.records(study)) for study in month.studies)
    yield f"{'logs':<12} {'audit, KiB':>10} {'bytes a round':>14} {'logs/, KiB':>11}"
    for name in ("coordinator", *federation.sites):
        folder = federation.coordinator if name == "coordinator" else federation.site(name)
        audit = [folder / "audit.jsonl", *segments(folder / "audit.jsonl")]
        grown, said = (
            sum(file.stat().st_size for file in files)
            for files in (audit, (folder / "logs").glob("*"))
        )
        yield f"{name:<12} {grown / 1024:>10.0f} {grown / rounds:>14.0f} {said / 1024:>11.0f}"


def _memory(month: Month) -> Iterator[str]:
    yield f"{'memory':<16} {'rounds':<9} {'MiB then':>9} {'MiB now':>8}"
    for name, (began, first, ended, last) in month.memory_of_the_last().items():
        yield f"{name:<16} {began:>4}-{ended:<4} {first:>9.0f} {last:>8.0f}"
