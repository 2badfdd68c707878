"""``consilium-coordinator``: set up, invite hospitals, run studies, look after them.

Each command imports what it needs when it is called: ``--help`` must not wait for SciPy.
"""

import getpass
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consilium.server.commands.feasibility import feasibility
from consilium.server.commands.notices import notices
from consilium.server.commands.operations import add_commands
from consilium.server.commands.options import (
    DEFAULT_FOLDER,
    Folder,
    Json,
    Operator,
    StudyFile,
    StudyName,
)
from consilium.server.commands.persons import web_user
from consilium.server.commands.rosters import roster, told
from consilium.server.coordinator.defaults import DEFAULT_HOURS, DEFAULT_PORT, MONITOR_PORT
from consilium.server.web.command import web
from consilium.shared.service.command_line import run_command
from consilium.shared.service.terminal import Table, Terminal

if TYPE_CHECKING:
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.coordinator.register import Register
    from consilium.shared.study.definition import Study

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The coordinator: invite hospitals, submit studies, run them and look after them.",
)
console = Terminal()
add_commands(app)
app.command()(feasibility)
app.command()(notices)
app.command()(roster)
app.add_typer(web_user, name="web-user")
app.command()(web)


@app.command()
def check(study: StudyFile, as_json: Json = False) -> None:
    """Validate a study; print its digest, its secure sum's bounds and its privacy costs."""
    from consilium.shared.study.definition import load_study

    facts = _facts(load_study(study))
    if as_json:
        console.print_json(json.dumps(facts))
        return
    for name, value in facts.items():
        console.print(f"{name.replace('_', ' '):>24}  {value}", markup=False)


@app.command()
def init(
    host: Annotated[
        list[str],
        typer.Option(
            help="Name or address under which sites reach this machine; the first one "
            "goes into invitations, all into the certificate."
        ),
    ],
    folder: Folder = DEFAULT_FOLDER,
    name: Annotated[str, typer.Option(help="Shown to hospitals.")] = "coordinator",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The one port.")] = DEFAULT_PORT,
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104
) -> None:
    """Make keys, a certificate authority, the server's certificate and the folder for them."""
    from consilium.server.coordinator.folder import CoordinatorFolder, Settings
    from consilium.server.coordinator.service_files import write_service_files
    from consilium.shared.audit.own_log import open_audit

    settings = Settings(name=name, host=host[0], port=port, listen=listen)
    made = CoordinatorFolder.make(folder, settings, tuple(host))
    open_audit(made)
    unit, container = write_service_files(made.path, port=port, user=getpass.getuser())
    _say(f"The coordinator's folder is {folder}; only this account can read it.")
    _say(
        f"Its certificate is for {', '.join(host)} and ends {made.certificates.expires():%Y-%m-%d}"
        "; 'rotate-keys' renews it."
    )
    _say(f"For systemd: {unit}; for a container: {container}.")
    _say("Next: 'consilium-coordinator invite SITE' for each hospital, then 'start'.")


@app.command(name="invite")
def invite_site(
    site: Annotated[str, typer.Argument(help="The site's name in studies.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    hours: Annotated[float, typer.Option(min=0.01, help="How long it is worth.")] = DEFAULT_HOURS,
    operator: Operator = "",
) -> None:
    """Make a one-time token with which a hospital's site can enrol; send it by a safe way."""
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.enrolment import invite
    from consilium.server.coordinator.folder import CoordinatorFolder

    opened = CoordinatorFolder.open(folder)
    note_act(opened, "invite", site, by=operator)
    known = opened.register().bindings(site)
    invitation = invite(opened, site, hours=hours)
    token = invitation.to_token()
    ends = datetime.fromtimestamp(invitation.expires, UTC)
    Terminal(stderr=True).print(
        f"Invitation of site {site}, once, until {ends:%Y-%m-%d %H:%M} UTC. Whoever has it can "
        "enrol as this site. At the hospital: consilium-site enroll TOKEN"
    )
    if known:
        Terminal(stderr=True).print(
            f"Site {site} was enrolled before. If its machine is lost: enroll TOKEN --recover, or "
            "its spent budget is forgotten there. If it was revoked: enroll in its own folder."
        )
    print(token)  # noqa: T201 - alone on standard output, so that it can be piped


@app.command()
def start(
    folder: Folder = DEFAULT_FOLDER,
    patience: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds to wait for all sites of a study before it begins with "
            "as many as it needs.",
        ),
    ] = 600.0,
    monitor_port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="Port of 127.0.0.1 for the page, /health and /metrics; 0 is none.",
        ),
    ] = MONITOR_PORT,
) -> None:
    """Run the service and the studies until stopped; what was going on goes on."""
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.service.supervisor import Supervisor
    from consilium.shared.service.log_file import log_to_file
    from consilium.shared.service.logs import configure_logs

    configure_logs()
    opened = CoordinatorFolder.open(folder)
    log_to_file(opened.path, "supervisor")
    Supervisor(opened, patience_s=patience, monitor_port=monitor_port or None).run()


@app.command(name="submit")
def submit_study(
    study: StudyFile, folder: Folder = DEFAULT_FOLDER, operator: Operator = ""
) -> None:
    """Offer a study to its sites; it begins when enough of their hospitals have approved it."""
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.enrolment import submit
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.shared.audit.own_log import open_audit
    from consilium.shared.enrolment.messages import roster_fingerprint
    from consilium.shared.study.definition import load_study

    opened = CoordinatorFolder.open(folder)
    loaded = load_study(study)
    if loaded.model.modules:  # torch is imported for these alone
        from consilium.shared.model.module_check import check_modules

        check_modules(loaded)
    note_act(opened, "submit", f"{loaded.name} ({loaded.digest.hex()[:16]})", by=operator)
    roster = submit(
        opened.register(), opened.identity(), open_audit(opened), loaded, study.read_bytes()
    )
    _say(f"Study {loaded.name} is submitted to {', '.join(roster.names)}.")
    _say(f"A sum opens over {loaded.minimum_sites} sites or more: {loaded.affords}.")
    _say(f"Digest {loaded.digest.hex()}")
    _say(f"Roster {roster_fingerprint(roster)}")
    _say("Hospitals see the same digest and roster in 'consilium-site review'; let them compare.")


@app.command()
def watch(
    folder: Folder = DEFAULT_FOLDER,
    as_json: Json = False,
    follow: Annotated[bool, typer.Option(help="Show again each two seconds.")] = False,
) -> None:
    """Show sites and studies: who is there, how far, what each waits for."""
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.service.overview import overview

    opened = CoordinatorFolder.open(folder)
    register = opened.register()
    while True:
        if as_json:
            console.print_json(json.dumps(overview(opened, register)))
        else:
            _show(opened, register)
        if not follow:
            return
        time.sleep(2)


@app.command()
def pause(study: StudyName, folder: Folder = DEFAULT_FOLDER, operator: Operator = "") -> None:
    """Let a study stand still after the round it is in; 'resume' goes on."""
    _want(folder, study, "pause", operator)


@app.command()
def resume(study: StudyName, folder: Folder = DEFAULT_FOLDER, operator: Operator = "") -> None:
    """Go on with a paused study at its next round, under the same identities."""
    _want(folder, study, "run", operator)


@app.command()
def stop(study: StudyName, folder: Folder = DEFAULT_FOLDER, operator: Operator = "") -> None:
    """End a study for good after the round it is in; what was learned stays in its folder."""
    _want(folder, study, "stop", operator)


@app.command(name="revoke")
def revoke_site(
    site: Annotated[str, typer.Argument(help="An enrolled site.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    reason: Annotated[str, typer.Option(help="For the audit log.")] = "",
    operator: Operator = "",
) -> None:
    """Shut a site out at once; it can come back only with a new invitation and a new study."""
    from consilium.server.commands.steering import shut_out
    from consilium.server.coordinator.folder import CoordinatorFolder

    shut_out(CoordinatorFolder.open(folder), site, reason=reason, by=operator)
    _say(f"Site {site} is revoked; its key is refused from now on.")


@app.command()
def dismiss(
    study: StudyName,
    site: Annotated[str, typer.Argument(help="One of its sites.", show_default=False)],
    folder: Folder = DEFAULT_FOLDER,
    operator: Operator = "",
) -> None:
    """Let a site leave a study for good; the rounds go on without waiting for it."""
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.enrolment import dismiss as let_go
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.shared.audit.own_log import open_audit

    opened = CoordinatorFolder.open(folder)
    register = opened.register()
    note_act(opened, "dismiss", f"{site} from {study}", by=operator)
    version = let_go(register, open_audit(opened), register.study(study), site)
    _say(f"Site {site} left study {study} for good, which has roster {version} from its next round")
    _say("on. The sums' bounds are those of all its sites, and hold without it.")


@app.command()
def rename(
    host: Annotated[
        str, typer.Argument(help="Its name or address for sites from now on.", show_default=False)
    ],
    folder: Folder = DEFAULT_FOLDER,
    also: Annotated[
        list[str] | None, typer.Option(help="More names for the certificate, each by itself.")
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Leave the former names out of the certificate.")
    ] = False,
    operator: Operator = "",
) -> None:
    """Give the coordinator another name: for invitations, and in a new certificate.

    Sites know it by its key, whatever its name; those that dial the former name go on as long as
    that leads here, and change with 'consilium-site coordinator HOST'.
    """
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.certificates import issue_server_certificate
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.shared.audit.events import AddressChanged
    from consilium.shared.audit.own_log import open_audit

    opened = CoordinatorFolder.open(folder)
    former = () if drop else opened.certificates.names()
    names = tuple(dict.fromkeys((host, *(also or []), *former)))
    before = f"{opened.settings.host}:{opened.settings.port}"
    name = note_act(opened, "rename", host, by=operator)
    issue_server_certificate(opened.certificates, names)
    opened.rename(host)
    after = f"{host}:{opened.settings.port}"
    open_audit(opened).append(AddressChanged(before=before, after=after, by=name))
    _say(f"The coordinator is {host} from now on; its certificate is for {', '.join(names)}.")
    _say(f"At each hospital: consilium-site coordinator {after}")


@app.command(name="rotate-keys")
def rotate_keys(folder: Folder = DEFAULT_FOLDER, operator: Operator = "") -> None:
    """Make a new key and certificate for the server; a running service takes them at once.

    Sites trust the authority, so nothing changes for them.
    """
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.certificates import issue_server_certificate
    from consilium.server.coordinator.folder import CoordinatorFolder

    opened = CoordinatorFolder.open(folder)
    note_act(opened, "rotate-keys", "", by=operator)
    issue_server_certificate(opened.certificates, opened.certificates.names())
    _say(
        f"The server has a new key; its certificate ends {opened.certificates.expires():%Y-%m-%d}."
    )


@app.command(hidden=True)
def serve(
    folder: Folder = DEFAULT_FOLDER, parent: Annotated[int | None, typer.Option()] = None
) -> None:
    """Run the service alone; 'start' does."""
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.flower.superlink import serve as serve_folder
    from consilium.shared.service.log_file import log_to_file
    from consilium.shared.service.logs import configure_logs

    configure_logs()
    opened = CoordinatorFolder.open(folder)
    log_to_file(opened.path, "service")
    serve_folder(opened, parent=parent)


@app.command(name="run-study", hidden=True)
def run_study(
    study: StudyName,
    folder: Folder = DEFAULT_FOLDER,
    patience: Annotated[float, typer.Option()] = 600.0,
    parent: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Run one study alone; 'start' does."""
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.service.study_process import run_submitted
    from consilium.shared.service.log_file import log_to_file
    from consilium.shared.service.logs import configure_logs

    configure_logs()
    opened = CoordinatorFolder.open(folder)
    log_to_file(opened.path, f"study-{study[:16]}")
    run_submitted(opened, bytes.fromhex(study), patience_s=patience, parent=parent)


def _want(folder: Path, named: str, wanted: str, operator: str) -> None:
    from consilium.server.commands.steering import OUTCOMES, want
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.coordinator.register import Wanted

    study = want(CoordinatorFolder.open(folder), named, Wanted(wanted), by=operator)
    _say(f"Study {study.name} {OUTCOMES[Wanted(wanted)]}.")


def _show(folder: "CoordinatorFolder", register: "Register") -> None:
    from consilium.server.coordinator.register import State
    from consilium.server.service.overview import (
        SEEN_LATELY_S,
        names_of,
        overview,
        rounds_so_far,
        waiting_lines,
    )
    from consilium.shared.notices.told import notices_lines

    found = overview(folder, register)
    named = names_of(found["studies"])
    sites = Table("site", "version", "last seen", "lifetime epsilon left", title="Sites",
                  title_justify="left")  # fmt: skip
    for site in found["sites"]:
        ago = site["seen_s_ago"]
        seen = (
            "never" if ago is None else "now" if ago < SEEN_LATELY_S else f"{ago / 60:.0f} min ago"
        )
        left = site["budget_left"]
        sites.add_row(
            site["site"],
            site["version"],
            "revoked" if site["revoked"] else seen,
            "not told" if left is None else f"{left:.2f}",
        )
    console.print(sites)
    studies = Table("study", "state", "round", "sites", "epsilon", "seconds", title="Studies",
                    title_justify="left")  # fmt: skip
    for study in found["studies"]:
        last = study["last_round"]
        shown = ("-", "-", "-", "-") if last is None else (
            rounds_so_far(study),
            "void" if last["void"] else str(len(last["sites"])),
            "-" if last["epsilon"] is None else f"{last['epsilon']:.2f}",
            f"{last['seconds']:.2f}",
        )  # fmt: skip
        studies.add_row(named[study["digest"]], study["state"], *shown)
    console.print(studies)
    for line in notices_lines(found["notices"]):
        _say(f"notices: {line}")
    for study in found["studies"]:
        if study["detail"] and study["state"] in (State.WAITING, State.PAUSED):
            _say(f"{named[study['digest']]}:")
            for line in waiting_lines(study["detail"], study["roster_sites"]):
                _say(f"  {line}")
        for version in study["roster_versions"]:
            _say(f"{named[study['digest']]}: {told(version)}")
        if proposed := study["roster_proposed"]:
            _say(
                f"{named[study['digest']]}: roster {proposed['version']} is proposed: "
                f"{proposed['detail']}"
            )


def _facts(study: "Study") -> dict[str, Any]:
    """Return what ``check`` prints about a study, by name."""
    from consilium.shared.privacy.accounting import plan

    facts: dict[str, Any] = {
        "study": study.name,
        "digest": study.digest.hex(),
        "sites": len(study.sites),
        "rounds": study.rounds,
        "threshold": study.threshold,
        "minimum_sites": study.minimum_sites,
        "dropouts_tolerated": study.dropouts_tolerated,
        "tolerated_collusion": study.aggregation.tolerated_collusion,
        "affords": study.affords,
        "groups": study.aggregation.groups,
        "neighbours": study.degree,
        "privacy_mode": study.privacy.mode,
    }
    costs = plan(study)
    if costs is not None:
        facts |= {
            "epsilon": costs.epsilon,
            "delta": costs.delta,
            "training_noise_multiplier": costs.training_round.noise_multiplier,
            "statistics_noise_multiplier": costs.statistics.noise_multiplier,
            "calibration_rounds": costs.calibrations,
        }
        if costs.feasibility is not None:
            facts["feasibility_noise_multiplier"] = costs.feasibility.noise_multiplier
    return facts


def _say(sentence: str) -> None:
    console.print(sentence, markup=False)


def main() -> None:
    """Entry point of ``consilium-coordinator``."""
    run_command(app, name="consilium-coordinator")
