"""Commands for operating a coordinator: status, audit, export, backup, restore."""

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.server.commands.options import DEFAULT_FOLDER, Folder, Json, Operator
from consilium.shared.errors import SettingsError
from consilium.shared.service.terminal import Terminal

if TYPE_CHECKING:
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.coordinator.register import Member

console = Terminal()
audit = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The audit log: verify it, compare it.",
)


def add_commands(app: typer.Typer) -> None:
    """Add these commands to the coordinator's."""
    app.command()(status)
    app.command()(export)
    app.command()(archive)
    app.command()(backup)
    app.command()(restore)
    app.add_typer(audit, name="audit")


def status(folder: Folder = DEFAULT_FOLDER, as_json: Json = False) -> None:
    """Show how the coordinator stands, from its folder: sites, studies, audit log."""
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.service.overview import names_of, rounds_so_far
    from consilium.server.service.overview import status as status_of
    from consilium.shared.notices.told import notices_lines

    opened = CoordinatorFolder.open(folder)
    found = status_of(opened, opened.register())
    if as_json:
        console.print_json(json.dumps(found))
        return
    named = names_of(found["studies"])
    enrolled = [site for site in found["sites"] if not site["revoked"]]
    _say(f"version     {found['version']}")
    _say(f"certificate ends {found['certificate_ends'][:10]}")
    _say(f"sites       {len(enrolled)} enrolled, {len(found['sites']) - len(enrolled)} revoked")
    for study in found["studies"]:
        _say(f"study       {named[study['digest']]}: {study['state']}"
             + (f", {rounds_so_far(study)} rounds" if study["last_round"] else "")
             + (f"; {study['detail']}" if study["detail"] else ""))  # fmt: skip
    for line in notices_lines(found["notices"]):
        _say(f"notices     {line}")
    log = found["audit"]
    if log and "entries" in log:
        _say(f"audit log   {log['entries']} entries, the last at {log['last_at']}")
        for site, times in log["divergences"].items():
            _say(f"            the log of {site} did not continue what it had shown, {times} times")


@audit.command(name="verify")
def verify(
    folder: Folder = DEFAULT_FOLDER,
    peer: Annotated[
        Path | None, typer.Option(help="A copy of a site's log, to check both against each other.")
    ] = None,
    site: Annotated[str, typer.Option(help="Whose log --peer is.")] = "",
    as_json: Json = False,
) -> None:
    """Check every line of the audit log; name the first that does not fit."""
    from consilium.server.coordinator.folder import OWNER, CoordinatorFolder
    from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
    from consilium.shared.audit.verify import Side, show_reports

    opened = CoordinatorFolder.open(folder)
    own = Side(path=opened.path / AUDIT_FILE, owner=OWNER, identity=opened.identity().public)
    other = None
    if peer is not None:
        other = Side(path=peer, owner=site, identity=_member(opened, site).identity)
    show_reports(own, other, console, as_json=as_json)


@audit.command(name="rotate")
def rotate(folder: Folder = DEFAULT_FOLDER, operator: Operator = "") -> None:
    """Seal the log's file as a segment and go on in a new one; the chain runs through both."""
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.shared.audit.own_log import open_audit

    opened = CoordinatorFolder.open(folder)
    note_act(opened, "rotate", "", by=operator)
    sealed = open_audit(opened).seal(by=operator or getpass.getuser())
    console.print(
        f"{sealed}: sealed; keep it with the log, for without it nothing before can be verified.",
        markup=False,
    )


@audit.command(name="head")
def head(
    site: Annotated[str, typer.Argument(help="An enrolled site.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Print the last audit head seen of a site, which it needs to restore a backup."""
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
    from consilium.shared.audit.reading import newest_heads

    opened = CoordinatorFolder.open(folder)
    member = _member(opened, site)
    latest = newest_heads(opened.path / AUDIT_FILE, {site: member.identity}).get(site)
    if latest is None:
        raise SettingsError(
            f"no audit head of site {site} was ever seen: it has sent no update, so it has spent "
            "nothing and can be enrolled anew"
        )
    print(latest.to_bytes().hex())  # noqa: T201 - alone on standard output, so that it can be piped


def export(
    study: Annotated[str, typer.Argument(help="Name or digest.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    folder: Folder = DEFAULT_FOLDER,
    onnx: Annotated[bool, typer.Option("--onnx", help="Add the model in ONNX form.")] = False,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Put risks right by the validation patients.")
    ] = False,
    operator: Operator = "",
) -> None:
    """Write a finished study's model with its manifest, signed; hospitals check the signature."""
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.coordinator.roster_book import events_in_force
    from consilium.server.service.archive import MARKER
    from consilium.server.study.checkpoints import load_checkpoint
    from consilium.server.study.export import export_model
    from consilium.shared.audit.events import StudyChanged
    from consilium.shared.audit.own_log import open_audit
    from consilium.shared.crypto.transcript import sha256
    from consilium.shared.export.manifest import ManifestRoster

    opened = CoordinatorFolder.open(folder)
    submitted = opened.register().study(study)
    checkpoint = load_checkpoint(opened.study(submitted.digest))
    if checkpoint is None and (opened.study(submitted.digest) / MARKER).exists():
        raise SettingsError(
            f"study {submitted.name}: was archived; put the checkpoint of its archive back into "
            f"{opened.study(submitted.digest)}"
        )
    if checkpoint is None:
        raise SettingsError(f"study {submitted.name}: has not begun, so it has no model")
    loaded = submitted.study
    note_act(opened, "export", f"{loaded.name} ({loaded.digest.hex()[:16]})", by=operator)
    manifest = export_model(
        loaded,
        checkpoint,
        opened.identity(),
        out,
        simulated=False,
        onnx=onnx,
        recalibrate=recalibrate,
        rosters=tuple(
            ManifestRoster(
                version=event.version,
                digest=event.roster.hex(),
                round=event.round,
                joined=event.joined,
                left=event.left,
            )
            for event in events_in_force(opened.register(), submitted)
        ),
    )
    open_audit(opened).append(
        StudyChanged(
            study=loaded.name,
            study_digest=loaded.digest,
            state=f"exported: manifest {sha256(manifest.to_bytes()).hex()[:16]}",
        )
    )
    _say(f"{out}: the model of study {loaded.name}, signed by {manifest.signed_by}.")
    if recalibrate:
        _say(manifest.recalibrated)
    _say("A hospital checks it with 'consilium-site model FOLDER'.")


def archive(
    study: Annotated[str, typer.Argument(help="Name or digest.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    operator: Operator = "",
) -> None:
    """Put an ended study into one file, with its model, and remove its bulk from the folder."""
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.service.archive import archive_study

    opened = CoordinatorFolder.open(folder)
    submitted = opened.register().study(study)
    note_act(opened, "archive", f"{submitted.name} ({submitted.digest.hex()[:16]})", by=operator)
    made = archive_study(opened, submitted, out)
    _say(f"{out}: study {submitted.name}, SHA-256 {made.digest}; {made.freed} bytes are freed.")
    _say("'export' needs the checkpoint in it: put it back into the study's folder first.")


def backup(
    archive: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    operator: Operator = "",
) -> None:
    """Copy the coordinator's folder into one file, also while it runs; it holds the secret keys."""
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.folder import OWNER, CoordinatorFolder
    from consilium.shared.backup.create import back_up
    from consilium.shared.version import VERSION

    opened = CoordinatorFolder.open(folder)
    note_act(opened, "backup", "", by=operator)
    made = back_up(opened.path, archive, kind="coordinator", owner=OWNER, version=VERSION)
    _say(f"{archive}: {len(made.files)} files, audit log up to entry {made.entries}; only this "
         "account can read it, and it holds the coordinator's keys.")  # fmt: skip


def restore(
    archive: Annotated[Path, typer.Argument(help="A backup.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Put the coordinator's folder back from a backup, into an empty place."""
    from consilium.shared.backup.restore import restore as restore_state
    from consilium.shared.version import VERSION

    made = restore_state(archive, folder, kind="coordinator", version=VERSION, newest=())
    _say(f"{folder}: as it was at {made.made_at}.")
    _say("Revocations, invitations and studies since then are forgotten: revoke again whom you had "
         "revoked. Rounds since then are void for this coordinator; sites will note that its "
         "audit log went back.")  # fmt: skip


def _member(folder: "CoordinatorFolder", site: str) -> "Member":
    found = {member.name: member for member in folder.register().members()}.get(site)
    if found is None:
        known = ", ".join(member.name for member in folder.register().members()) or "none"
        raise SettingsError(f"site {site!r} never enrolled; known: {known}")
    return found


def _say(sentence: str) -> None:
    console.print(sentence, markup=False)
