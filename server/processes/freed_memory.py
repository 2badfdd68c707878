"""Makes the C library return large freed blocks of memory to the system at once.

It would keep much of what was freed for later use, in every thread's own arena. The coordinator's
large blocks are short-lived: a model on its way to a site, a part of a reply.
"""

import contextlib
import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_SETTINGS = {_M_MMAP_THRESHOLD: 1 << 20, _M_TRIM_THRESHOLD: 1 << 20, _M_ARENA_MAX: 2}


def give_back_freed_memory() -> None:
    """Make glibc return freed memory at once; with another C library, do nothing."""
    for setting, value in _SETTINGS.items():
        _call("mallopt", setting, value)


def remember_start() -> None:
    """Exclude all objects made so far from garbage collection, which makes it fast."""
    gc.collect()
    gc.freeze()


def give_back_garbage() -> None:
    """Free objects that only reference cycles keep, and return the memory between used blocks."""
    gc.collect()
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None)[name](*arguments)
