"""The cable between one site and the coordinator, which a test can pull out."""

import socket
import threading
from contextlib import suppress


class Cable:
    """Forwards connections to a port of this machine; when it is out, nothing gets through."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._in = threading.Event()
        self._in.set()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        """Cut all connections and let none through."""
        self._in.clear()
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def plug(self) -> None:
        """Let connections through again."""
        self._in.set()

    def close(self) -> None:
        """End for good."""
        self.pull()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                near, _ = self._listener.accept()
                far = self._far_end()
                if far is None:
                    near.close()
                    continue
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_forward, args=(one, other), daemon=True).start()

    def _far_end(self) -> socket.socket | None:
        if self._in.is_set():
            with suppress(OSError):  # nobody listens there yet
                return socket.create_connection(("127.0.0.1", self._target))
        return None


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
