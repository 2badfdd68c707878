"""Freed memory goes back to the system; in a process of its own, since the setting stays."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
from consilium.server.processes.freed_memory import give_back_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

give_back_freed_memory()
bytes(30 << 20)  # after this, glibc by itself keeps blocks of up to 32 MiB
before = resident()
blocks = [bytes(b"x") * (2 << 20) for _ in range(60)]
full = resident()
last = blocks.pop()
del blocks
print(full - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_blocks_go_back_though_one_after_them_is_in_use() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    full, left = map(int, done.stdout.split())
    assert full > 100 << 20
    assert left < 10 << 20
