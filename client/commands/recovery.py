"""Commands about this site's identity and its coordinator's address.

``recovery-code``, ``roster``, ``coordinator``; and how ``enroll --recover`` asks for a code.
"""

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.client.commands.options import DEFAULT_FOLDER, Folder
from consilium.shared.errors import PolicyError, SettingsError
from consilium.shared.service.terminal import Terminal

if TYPE_CHECKING:
    from consilium.client.hospital.approvals import Approval
    from consilium.client.hospital.folder import Enrolment, SiteFolder
    from consilium.client.hospital.roster_change import NewKey
    from consilium.client.service.connection import Connection
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
) -> None:
    """Show who is to join or leave an approved study, or has a new key; agree to it by hand."""
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.service.offers import fetch_offer
    from consilium.client.service.pinned_connection import approvals_of, connect
    from consilium.client.service.roster_renewal import accept as take_over
    from consilium.client.service.roster_renewal import changes_of
    from consilium.shared.audit.own_log import open_audit

    opened = SiteFolder.open(folder)
    approvals = approvals_of(opened)
    found = [
        a
        for a in approvals
        if a.study.name == study or (len(study) >= 8 and a.study.digest.hex().startswith(study))
    ]
    if len(found) != 1:
        raise SettingsError(
            f"study {study}: {'several' if found else 'none'} approved under this name; "
            "name its digest"
        )
    (approval,) = found
    with connect(opened) as connection:
        if not _proposed(opened, approval, connection, accept, refuse, digest):
            return
        approval = approvals.find(approval.study.digest) or approval
        offer = fetch_offer(connection, approval.study.digest)
        changes = changes_of(approval, offer, opened, connection)
    for change in changes:
        for line in _told(opened, change):
            console.print(line, markup=False)
    if not changes:
        console.print(f"The roster of study {approval.study.name} is the one approved here.")
        return
    if not accept:
        console.print("Accept it with --accept, or leave it: then this site takes no part.")
        return
    audit = open_audit(opened)
    proved = tuple(change for change in changes if _reason(opened, change) is None)
    take_over(
        opened, approvals, audit, approval, offer,
        tuple(change if change in proved else _unproved(change) for change in changes),
        by=getpass.getuser(), policy=opened.policy(),
    )  # fmt: skip
    console.print(f"Study {approval.study.name} goes on here with the new roster.", markup=False)


def _proposed(
    folder: "SiteFolder",
    approval: "Approval",
    connection: "Connection",
    accept: bool,
    refuse: bool,
    digest: str,
) -> bool:
    """Show and decide on the roster that is proposed; return whether to look at keys, too."""
    from consilium.client.commands import roster_decisions
    from consilium.client.service.pinned_connection import approvals_of
    from consilium.client.service.roster_agreement import RosterDesk
    from consilium.shared.audit.own_log import open_audit

    study, by = approval.study, getpass.getuser()
    approvals = approvals_of(folder)
    desk = RosterDesk(
        folder=folder, policy=folder.policy(), approvals=approvals, audit=open_audit(folder),
        connection=connection,
    )  # fmt: skip
    version = desk.follow(study.digest)
    now = approvals.find(study.digest)
    if now is None:
        _say(f"This site left study {study.name} for good; what it spent stays in its ledger.")
        return False
    if version is None:
        if refuse:
            raise SettingsError(f"no other roster of study {study.name} waits for this site")
        return True
    following = desk.check(now, version)
    for line in roster_decisions.roster_change_lines(following, now):
        _say(line)
    if refuse:
        roster_decisions.refuse(desk, following, by=by)
        _say("Refused: the study goes on with the roster that it has. Tell the coordinator why.")
    elif accept and not following.digest.hex().startswith(digest.lower()):
        raise SettingsError(
            f"the roster proposed now has digest {following.digest.hex()[:16]}, not {digest[:16]}; "
            "read it again"
        )
    elif accept:
        outcome = roster_decisions.agree(desk, following, by=by)
        _say(
            f"{', '.join(outcome.by)} agreed; {outcome.missing} more must."
            if outcome.missing
            else "Agreed: it is in force from the next round on, once all others agree."
        )
    else:
        _say("Agree with --accept, or refuse with --refuse; until all agree nothing changes.")
    return False


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


def _told(folder: "SiteFolder", change: "NewKey") -> list[str]:
    from consilium.shared.enrolment.fingerprint import fingerprint, to_words

    words = " ".join(to_words(fingerprint(change.site, change.after)))
    reason = _reason(folder, change)
    shown = [f"{change.site} stands under a new key: {words}"]
    return [*shown, f"  {reason or 'the same hospital, as its recovery code proves.'}"]


def _reason(folder: "SiteFolder", change: "NewKey") -> str | None:
    """Why a new key is not proved to be the same hospital's; None if it is."""
    from consilium.client.hospital.roster_change import check_new_key
    from consilium.shared.errors import AuthenticationError

    try:
        check_new_key(change, folder.heads().newest)
    except (AuthenticationError, PolicyError) as error:
        return str(error)
    return None


def _unproved(change: "NewKey") -> "NewKey":
    """The change without what was shown for it: only vouchers count for it then."""
    from dataclasses import replace

    return replace(change, proofs=())
