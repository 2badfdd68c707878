"""What may go wrong with a message to a simulated site, for tests."""

from dataclasses import dataclass
from enum import Enum, auto


class FaultKind(Enum):
    """What goes wrong with one message."""

    LOSE_REQUEST = auto()  # the site never sees it
    LOSE_REPLY = auto()  # the site does the work, the coordinator never hears
    DELAY = auto()  # the reply comes late
    CRASH = auto()  # the site dies after the work, before the reply, and starts again
    CORRUPT = auto()  # one bit of the reply's body is flipped


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault for the ``occurrence``-th message (from 0) of this type to this site."""

    site: str
    message_type: str
    occurrence: int
    kind: FaultKind
    delay_s: float = 0.0
