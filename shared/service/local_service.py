"""An HTTP service for programs on this machine, in a thread of its own."""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from consilium.shared.errors import SettingsError

HOST = "127.0.0.1"
HERE = ("127.0.0.1", "localhost")
"""Names of this machine; a request whose Host is another one means DNS rebinding."""


class _QuietOnDisconnect(HTTPServer):
    """A server that prints no traceback when a client goes away before its answer."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the error, unless the connection failed."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class LocalService:
    """Answers on a port, of 127.0.0.1 unless it is told otherwise, until it is closed.

    Args:
        server: the kind of server: one request at a time, or each in a thread.
        handler: answers a request.
        port: 0 takes a free one.
        name: of the thread.
        taken: beginning and end of the error's sentence if the port is taken.
        host: the address of this machine to listen on.

    Raises:
        SettingsError: the port is taken, or this machine does not have the address.
    """

    def __init__(
        self,
        server: type[HTTPServer],
        handler: type[BaseHTTPRequestHandler],
        port: int,
        *,
        name: str,
        taken: tuple[str, str],
        host: str = HOST,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = type("Server", (_QuietOnDisconnect, server), {"address_family": family})
        try:
            self._server = kind((host, port), handler)
        except OSError as error:
            raise SettingsError(
                f"{taken[0]}port {port} of {host} cannot be used ({error.strerror}); {taken[1]}"
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name=name, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self._thread.join()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
