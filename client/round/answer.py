"""A site's answer to a message, and the one place where an error becomes a refusal."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from consilium.shared.errors import ConsiliumError
from consilium.shared.secure_sum.messages import Action, Refusal

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
    """Return the answer that ``work`` computes; turn an error into a refusal, and log it.

    An unforeseen error is refused without any detail, because its text may quote a patient's data.
    """
    try:
        return Answer(body=work())
    except ConsiliumError as error:
        log.warning("%s refused %s: %s", site, action.value, error)
        refusal = Refusal.of(site, error)
    except Exception:
        log.exception("%s failed on %s", site, action.value)
        sentence = "the site met an unforeseen error; see the site's log"
        refusal = Refusal(site=site, code="Defect", sentence=sentence)
    return Answer(body=refusal.to_bytes(), refusal=refusal)
