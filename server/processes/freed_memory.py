"""Large blocks of memory go back to the system as soon as they are freed.

The C library would keep much of what was freed for later, once in every thread's own arena. The
coordinator's long blocks live shortly: a model on its way to a site, a part of a reply.
"""

import contextlib
import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_SETTINGS = {_M_MMAP_THRESHOLD: 1 << 20, _M_TRIM_THRESHOLD: 1 << 20, _M_ARENA_MAX: 2}


def give_back_freed_memory() -> None:
    """Tell this process's C library so; one other than glibc stays as it is."""
    for setting, value in _SETTINGS.items():
        _call("mallopt", setting, value)


def remember_start() -> None:
    """Let collections pass over everything made so far, as it will stay; they are then fast."""
    gc.collect()
    gc.freeze()


def give_back_garbage() -> None:
    """Give back what only cycles of references hold, and what lies between blocks in use."""
    gc.collect()
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None)[name](*arguments)
