"""One line of an audit log, and the exact bytes that are chained and signed."""

import json
from dataclasses import dataclass
from typing import Any

from consilium.shared.audit.events import (
    AuditEvent,
    canonical_json,
    event_from_plain,
    event_to_plain,
)
from consilium.shared.crypto.transcript import digest, encode
from consilium.shared.errors import AuditError

LARGEST_LINE = 1 << 17


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One line: its number, ISO 8601 time, event, predecessor's digest, signer and signature."""

    number: int
    at: str
    event: AuditEvent
    previous: bytes
    signer: bytes
    signature: bytes

    def statement(self) -> bytes:
        """What the signer signs."""
        return encode("audit-entry", canonical_json(self._unsigned()))

    def to_line(self) -> bytes:
        """The line in the file, its line break included."""
        return canonical_json(self._unsigned() | {"signature": self.signature.hex()}) + b"\n"

    def _unsigned(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "at": self.at,
            "event": self.event.kind,
            "data": event_to_plain(self.event),
            "previous": self.previous.hex(),
            "signer": self.signer.hex(),
        }

    @classmethod
    def from_line(cls, line: bytes) -> "AuditEntry":
        """Read a line; its signature is the caller's to check.

        Raises:
            AuditError: not exactly what :meth:`to_line` would write.
        """
        try:
            plain = json.loads(line)
            entry = cls(
                number=plain["number"],
                at=plain["at"],
                event=event_from_plain(plain["event"], plain["data"]),
                previous=bytes.fromhex(plain["previous"]),
                signer=bytes.fromhex(plain["signer"]),
                signature=bytes.fromhex(plain["signature"]),
            )
            if type(entry.number) is int and type(entry.at) is str and entry.to_line() == line:
                return entry
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise AuditError("the line is not an entry of an audit log") from error
        raise AuditError("the line is not written as this version writes an entry")


def line_digest(line: bytes) -> bytes:
    """What the next line chains to: a digest of the whole line, its line break included."""
    return digest("audit-line", line)


def genesis(owner: str, identity: bytes) -> bytes:
    """What line 1 chains to."""
    return digest("audit-genesis", owner, identity)


def rotation_statement(owner: str, previous: bytes, old: bytes, new: bytes) -> bytes:
    """What a new key signs to vouch that it continues the log of an old one at this line."""
    return encode("audit-rotation", owner, previous, old, new)
