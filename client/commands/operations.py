"""Commands for operating a site: status, audit, backup, restore, recover, write-off."""

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consilium.client.commands.options import DEFAULT_FOLDER, Folder, Json
from consilium.shared.errors import AuditError, SettingsError
from consilium.shared.notices.told import notices_lines
from consilium.shared.service.terminal import Terminal, one_line

if TYPE_CHECKING:
    from consilium.client.hospital.folder import SiteFolder

console = Terminal()
audit = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The audit log: verify it, alone or against the coordinator's.",
)


NEXT = (
    "Next: raise lifetime_epsilon in policy.toml by what this hospital still wants to allow, ask "
    "the operator to revoke and invite this site, enrol, and run 'consilium-site recovery-code'."
)


def add_commands(app: typer.Typer) -> None:
    """Add these commands to the site's."""
    app.command()(status)
    app.command()(support)
    app.command()(backup)
    app.command()(restore)
    app.command()(recover)
    app.command(name="write-off")(write_off)
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


def support(
    out: Annotated[
        Path | None,
        typer.Argument(help="The file to write; default: support-DATE.json here."),
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    yes: Annotated[bool, typer.Option("--yes", help="Write it without asking.")] = False,
) -> None:
    """Make a file that tells the operator which step fails here, and nothing of a record.

    It is shown before it is written, and sent to nobody: read it, then send it yourself.
    """
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.service.support import support_bundle, to_text
    from consilium.shared.files.atomic_file import write_atomically
    from consilium.shared.files.permissions import PRIVATE_FILE

    bundle = support_bundle(SiteFolder(path=folder))
    file = out or Path(f"support-{bundle['made_at'][:10]}.json")
    if file.exists():
        raise SettingsError(f"{file}: exists; choose another name, nothing is overwritten")
    text = to_text(bundle)
    console.print(text, markup=False, highlight=False)
    if not yes:
        typer.confirm(f"Write this to {one_line(str(file))}?", abort=True)
    write_atomically(file, text.encode(), mode=PRIVATE_FILE)
    console.print(f"{file}: only this account can read it; nothing was sent.", markup=False)


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
    from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
    from consilium.shared.audit.verify import Side, show_reports

    opened = SiteFolder.open(folder)
    enrolment = opened.enrolment()
    log = opened.path / AUDIT_FILE
    own = Side(path=log, owner=enrolment.site, identity=opened.identity().public)
    other = Side(path=peer, owner=COORDINATOR, identity=enrolment.coordinator) if peer else None
    show_reports(own, other, console, as_json=as_json)
    if wrong := disagreements(opened):
        more = f" ({len(wrong) - 1} more)" if wrong[1:] else ""
        raise AuditError(f"{wrong[0]}{more}")
    if not as_json:
        console.print(
            f"{opened.path}: every release in the ledger stands in the log, and no other; journal "
            "and own parts of models are as new as the log.",
            markup=False,
        )


def disagreements(folder: "SiteFolder") -> list[str]:
    """Return a sentence for whatever of a site's stores does not agree with its audit log.

    Raises:
        AuditError: the log cannot be read; PrivacyError, SettingsError: another store.
    """
    from consilium.client.hospital.stores import older_stores
    from consilium.client.hospital.voucher_check import voucher_disagreements
    from consilium.client.service.pinned_connection import approved_digests
    from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE

    older = older_stores(folder, approved_digests(folder))
    return [
        *voucher_disagreements(folder.vouchers(), folder.path / AUDIT_FILE),
        *(f"{folder.path}: {sentence}" for sentence in older),
    ]


@audit.command(name="rotate")
def rotate(folder: Folder = DEFAULT_FOLDER) -> None:
    """Seal the log's file as a segment and go on in a new one; the chain runs through both."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.hospital.stores import check_log_is_there
    from consilium.shared.audit.own_log import open_audit

    opened = SiteFolder.open(folder)
    check_log_is_there(opened)
    sealed = open_audit(opened).seal(by=getpass.getuser())
    console.print(
        f"{sealed}: sealed; keep it with the log, for without it nothing before can be verified.",
        markup=False,
    )


@audit.command(name="head")
def head(
    site: Annotated[str, typer.Argument(help="Another hospital.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Print how far another hospital's audit log has come, which it needs to restore a backup."""
    from consilium.client.hospital.folder import SiteFolder

    heads = SiteFolder.open(folder).heads().newest_of(site)
    if not heads:
        raise SettingsError(
            f"no audit head of site {site} was shown to this one; it takes part in no round with "
            "it, or has released nothing: ask another hospital"
        )
    for known in heads:
        print(known.to_bytes().hex())  # noqa: T201 - alone on standard output, so that it can be piped


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
        list[str] | None,
        typer.Option(
            help="What 'consilium-coordinator audit head SITE' prints, and 'consilium-site audit "
            "head SITE' at another hospital: the last audit heads that were seen of this site. "
            "May be given several times."
        ),
    ] = None,
    write_off: Annotated[
        bool,
        typer.Option(
            "--write-off",
            help="Restore also what may forget: the whole lifetime budget then counts as spent, "
            "and the site must enrol anew.",
        ),
    ] = False,
) -> None:
    """Put this site's folder back, unless the ledger in it would forget budget spent since."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.hospital.recovery import write_off as close
    from consilium.client.service.status import is_held
    from consilium.shared.audit.verify import head_from_hex
    from consilium.shared.backup.restore import restore as restore_state
    from consilium.shared.version import VERSION

    if is_held(folder / "lock"):
        raise SettingsError(f"{folder}: a process answers for this site; stop it first")
    made = restore_state(
        archive,
        folder,
        kind="site",
        version=VERSION,
        newest=[head_from_hex(line) for line in head or []],
        close=(lambda place: close(SiteFolder.open(place))) if write_off else None,
    )
    console.print(
        f"{folder}: as it was at {made.made_at}, up to entry {made.entries} of the audit log, and "
        + ("closed. " + NEXT if write_off else "nobody has shown a later one."),
        markup=False,
    )


def recover(
    folder: Folder = DEFAULT_FOLDER,
    begin_own_parts_anew: Annotated[
        bool,
        typer.Option(
            "--begin-own-parts-anew",
            help="Give up own parts of models that are lost or older than the log says.",
        ),
    ] = False,
) -> None:
    """Write a lost or older ledger and journal anew, from what the audit log records."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.hospital.recovery import recover as recover_state
    from consilium.client.service.pinned_connection import approved_digests

    opened = SiteFolder.open(folder)
    with opened.hold():
        done = recover_state(
            opened, approved_digests(opened), begin_own_parts_anew=begin_own_parts_anew
        )
    console.print(
        f"{folder}: {done.releases} releases charged again, {done.runs} runs claimed again, "
        f"{done.own_parts} own parts of models given up; ledger, journal and log agree.",
        markup=False,
    )


def write_off(
    folder: Folder = DEFAULT_FOLDER,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Count the whole lifetime budget as spent and begin as a new site, after a loss."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.hospital.recovery import write_off as close

    opened = SiteFolder.open(folder)
    if not yes:
        typer.confirm(
            "All of this hospital's lifetime budget will count as spent, its identity will be "
            "destroyed, and its running studies will go on without it. Write the state off?",
            abort=True,
        )
    with opened.hold():
        written, aside = close(opened)
    console.print(
        f"{folder}: epsilon {written.epsilon:g} counts as spent; what belonged to the old site "
        f"lies in {aside}. {NEXT}",
        markup=False,
    )


def _status_lines(state: dict[str, Any]) -> list[str]:
    lines = [
        f"site         {state['site'] or 'not named yet'}, version {state['version']}",
        f"coordinator  {state['coordinator'] or 'not enrolled'}",
        f"running      {'yes' if state['running'] else 'no'}",
        f"policy       {state['policy']}",
    ]
    for study in state.get("approved", []):
        lines.append(f"approved     {study['study']} ({study['digest'][:16]})")
        cohort = study["cohort"]
        if cohort and cohort["moved"]:
            lines.append(
                f"             its cohort is not the one approved: {cohort['moved']} (approved "
                f"{cohort['approved']['at']}, read {cohort['seen']['at']})"
            )
    if "budget" in state:
        total = state["budget"]["lifetime"]
        lines.append(
            f"budget       epsilon {total['spent'] + total['reserved']:.3f} of {total['bound']:g} "
            f"at delta {total['delta']:g}"
        )
    if "recovery" in state:
        code = "a code on paper" if state["recovery"]["code"] else "no code ('recovery-code')"
        place = state["recovery"]["second_place"] or "no second place"
        lines.append(f"recovery     {code}, {place}")
    lines += [f"notices      {line}" for line in notices_lines(state.get("notices"))]
    for name in ("last_release", "last_refusal"):
        if state.get(name):
            known = state[name].get("reason") or state[name].get("sentence")
            what = known or f"round {state[name]['round']} ({state[name]['purpose']})"
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
