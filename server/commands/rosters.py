"""``consilium-coordinator roster``: which sites take part in a study that runs, and who is to."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from consilium.server.commands.options import DEFAULT_FOLDER, Folder, Operator, StudyName
from consilium.shared.errors import SettingsError
from consilium.shared.service.terminal import Terminal

if TYPE_CHECKING:
    from consilium.server.coordinator.register import Register, Submitted

console = Terminal()


def roster(
    study: StudyName,
    folder: Folder = DEFAULT_FOLDER,
    join: Annotated[
        list[str] | None, typer.Option(help="An enrolled site that is to join.")
    ] = None,
    leave: Annotated[
        list[str] | None, typer.Option(help="A site that is to leave for good.")
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Take back what is proposed.")] = False,
    operator: Operator = "",
) -> None:
    """Show a study's roster, or propose sites that join and leave it.

    A replacement is one of each. Until all sites that stay have agreed, the study goes on with the
    roster that it has; then the new one is in force from the next round on.
    """
    from consilium.server.coordinator.acts import note_act
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.coordinator.roster_book import cancel as take_back
    from consilium.server.coordinator.rosters import Rosters
    from consilium.shared.audit.own_log import open_audit

    opened = CoordinatorFolder.open(folder)
    register = opened.register()
    found = register.study(study)
    named = f"{found.name} ({found.digest.hex()[:16]})"
    if cancel and (join or leave):
        raise SettingsError("--cancel goes with neither --join nor --leave; run it first")
    if cancel:
        note_act(opened, "cancel a roster", named, by=operator)
        _say(f"Roster {take_back(register, found)} of study {found.name} is not proposed any more.")
    elif join or leave:
        changes = [f"{site} joins" for site in join or ()] + [f"{s} leaves" for s in leave or ()]
        rosters = Rosters(register=register, identity=opened.identity(), audit=open_audit(opened))
        rosters.check(found, join=join or (), leave=leave or ())
        note_act(opened, "propose a roster", f"{named}: {', '.join(changes)}", by=operator)
        rosters.propose(found, join=join or (), leave=leave or ())
    for line in _lines(register, found):
        _say(line)


def _lines(register: "Register", study: "Submitted") -> list[str]:
    from consilium.server.service.overview import roster_facts

    facts = roster_facts(register, study)
    lines = [
        f"Roster {study.version} of study {study.name}: {', '.join(study.roster)}; "
        f"digest {facts['roster_digest'][:16]}."
    ]
    lines += [f"  {told(one)}" for one in facts["roster_versions"]]
    proposed = facts["roster_proposed"]
    if proposed is not None:
        lines.append(f"Roster {proposed['version']} is proposed: {proposed['detail']}.")
    return lines


def told(version: dict[str, Any]) -> str:
    """Return a version of a roster in a sentence."""
    changes = [f"{site} joined" for site in version["joined"]]
    changes += [f"{site} left" for site in version["left"]]
    return (
        f"roster {version['version']} from round {version['round']} on: {', '.join(changes)}; "
        f"digest {version['digest'][:16]}"
    )


def _say(sentence: str) -> None:
    console.print(sentence, markup=False)
