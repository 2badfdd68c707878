"""A site's answer to a message, and the one place where an error becomes a refusal.

Guarantee: no refusal depends on a patient's record. Four kinds of error may leave with their own
sentence, and all are raised before a record is used: what is wrong with the message
(:class:`ProtocolError`), with the study or its roster (:class:`StudyError`), with the age of this
site's files (:class:`OldStateError`), and what this hospital does not allow (:class:`PolicyError`).
That the
privacy budget is used up leaves without the figures. All other errors, and every error met while
records were in use (:func:`silently`), leave as one refusal of the same bytes.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from consilium.client.hospital.process_limits import lacks_memory
from consilium.shared.errors import (
    BudgetError,
    ConsiliumError,
    OldStateError,
    PolicyError,
    ProtocolError,
    StudyError,
    UnableError,
)
from consilium.shared.secure_sum.messages import Action, Refusal

BUDGET_USED_UP = "this site's privacy budget does not cover the round"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer:
    """The bytes that leave; ``refusal`` is their content if the site declined, else None."""

    body: bytes
    refusal: Refusal | None = None


class Answers(Protocol):
    """Answers for one site: the session of one study, or the sessions of all studies."""

    @property
    def site(self) -> str:
        """The site's name."""

    def handle(self, action: Action, body: bytes) -> Answer:
        """Answer one message, with a refusal if the site declines."""


def answer_or_refuse(site: str, action: Action, work: Callable[[], bytes]) -> Answer:
    """Return the answer that ``work`` computes; turn an error into a refusal, and log it."""
    try:
        return Answer(body=work())
    except Exception as error:
        _log(site, action, error)
        refusal = Refusal.of(site, _disclosed(error))
    return Answer(body=refusal.to_bytes(), refusal=refusal)


@contextmanager
def silently() -> Iterator[None]:
    """Let no error of the block be told from another: each becomes an :class:`UnableError`."""
    try:
        yield
    except Exception as error:
        raise UnableError from error


def _disclosed(error: Exception) -> ConsiliumError:
    """Return the error that the coordinator is told of."""
    if isinstance(error, ProtocolError | StudyError | PolicyError | OldStateError):
        return error
    if isinstance(error, BudgetError):
        return BudgetError(BUDGET_USED_UP)
    return UnableError()


def _log(site: str, action: Action, error: Exception) -> None:
    """Write the reason to this site's own log; an allocator's text would tell of array shapes."""
    reason = (isinstance(error, UnableError) and error.__cause__) or error
    if lacks_memory(reason):
        log.warning(
            "%s refused %s: it needs more memory than this process may hold; raise [machine] "
            "memory_mib or withdraw the study",
            site,
            action.value,
        )
    elif isinstance(reason, ConsiliumError):
        log.warning("%s refused %s: %s", site, action.value, reason)
    else:
        log.error("%s failed on %s", site, action.value, exc_info=reason)
