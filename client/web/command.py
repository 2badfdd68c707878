"""``consilium-site web``: serve the site's page on loopback."""

from typing import Annotated

import typer

from consilium.client.commands.options import DEFAULT_FOLDER, Folder

PORT = 8470


def web(
    folder: Folder = DEFAULT_FOLDER,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")
    ] = PORT,
) -> None:
    """Serve this site's page on 127.0.0.1 for persons who sign in ('web-user add'), until stopped.

    Review a study in plain words, see the data check, approve, refuse or withdraw, see ledger,
    audit log, opt-outs, models and suspect labels.
    """
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.web.pages import site_application
    from consilium.shared.web.server import serve_folder

    opened = SiteFolder.open(folder)
    serve_folder(
        site_application(opened),
        opened.path,
        port,
        adds="consilium-site web-user add NAME --role steward",
    )
