"""``consilium-coordinator web``: serve the operator's page with sign-in on loopback."""

from typing import Annotated

import typer

from consilium.server.commands.options import DEFAULT_FOLDER, Folder
from consilium.shared.service.terminal import Terminal

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
    from consilium.shared.service.log_file import log_to_file
    from consilium.shared.service.logs import configure_logs
    from consilium.shared.web.server import listen, serve

    console = Terminal(stderr=True)
    opened = CoordinatorFolder.open(folder)
    application = coordinator_application(opened)
    if not application.users.all():
        console.print(
            "Nobody can sign in yet: 'consilium-coordinator web-user add NAME --role operator' "
            "adds a person."
        )
    listening = listen(port)
    configure_logs()
    log_to_file(opened.path, "web")
    console.print(f"http://127.0.0.1:{listening.getsockname()[1]}/  (stop with Ctrl-C)")
    serve(application, listening)
