"""``consilium-coordinator web``: serve the operator's page with sign-in on loopback."""

from typing import Annotated

import typer

from consilium.server.commands.options import DEFAULT_FOLDER, Folder

PORT = 8471


def web(
    folder: Folder = DEFAULT_FOLDER,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")
    ] = PORT,
) -> None:
    """Serve the operator's page on 127.0.0.1 for persons who sign in ('web-user add').

    Viewers see sites, studies, rounds and events; operators pause, resume and stop studies and
    revoke sites, each act confirmed and under their name. Runs beside 'start', until stopped.
    """
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.web.pages import coordinator_application
    from consilium.shared.web.server import serve_folder

    opened = CoordinatorFolder.open(folder)
    serve_folder(
        coordinator_application(opened),
        opened.path,
        port,
        adds="consilium-coordinator web-user add NAME --role operator",
    )
