"""Whether an error says that a file cannot be written or read, and whether for lack of space."""

import errno
import sqlite3

_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def lacks_space(error: BaseException) -> bool:
    """Tell whether an error, or one that caused it, is a full disk's, a quota's or a size limit's.

    SQLite says ``database or disk is full``; a library on top of it wraps its error.
    """
    return any(
        (isinstance(cause, OSError) and cause.errno in _SPACE)
        or (isinstance(cause, sqlite3.Error) and "full" in str(cause))
        for cause in _causes(error)
    )


def is_of_storage(error: BaseException) -> bool:
    """Tell whether an error, or one that caused it, comes from a file or a database on disk."""
    return any(isinstance(cause, OSError | sqlite3.Error) for cause in _causes(error))


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return found
