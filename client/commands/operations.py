"""Commands for operating a site: ``status``, ``audit``, ``backup``, ``restore``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from consilium.client.commands.options import DEFAULT_FOLDER, Folder, Json
from consilium.shared.errors import AuditError, SettingsError

console = Console(highlight=False, soft_wrap=True)
audit = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The audit log: verify it, alone or against the coordinator's.",
)


def add_commands(app: typer.Typer) -> None:
    """Add these commands to the site's."""
    app.command()(status)
    app.command()(backup)
    app.command()(restore)
    app.add_typer(audit, name="audit")


def status(folder: Folder = DEFAULT_FOLDER, as_json: Json = False) -> None:
    """Show how this site stands, from its folder: what is approved, spent, released, refused."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.service.status import site_status

    state = site_status(SiteFolder.open(folder))
    if as_json:
        console.print_json(json.dumps(state))
        return
    for line in _status_lines(state):
        console.print(line, markup=False)


@audit.callback()
def _audit() -> None:
    """Keep ``verify`` a command of its own, though it is the only one."""


@audit.command(name="verify")
def verify(
    folder: Folder = DEFAULT_FOLDER,
    peer: Annotated[
        Path | None,
        typer.Option(help="A copy of the coordinator's log, to check both against each other."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every line of the audit log, the vouchers and the ledger; name what does not fit."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.hospital.round_audit import COORDINATOR
    from consilium.client.hospital.voucher_check import voucher_disagreements
    from consilium.client.ledger.audit_check import disagreements
    from consilium.client.ledger.store import Ledger
    from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
    from consilium.shared.audit.verify import Side, show_reports

    opened = SiteFolder.open(folder)
    enrolment = opened.enrolment()
    log = opened.path / AUDIT_FILE
    own = Side(path=log, owner=enrolment.site, identity=opened.identity().public)
    other = Side(path=peer, owner=COORDINATOR, identity=enrolment.coordinator) if peer else None
    show_reports(own, other, console, as_json=as_json)
    for difference in voucher_disagreements(opened.vouchers(), log):
        raise AuditError(difference)
    file = opened.path / "ledger.sqlite"
    if file.exists():
        policy = opened.policy()
        ledger = Ledger(file, lifetime_epsilon=policy.lifetime_epsilon, delta=policy.delta)
        wrong = disagreements(ledger, log)
        if wrong:
            more = f" ({len(wrong) - 1} more)" if wrong[1:] else ""
            raise AuditError(f"{file}: {wrong[0]}{more}")
        if not as_json:
            console.print(f"{file}: every release in it stands in the log, and no other.")


def backup(
    archive: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Copy this site's folder into one file, also while it runs; it holds the secret keys."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.backup.create import back_up
    from consilium.shared.version import VERSION

    opened = SiteFolder.open(folder)
    owner = opened.enrolment().site
    made = back_up(opened.path, archive, kind="site", owner=owner, version=VERSION)
    console.print(
        f"{archive}: {len(made.files)} files, audit log up to entry {made.entries}; only this "
        "account can read it, and it holds the site's keys.",
        markup=False,
    )


def restore(
    archive: Annotated[Path, typer.Argument(help="A backup.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    head: Annotated[
        str,
        typer.Option(
            help="What 'consilium-coordinator audit head SITE' prints: the last audit head that "
            "was seen of this site."
        ),
    ] = "",
) -> None:
    """Put this site's folder back, unless the ledger in it would forget budget spent since."""
    from consilium.client.service.status import is_held
    from consilium.shared.audit.verify import head_from_hex
    from consilium.shared.backup.restore import restore as restore_state
    from consilium.shared.version import VERSION

    if is_held(folder / "lock"):
        raise SettingsError(f"{folder}: a process answers for this site; stop it first")
    newest = head_from_hex(head) if head else None
    made = restore_state(archive, folder, kind="site", version=VERSION, newest=newest)
    console.print(
        f"{folder}: as it was at {made.made_at}, up to entry {made.entries} of the audit log, and "
        "the coordinator has seen no later one.",
        markup=False,
    )


def _status_lines(state: dict[str, Any]) -> list[str]:
    lines = [
        f"site         {state['site'] or 'not named yet'}, version {state['version']}",
        f"coordinator  {state['coordinator'] or 'not enrolled'}",
        f"running      {'yes' if state['running'] else 'no'}",
        f"policy       {state['policy']}",
    ]
    lines += [
        f"approved     {study['study']} ({study['digest'][:16]})"
        for study in state.get("approved", [])
    ]
    if "budget" in state:
        total = state["budget"]["lifetime"]
        lines.append(
            f"budget       epsilon {total['spent'] + total['reserved']:.3f} of {total['bound']:g} "
            f"at delta {total['delta']:g}"
        )
    for name in ("last_release", "last_refusal"):
        if state.get(name):
            what = state[name].get("sentence") or (
                f"round {state[name]['round']} ({state[name]['purpose']})"
            )
            lines.append(f"{name.replace('_', ' '):<13}{state[name]['at']}: {what}")
    log = state.get("audit")
    if log:
        lines.append(
            f"audit log    {log['error']}"
            if "error" in log
            else f"audit log    {log['entries']} entries, {log['divergences']} divergences of the "
            "coordinator's"
        )
    return lines
