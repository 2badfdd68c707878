"""Run tests again and again, each time in a fork of one process that has loaded the libraries.

    python fork_tests.py FOLDER

Standard input: a line of JSON for each run, a list of tests. Standard output: a line of JSON for
each, the exit status of pytest and what it printed. No module of the project is loaded before the
fork, so each run reads the sources in FOLDER as they are at that moment.
"""

import gc
import importlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

# None that is a plugin of pytest (hypothesis): it must be loaded by pytest itself.
LIBRARIES = (
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.x509",
    "mnemonic",
    "msgpack",
    "numpy",
    "pydantic",
    "safetensors.torch",
    "scipy.integrate",
    "scipy.optimize",
    "scipy.stats",
    "torch",
)
TIMEOUT_S = 840
BROKEN = 70  # pytest itself ended by an exception, so no test was judged


def run_forked(tests: list[str]) -> tuple[int, str]:
    """Return the exit status of pytest on the tests, and what it printed."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        child = os.fork()
        if child == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            signal.alarm(TIMEOUT_S)
            status = BROKEN
            try:
                options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
                status = int(pytest.main([*options, *tests]))
                sys.stdout.flush()
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        printed.seek(0)
        return os.waitstatus_to_exitcode(ended), printed.read()


def main(folder: Path) -> None:
    """Serve runs in ``folder`` until standard input ends."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    for library in LIBRARIES:
        importlib.import_module(library)
    if early := {"consilium", "tests"} & sys.modules.keys():
        raise RuntimeError(f"{sorted(early)} were loaded before the fork")
    gc.freeze()  # pytest collects garbage again and again: not among what the libraries hold
    for line in sys.stdin:
        status, printed = run_forked(json.loads(line))
        sys.stdout.write(json.dumps([status, printed]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
