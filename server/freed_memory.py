"""Large blocks of memory go back to the system as soon as they are freed.

The C library would keep much of what was freed for later, once in every thread's own arena. The
coordinator's long blocks live shortly: a model on its way to a site, a part of a reply.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_SETTINGS = {_M_MMAP_THRESHOLD: 1 << 20, _M_TRIM_THRESHOLD: 1 << 20, _M_ARENA_MAX: 2}


def give_back_freed_memory() -> None:
    """Tell this process's C library so; one other than glibc stays as it is."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    for setting, value in _SETTINGS.items():
        mallopt(setting, value)
