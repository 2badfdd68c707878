"""A site's answer to a message, and the one place where an error becomes a refusal.

Guarantee: no refusal depends on a patient's record. Five kinds of error may leave with a code of
their own, and all are raised before a record is used: what is wrong with the message
(:class:`ProtocolError`), with the study or its roster (:class:`StudyError`), with the age of this
site's files (:class:`OldStateError`), what this hospital does not allow (:class:`PolicyError`), and
that the privacy budget is used up (:class:`BudgetError`). All other errors, and every error met
while records were in use (:func:`silently`), leave as one refusal of the same bytes. No error's
sentence leaves, but the one that belongs to its code (:mod:`consilium.client.round.told`).
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from consilium.client.hospital.process_limits import lacks_memory
from consilium.client.round.told import refusal_of
from consilium.shared.errors import ConsiliumError, UnableError
from consilium.shared.secure_sum.messages import Action, Refusal

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer:
    """The bytes that leave; ``refusal`` is their content if the site declined, else None.

    ``reason`` is the whole reason, for this site's own people: it never leaves.
    """

    body: bytes
    refusal: Refusal | None = None
    reason: str = ""


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
        reason = _log(site, action, error)
        refusal = refusal_of(site, error)
    return Answer(body=refusal.to_bytes(), refusal=refusal, reason=reason)


@contextmanager
def silently() -> Iterator[None]:
    """Let no error of the block be told from another: each becomes an :class:`UnableError`."""
    try:
        yield
    except Exception as error:
        raise UnableError from error


def _log(site: str, action: Action, error: Exception) -> str:
    """Write the reason to this site's own log, and return it.

    An allocator's text would tell of array shapes, and an unforeseen error's may quote a patient.
    """
    reason = (isinstance(error, UnableError) and error.__cause__) or error
    if lacks_memory(reason):
        told = (
            "it needs more memory than this process may hold; raise [machine] memory_mib or "
            "withdraw the study"
        )
    elif isinstance(reason, ConsiliumError):
        told = str(reason)
    else:
        log.error("%s failed on %s", site, action.value, exc_info=reason)
        return f"an unforeseen {type(reason).__name__}, whose place is in the log"
    log.warning("%s refused %s: %s", site, action.value, told)
    return told
