"""Commands about this site's identity and its coordinator's address.

``recovery-code``, ``roster``, ``coordinator``; and how ``enroll --recover`` asks for a code.
"""

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.client.commands.options import DEFAULT_FOLDER, Folder
from consilium.client.commands.persons import As, PasswordFd, person
from consilium.shared.errors import SettingsError
from consilium.shared.service.terminal import Terminal

if TYPE_CHECKING:
    from consilium.client.hospital.folder import Enrolment, SiteFolder
    from consilium.client.hospital.roster_versions import NextRoster
    from consilium.client.service.roster_agreement import RosterDesk
    from consilium.shared.enrolment.recovery import RecoveryCode

WORDS_A_LINE = 6

console = Terminal()


def add_recovery_commands(app: typer.Typer) -> None:
    """Add these commands to the site's."""
    app.command(name="recovery-code")(recovery_code)
    app.command()(roster)
    app.command()(coordinator)


def show_code(code: "RecoveryCode") -> None:
    """Show a recovery code; nobody can show it again."""
    words = code.words()
    console.print("Recovery code, shown only now; write it on paper and lock it away. With it a")
    console.print("new machine goes on as this hospital if this one is lost:")
    for at in range(0, len(words), WORDS_A_LINE):
        line = " ".join(words[at : at + WORDS_A_LINE])
        console.print(f"  {at + 1:>2}  {line}", markup=False)


def recovery_code(folder: Folder = DEFAULT_FOLDER) -> None:
    """Make the recovery code of a site that has none yet, and tell the coordinator its keys.

    'init' does; this is for sites that began with an older version or were written off.
    """
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.service.enroll import leave_recovery
    from consilium.shared.audit.own_log import open_audit

    opened = SiteFolder.open(folder)
    made = opened.make_recovery_code(show_code)
    if not opened.is_enrolled:
        console.print("Next: 'consilium-site enroll TOKEN', which binds it to this site's name.")
    elif leave_recovery(opened, open_audit(opened)):
        console.print("The coordinator knows the code's public keys.")
    else:
        raise SettingsError(
            "the coordinator keeps no recovery codes yet; after its next upgrade, run "
            "'consilium-site recovery-code' again"
        )
    if not made:
        console.print("The code itself was shown when it was made, and cannot be shown again.")


def recover_site(
    folder: "SiteFolder", said: str, places: Sequence[Path], heads: Sequence[str]
) -> "Enrolment":
    """Enrol a new machine in the place of a lost one; ``said`` is a token, perhaps with the code.

    Raises:
        ConsiliumError: as :func:`consilium.client.service.enroll.recover`.
    """
    from consilium.client.service.enroll import recover
    from consilium.shared.audit.verify import head_from_hex
    from consilium.shared.enrolment.invitation import Invitation
    from consilium.shared.enrolment.recovery import RecoveryCode

    token, _, rest = said.strip().partition("\n")
    words = rest.strip() or typer.prompt("The recovery code's twenty-four words", hide_input=True)
    pinned, found = recover(
        folder,
        Invitation.from_token(token),
        RecoveryCode.from_words(words),
        places=places,
        heads=[head_from_hex(line) for line in heads],
    )
    total = folder.ledger(folder.policy()).summary().total
    console.print(
        f"The budget goes on from the certificate of entry {found.certificate.number} of the "
        f"former audit log: epsilon {total.spent:.3f} of {total.bound:g} is spent.",
        markup=False,
    )
    if not places and not heads:
        console.print("Ask other hospitals for 'consilium-site audit head' of this site: the")
        console.print("coordinator alone could have shown an older certificate.")
    console.print("Next: 'consilium-site studies' and 'approve' what this hospital takes part in.")
    return pinned


def roster(
    study: Annotated[
        str, typer.Argument(help="Name or digest of an approved study.", show_default=False)
    ],
    folder: Folder = DEFAULT_FOLDER,
    accept: Annotated[
        bool, typer.Option("--accept", help="Agree to the sites or keys that are shown.")
    ] = False,
    refuse: Annotated[
        bool, typer.Option("--refuse", help="Note that this hospital does not agree.")
    ] = False,
    digest: Annotated[
        str, typer.Option(help="Agree only if the proposed roster's digest begins so.")
    ] = "",
    named: As = "",
    password_fd: PasswordFd = None,
) -> None:
    """Show who is to join or leave an approved study, or has a new key; agree to it by hand."""
    from consilium.client.commands import roster_decisions
    from consilium.client.commands.decisions import find_approved
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.service.pinned_connection import approvals_of

    opened = SiteFolder.open(folder)
    by = person(opened, named, password_fd) if accept or refuse else ""
    found = find_approved(approvals_of(opened), study).study
    name = found.name
    with roster_decisions.roster_desk(opened) as desk:
        rosters = roster_decisions.look(desk, found.digest)
        if rosters.approval is None:
            _say(f"This site left study {name} for good; what it spent stays in its ledger.")
            return
        if rosters.proposed is not None:
            for line in roster_decisions.roster_change_lines(rosters.proposed, rosters.approval):
                _say(line)
            _decide(desk, rosters.proposed, digest, accept=accept, refuse=refuse, by=by)
            return
        if refuse:
            raise SettingsError(f"no other roster of study {name} waits for this site")
        changed = roster_decisions.new_keys(desk, rosters.approval)
        if changed is None:
            _say(f"The roster of study {name} is the one approved here.")
            if rosters.agreed is not None:
                _say(
                    f"Roster {rosters.agreed.version}, which {rosters.agreed.by} agreed to, waits "
                    "for others."
                )
            return
        for line in changed.lines:
            _say(line)
        if accept:
            roster_decisions.accept_keys(desk, changed, by=by)
            _say(f"Study {name} goes on here with the new roster.")
        else:
            _say("Accept it with --accept, or leave it: then this site takes no part.")


def _decide(
    desk: "RosterDesk", proposed: "NextRoster", digest: str, *, accept: bool, refuse: bool, by: str
) -> None:
    """Agree to a proposed roster, or refuse it; or say how."""
    from consilium.client.commands import roster_decisions

    if refuse:
        roster_decisions.refuse(desk, proposed, by=by)
        _say("Refused: the study goes on with the roster that it has. Tell the coordinator why.")
    elif accept and not proposed.digest.hex().startswith(digest.lower()):
        raise SettingsError(
            f"the roster proposed now has digest {proposed.digest.hex()[:16]}, not {digest[:16]}; "
            "read it again"
        )
    elif accept:
        outcome = roster_decisions.agree(desk, proposed, by=by)
        _say(
            f"{', '.join(outcome.by)} agreed; {outcome.missing} more must."
            if outcome.missing
            else "Agreed: it is in force from the next round on, once all others agree."
        )
    else:
        _say("Agree with --accept, or refuse with --refuse; until all agree nothing changes.")


def _say(sentence: str) -> None:
    console.print(sentence, markup=False)


def coordinator(
    address: Annotated[
        str, typer.Argument(help="HOST or HOST:PORT at which it is now.", show_default=False)
    ],
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Dial the coordinator at another address from now on, if it is the same coordinator there.

    It is known by the key of its certificate authority, which the invitation pinned, not by name.
    """
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.service.move import move

    opened = SiteFolder.open(folder)
    before, after = move(opened, address, by=getpass.getuser())
    console.print(
        f"This site dials {after} from now on, before {before}; restart it if it runs.",
        markup=False,
    )
