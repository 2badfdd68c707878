"""Serves an application on a port of 127.0.0.1."""

import contextlib
import socket
from pathlib import Path
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from consilium.shared.errors import SettingsError
from consilium.shared.service.local_service import HOST
from consilium.shared.service.log_file import log_to_file
from consilium.shared.service.logs import configure_logs
from consilium.shared.service.terminal import Terminal
from consilium.shared.web.application import Application

MOST_AT_ONCE = 64


class Served(Protocol):
    """What can be served: pages for persons, or answers for programs."""

    @property
    def asgi(self) -> ASGIApp:
        """Answers requests."""


def listen(port: int) -> socket.socket:
    """Take a port of 127.0.0.1; 0 takes a free one.

    Raises:
        SettingsError: the port is taken.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((HOST, port))
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise SettingsError(
            f"port {port} of {HOST} cannot be used ({error.strerror}); type no password into what "
            "listens there, and stop it or choose another --port"
        ) from error
    return opened


def server_of(application: Served) -> uvicorn.Server:
    """Return a server to run with the sockets of :func:`listen`."""
    return uvicorn.Server(
        uvicorn.Config(
            application.asgi,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http="httptools",
            limit_concurrency=MOST_AT_ONCE,
            timeout_graceful_shutdown=5,
        )
    )


def serve(application: Served, listening: socket.socket) -> None:
    """Serve until the process is interrupted or terminated."""
    with contextlib.suppress(KeyboardInterrupt):  # the usual end
        server_of(application).run(sockets=[listening])


def serve_folder(application: Application, folder: Path, port: int, *, adds: str) -> None:
    """Serve a folder's application until stopped, with its log there; say where, on standard error.

    Args:
        application: to serve.
        folder: the site's or the coordinator's.
        port: as for :func:`listen`.
        adds: the command that adds a person, for when nobody can sign in yet.

    Raises:
        SettingsError: the port is taken.
    """
    console = Terminal(stderr=True)
    if not application.users.all():
        console.print(f"Nobody can sign in yet: '{adds}' adds a person.")
    listening = listen(port)
    configure_logs()
    log_to_file(folder, "web")
    console.print(f"http://{HOST}:{listening.getsockname()[1]}/  (stop with Ctrl-C)")
    serve(application, listening)
