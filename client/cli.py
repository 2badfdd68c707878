"""``consilium-site``: what a hospital sees and decides.

Each command imports what it needs when it is called: ``--help`` must not wait for PyTorch.
"""

import getpass
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.client.commands.bedside import add_bedside_commands
from consilium.client.commands.model import add_model_commands
from consilium.client.commands.notices import notices
from consilium.client.commands.operations import add_commands
from consilium.client.commands.options import (
    DEFAULT_FOLDER,
    Folder,
    Json,
    Settings,
    StudyName,
    Where,
)
from consilium.client.commands.persons import As, PasswordFd, person, web_user
from consilium.client.commands.recovery import add_recovery_commands, show_code
from consilium.client.commands.variables import variables
from consilium.client.commands.vouch import add_vouch_commands
from consilium.client.hospital.defaults import LIFETIME_DELTA, LIFETIME_EPSILON
from consilium.client.web.command import web
from consilium.shared.errors import SettingsError
from consilium.shared.service.command_line import run_command
from consilium.shared.service.terminal import Terminal, styled

if TYPE_CHECKING:
    from consilium.client.hospital.approvals import Approval
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.hospital.policy import Policy

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One hospital: enrol, read and approve studies, check data, answer the coordinator.",
)
console = Terminal()
add_commands(app)
app.command()(variables)
app.command()(notices)
add_model_commands(app)
add_bedside_commands(app)
add_vouch_commands(app)
add_recovery_commands(app)
app.add_typer(web_user, name="web-user")
app.command()(web)


@app.command()
def init(
    folder: Folder = DEFAULT_FOLDER,
    site: Annotated[str | None, typer.Option(help="This site's name in studies.")] = None,
) -> None:
    """Make this site's folder and its keys, which never leave it."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.service.systemd_unit import write_unit

    made = SiteFolder.make(folder, site=site)
    unit = write_unit(made.path, user=getpass.getuser())
    _say(f"The site's folder is {folder}; only this account can read it.")
    _say(f"Identity {made.identity().public.hex()}")
    _say(f"For systemd: {unit}.")
    if not made.is_enrolled:
        made.make_recovery_code(show_code)
    _say("Next: say in site.toml where the records lie, then 'consilium-site enroll TOKEN'.")


@app.command(name="enroll")
def enroll_site(
    token: Annotated[
        str,
        typer.Argument(
            help="The invitation, or - to read it from standard input.", show_default=False
        ),
    ],
    folder: Folder = DEFAULT_FOLDER,
    recover: Annotated[
        bool,
        typer.Option(
            "--recover",
            help="This machine takes the place of a lost one: asks for the recovery code (with - "
            "for the token, it is on the lines after it) and goes on with the budget that is left.",
        ),
    ] = False,
    second_place: Annotated[
        list[Path] | None,
        typer.Option(help="With --recover: where this hospital kept its budget certificates."),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="With --recover: what 'consilium-site audit head SITE' prints at other hospitals."
        ),
    ] = None,
) -> None:
    """Enrol with the coordinator that made the invitation; it works once.

    A site that was revoked enrols again in its own folder, and keeps identity, ledger and log.
    """
    from consilium.client.commands.recovery import recover_site
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.hospital.stores import check_log_is_there
    from consilium.client.service.enroll import join
    from consilium.shared.enrolment.invitation import Invitation

    opened = SiteFolder.open(folder)
    said = sys.stdin.read(20_000) if token == "-" else token  # noqa: S105
    if recover:
        pinned = recover_site(opened, said, second_place or [], head or [])
    else:
        if opened.is_enrolled:
            check_log_is_there(opened)
        pinned = join(opened, Invitation.from_token(said))
    _say(f"Site {pinned.site} is enrolled with the coordinator at {pinned.host}:{pinned.port}.")
    _say(f"The coordinator's identity is {pinned.coordinator.hex()}; compare it by telephone.")
    _say("Next: 'consilium-site preflight', then 'consilium-site start'. Other hospitals need your")
    _say("fingerprint ('consilium-site identity'), and you theirs ('consilium-site vouch').")


@app.command()
def preflight(folder: Folder = DEFAULT_FOLDER, as_json: Json = False) -> None:
    """Test network, clock, disk, memory, permissions and data; say how to mend what fails."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.service.preflight import preflight as run_preflight

    found = run_preflight(SiteFolder(path=folder))
    if as_json:
        console.print_json(json.dumps([asdict(check) for check in found]))
    else:
        for check in found:
            mark = styled("ok  ", "green") if check.ok else styled("FAIL", "red")
            console.print(mark, f"{check.name:<12}", check.told)
            if not check.ok:
                console.print(f"{'':18}{check.remedy}", markup=False)
    if not all(check.ok for check in found):
        raise typer.Exit(1)


@app.command()
def studies(folder: Folder = DEFAULT_FOLDER) -> None:
    """List the studies that the coordinator offers to this site, and what waits for its word."""
    from consilium.client.commands.roster_decisions import waiting_number
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.service.offers import fetch_offers
    from consilium.client.service.pinned_connection import approvals_of

    opened = SiteFolder.open(folder)
    approvals = approvals_of(opened)
    for offer in fetch_offers(opened):
        study, _ = offer.check(opened.enrolment().coordinator)
        approved = approvals.find(study.digest)
        known = "approved" if approved else "not approved"
        console.print(
            f"{study.name}  {study.digest.hex()[:16]}  {known}  {study.title}", markup=False
        )
        if approved is not None and (number := waiting_number(opened, approved)) is not None:
            _say(f"  roster {number} waits for this hospital: 'consilium-site roster {study.name}'")


@app.command()
def review(study: StudyName, folder: Folder = DEFAULT_FOLDER) -> None:
    """Say in plain words what a study uses, what leaves, what it costs, and who takes part."""
    from consilium.client.commands.decisions import check_allowed, check_modules_of
    from consilium.client.commands.review import installed_lines, review_lines
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.study.definition import load_study

    file = Path(study)
    if file.is_file():
        loaded = load_study(file)
        for line in [*review_lines(loaded), *installed_lines(_policy(folder))]:
            _say(line)
        _say("Who of them is vouched for is told once the coordinator offers the study.")
        _policy(folder).check_study(loaded)
        check_modules_of(loaded)
    else:
        opened = SiteFolder.open(folder)
        approval = _offered(opened, study)
        _show(opened, approval)
        check_allowed(opened, approval, asked="review")
    console.print("This site's policy allows this study.", style="green")


@app.command()
def approve(
    study: StudyName,
    folder: Folder = DEFAULT_FOLDER,
    patients: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The size to declare: about how many patients of yours will train. Default: their "
            "number, rounded to one digit.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    digest: Annotated[
        str, typer.Option(help="Approve only if the study has this digest (first digits).")
    ] = "",
    named: As = "",
    password_fd: PasswordFd = None,
) -> None:
    """Approve a study that the coordinator offers, and declare this hospital's size for it.

    Reads this hospital's records first: a study that they cannot serve is not approved, and the
    reason is told here alone. The approval holds for this study with this roster and nothing else.
    The declared size goes to the coordinator and to all sites of the study, as public as this
    hospital's name; it is this hospital's weight, and cannot be changed afterwards. Where
    policy.toml asks for several persons, it is approved once so many have.
    """
    from consilium.client.commands import decisions
    from consilium.client.hospital.folder import SiteFolder

    opened = SiteFolder.open(folder)
    by = person(opened, named, password_fd)
    proposal = decisions.propose(opened, study, digest=digest, patients=patients)
    loaded, size = proposal.approval.study, proposal.patients
    if not yes:
        _show(opened, proposal.approval)
    for line in proposal.numbers:
        _say(line)
    if not yes:
        _say(f"This hospital's size, for all to see and for good: {size} patients (--patients).")
        typer.confirm("Approve this study for this hospital?", abort=True)
    outcome = decisions.approve(opened, proposal, by=by)
    shown = f"Study {loaded.name} ({loaded.digest.hex()[:16]})"
    if outcome.missing:
        _say(f"{shown} waits for {outcome.missing} more person(s) to approve it with this size.")
        return
    _say(f"{shown} is approved, with a declared size of {size} patients.")


@app.command()
def refuse(
    study: Annotated[str, typer.Argument(help="Name or digest.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    reason: Annotated[str, typer.Option(help="For your colleagues and the audit log.")] = "",
    named: As = "",
    password_fd: PasswordFd = None,
) -> None:
    """Note that this hospital does not want a study; nothing is sent, and it may be approved later.

    Approvals of colleagues that waited for another person no longer count.
    """
    from consilium.client.commands import decisions
    from consilium.client.hospital.folder import SiteFolder

    opened = SiteFolder.open(folder)
    by = person(opened, named, password_fd)
    _say(f"Study {decisions.refuse(opened, study, by=by, reason=reason)} is refused here.")


@app.command()
def withdraw(
    study: Annotated[str, typer.Argument(help="Name or digest.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    named: As = "",
    password_fd: PasswordFd = None,
) -> None:
    """Take an approval back; a running site refuses the study from its next message on."""
    from consilium.client.commands import decisions
    from consilium.client.hospital.folder import SiteFolder

    opened = SiteFolder.open(folder)
    by = person(opened, named, password_fd)
    _say(f"The approval of study {decisions.withdraw(opened, study, by=by)} is withdrawn.")


@app.command()
def start(folder: Folder = DEFAULT_FOLDER) -> None:
    """Answer the coordinator until stopped; only outgoing connections, to its one port.

    And to whom [notices] in site.toml names, if it is there.
    """
    from consilium.client.hospital.folder import LOG_NAME, SiteFolder
    from consilium.client.service.process import serve_site
    from consilium.shared.service.log_file import log_to_file
    from consilium.shared.service.logs import configure_logs

    configure_logs()
    opened = SiteFolder.open(folder)
    log_to_file(opened.path, LOG_NAME)
    serve_site(opened)


@app.command()
def check(
    study: StudyName,
    folder: Folder = DEFAULT_FOLDER,
    settings: Settings = None,
    data: Annotated[
        Path | None, typer.Option(help="Instead: folder or file of the study's kind of records.")
    ] = None,
    where: Where = None,
    page: Annotated[
        Path | None, typer.Option(help="Also write the report with figures to this HTML file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether this site's data are ready for the study, and what to mend; no row is shown.

    Works before any enrolment and reaches nobody: check study.toml --settings site.toml. What
    site.toml says of the records: docs/data.md, a page for each kind.
    """
    from consilium.client.commands.check import records_named, run_check
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.study.definition import load_study

    file = Path(study)
    if file.is_file() or file.suffix == ".toml":  # no study's name has a dot
        loaded = load_study(file)
    else:
        loaded = _offered(SiteFolder.open(folder), study).study
    chosen = records_named(loaded, folder, settings, data, where or [])
    run_check(loaded, chosen, console, as_json=as_json, page=page)


@app.command()
def ledger(
    file: Annotated[
        Path | None,
        typer.Argument(help="Another ledger than the site's, a file.", show_default=False),
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    lifetime_epsilon: Annotated[
        float | None, typer.Option(help="The lifetime budget; default: policy.toml's.")
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="The lifetime guarantee's delta; default: policy.toml's.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it: FILE.png or FILE.svg.")] = None,
    as_json: Json = False,
) -> None:
    """Show what each study has spent of the privacy budget, what is reserved, what is left."""
    from consilium.client.hospital.folder import LEDGER_FILE
    from consilium.client.hospital.policy_file import FILE_NAME as POLICY_FILE
    from consilium.client.ledger import view as ledger_view
    from consilium.client.ledger.store import Ledger

    chosen = folder / LEDGER_FILE if file is None else file
    if file is not None and not file.is_file():
        raise SettingsError(f"ledger {file}: is not a file; name a site's ledger.sqlite")
    if not chosen.is_file():
        raise SettingsError(
            f"ledger {chosen}: is not there; it is made with the site's first round, and --folder "
            "says whose it is"
        )
    bounds = (LIFETIME_EPSILON, LIFETIME_DELTA)
    if (chosen.parent / POLICY_FILE).is_file():
        policy = _policy(chosen.parent)
        bounds = (policy.lifetime_epsilon, policy.delta)
    summary = Ledger(
        chosen,
        lifetime_epsilon=bounds[0] if lifetime_epsilon is None else lifetime_epsilon,
        delta=bounds[1] if delta is None else delta,
    ).summary()
    if plot:
        ledger_view.draw(summary, plot)
    if as_json:
        console.print_json(json.dumps(ledger_view.to_json(summary)))
        return
    console.print(ledger_view.to_table(summary))
    for line in ledger_view.to_bars(summary):
        _say(line.translate(ledger_view.PLAIN_BARS) if console.options.ascii_only else line)
    if plot:
        console.print(f"figure  {plot}", markup=False)


def _offered(folder: "SiteFolder", named: str) -> "Approval":
    from consilium.client.service.offers import find_offer
    from consilium.client.service.pinned_connection import approvals_of

    return approvals_of(folder).check(find_offer(folder, named))


def _show(folder: "SiteFolder", approval: "Approval") -> None:
    from consilium.client.commands.review import all_lines

    for line in all_lines(approval, folder.vouchers().trust(), folder.policy()):
        _say(line)


def _policy(folder: Path) -> "Policy":
    from consilium.client.hospital.policy_file import read_policy

    return read_policy(folder)


def _say(sentence: str) -> None:
    console.print(sentence, markup=False)


def main() -> None:
    """Entry point of ``consilium-site``."""
    run_command(app, name="consilium-site")
