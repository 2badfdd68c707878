"""A PostgreSQL server for a test: its own folder, a socket and no port, an unprivileged account."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.needs import PATIENCE_S, missing

USER = "consilium"
STARTS_WITHIN_S = PATIENCE_S


@dataclass(frozen=True, repr=False)
class Server:
    """Where it listens, and the password of its one account."""

    socket: Path
    password: str

    def url(self, *, password: bool) -> str:
        secret = f":{self.password}" if password else ""
        return f"postgresql+psycopg://{USER}{secret}@/postgres?host={self.socket}"


def programs() -> Path:
    """The folder of initdb and postgres; skips the test where there is none."""
    found = [path for path in (shutil.which("initdb"),) if path]
    found += map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True))
    if not found or find_spec("psycopg") is None:
        missing("postgresql", "postgresql; Python: psycopg")
    return Path(found[0]).resolve().parent


@contextmanager
def running() -> Iterator[Server]:
    """Start a server, and end it."""
    binaries = programs()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path must be short
    password = secrets.token_hex(12)
    secret = folder / "password"
    secret.write_text(password)
    account: dict[str, object] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = next(name for name in ("postgres", "nobody") if _exists(name))
        for path in (folder, secret):
            shutil.chown(path, owner)
        account = {"user": owner, "group": pwd.getpwnam(owner).pw_gid, "extra_groups": []}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common = {**quiet, "cwd": folder, **account}
    data = folder / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", USER, "--pwfile", secret, "--encoding", "UTF8",
         "--auth", "scram-sha-256", "--no-sync", "--locale", "C"],
        check=True, **common,
    )  # fmt: skip  # options beside their values
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-k", folder, "-h", "", "-c", "fsync=off"], **common
    )
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not _answers(folder, password):
            assert server.poll() is None, "the server ended at its start"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        yield Server(folder, password)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=PATIENCE_S)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(folder: Path, password: str) -> bool:
    import psycopg

    try:
        psycopg.connect(host=str(folder), user=USER, dbname="postgres", password=password).close()
    except psycopg.OperationalError:
        return False
    return True


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
