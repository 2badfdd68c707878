"""``consilium-coordinator notices``: what became of the notices to the operator, or a test."""

from typing import Annotated

import typer

from consilium.server.commands.options import DEFAULT_FOLDER, Folder, Json
from consilium.shared.service.terminal import Terminal

console = Terminal()


def notices(
    folder: Folder = DEFAULT_FOLDER,
    test: Annotated[bool, typer.Option("--test", help="Send a test to every address now.")] = False,
    as_json: Json = False,
) -> None:
    """Say how many notices were sent and what failed; with --test, try the addresses out.

    Whom to tell what stands in coordinator.toml, [notices] (docs/operations.md).
    """
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.service.notices import sender_of
    from consilium.shared.notices.command import send_test, show_notices

    opened = CoordinatorFolder.open(folder)
    if not test:
        show_notices(opened.path, console, as_json=as_json)
        return
    send_test(opened.notices(), opened.path, sender_of(opened), console, file="coordinator.toml")
