"""``consilium-site notices``: what became of the notices to this hospital's people, or a test."""

from typing import Annotated

import typer

from consilium.client.commands.options import DEFAULT_FOLDER, Folder, Json
from consilium.shared.service.terminal import Terminal

console = Terminal()


def notices(
    folder: Folder = DEFAULT_FOLDER,
    test: Annotated[bool, typer.Option("--test", help="Send a test to every address now.")] = False,
    as_json: Json = False,
) -> None:
    """Say how many notices were sent and what failed; with --test, try the addresses out.

    Whom to tell what stands in site.toml, [notices] (docs/operations.md).
    """
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.hospital.settings import FILE_NAME
    from consilium.client.service.notices import sender_of
    from consilium.client.service.pinned_connection import proxy_of
    from consilium.shared.notices.command import send_test, show_notices

    opened = SiteFolder.open(folder)
    if not test:
        show_notices(opened.path, console, as_json=as_json)
        return
    proxy = proxy_of(opened)
    send_test(
        opened.settings().notices,
        opened.path,
        sender_of(opened),
        console,
        file=FILE_NAME,
        proxy=None if proxy is None else proxy.for_httpx(),
    )
