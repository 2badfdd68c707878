"""An application served on a free port, as the commands serve it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from consilium.shared.web.application import Application
from consilium.shared.web.server import listen, server_of

PASSWORD = "four words that rhyme"
QUICK = 2  # log2 of scrypt's cost


@contextmanager
def served(application: Application) -> Iterator[str]:
    """Serve until the context ends; yields the address."""
    listening, server = listen(0), server_of(application)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


class Person:
    """Somebody who signed in, with a browser that runs no scripts."""

    def __init__(self, address: str, name: str, password: str = PASSWORD) -> None:
        self.address = address
        self.client = httpx.Client(
            base_url=address, headers={"Origin": address}, timeout=120, trust_env=False
        )
        self.answer = self.client.post("/sign-in", data={"name": name, "password": password})
        self.place = self.answer.headers.get("location", "").removesuffix("/overview")
        self.token = ""
        if self.answer.status_code == 303:
            self.token = self.get("/overview").text.split("name='token' value='")[1].split("'")[0]

    def get(self, path: str) -> httpx.Response:
        return self.client.get(self.place + path)

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form and follow where it leads."""
        sent = {"token": self.token} | fields
        return self.client.post(self.place + path, data=sent, follow_redirects=True)
