"""Who was scored at the bedside, when, by which model, from which inputs, and who asked.

A folder ``decisions`` (mode 0700) has a file or more for each day that has notes, by UTC, and a
key::

    decisions/2026-11-30-0001.jsonl
    decisions/key

A line is JSON: ``number``, ``at`` (UTC), ``by``, ``patient``, ``stay``, ``model`` (SHA-256 of its
manifest), ``study``, ``inputs`` (a digest of what the model read), ``result`` (``scored`` or
``refused``), ``previous`` and ``mac``. Digests and MACs are HMAC-SHA256 under the folder's key:
without it nobody can try out identifiers, nor write a line that fits. ``previous`` is the MAC of
the line before, across files, so a line that was changed, added or taken out from between is found.
Lines older than the policy keeps go by whole days, oldest first; where the chain begins then is
not a finding.

Guarantee: when :meth:`DecisionLog.note` returns, the line is on disk.
"""

import hashlib
import hmac
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from consilium.client.hospital.policy import DecisionPolicy
from consilium.shared.clock import utc_now
from consilium.shared.crypto.transcript import encode
from consilium.shared.errors import AuditError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.file_lock import file_lock
from consilium.shared.files.permissions import PRIVATE_FILE, PRIVATE_FOLDER

FOLDER, KEY, LOCK = "decisions", "key", "lock"
FIRST = "0" * 64  # what the very first line chains to
KEY_BYTES = 32
MIB = 1 << 20
LONGEST_LINE = 1 << 13
LONGEST_TEXT = 200
log = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})-(\d{4})\.jsonl", re.ASCII)


class Answered(Protocol):
    """What is noted of an answer: whose it is, and the bytes of what the model read."""

    @property
    def patient_id(self) -> str:
        """Empty if nobody is known."""

    @property
    def stay_id(self) -> str:
        """Empty if none is known."""

    @property
    def inputs(self) -> bytes:
        """Empty if nothing was read."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is noted beside: who asked, the model and its study, and whether there was an answer.

    ``model`` is the SHA-256 of its manifest, hexadecimal.
    """

    by: str
    model: str
    study: str
    scored: bool


class Notes:
    """Where a program at the bedside notes what it answers, if this hospital wants that.

    Args:
        folder: the site's.
        policy: how it is noted; None notes nothing.
        model: SHA-256 of the model's manifest, hexadecimal.
        study: the model's.

    Raises:
        AuditError: notes are required, and the log cannot be opened.
    """

    def __init__(
        self, folder: Path, policy: DecisionPolicy | None, *, model: str, study: str
    ) -> None:
        self._required = policy is not None and policy.required
        self._model, self._study = model, study
        self._log: DecisionLog | None = None
        try:
            self._log = None if policy is None else DecisionLog(folder, policy)
        except AuditError as error:
            self._failed(error)

    def note(self, one: Answered, *, by: str, scored: bool) -> None:
        """Note an answer before it is given.

        Args:
            one: the answer.
            by: who asked: a program and, where it says so, its user.
            scored: whether it is a score, or a refusal to score.

        Raises:
            AuditError: notes are required, and this one cannot be written.
        """
        if self._log is None:
            return
        try:
            self._log.note(
                one, Decision(by=by, model=self._model, study=self._study, scored=scored)
            )
        except AuditError as error:
            self._failed(error)

    def _failed(self, error: AuditError) -> None:
        if self._required:
            raise error
        log.warning("a score is given that is not noted: %s", error)


class DecisionLog:
    """The log in a site's folder, opened for writing; processes may share it.

    Args:
        folder: the site's.
        policy: how it is kept.
        clock: the time to be noted, UTC.

    Raises:
        AuditError: it cannot be made, or its key is damaged.
    """

    def __init__(
        self, folder: Path, policy: DecisionPolicy, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._folder, self._policy, self._clock = folder / FOLDER, policy, clock
        try:
            self._folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            with file_lock(self._folder / LOCK):
                key = self._folder / KEY
                if not key.exists():
                    if _files(self._folder):
                        raise AuditError(f"{key}: is missing beside its notes; {_ASIDE}")
                    write_atomically(key, os.urandom(KEY_BYTES), mode=PRIVATE_FILE)
                self._key = key.read_bytes()
        except OSError as error:
            raise self._cannot(error) from error
        if len(self._key) != KEY_BYTES:
            raise AuditError(f"{self._folder / KEY}: is damaged; {_ASIDE}")

    def note(self, one: Answered, decision: Decision) -> None:
        """Add a line, and delete what is older than the policy keeps.

        Raises:
            AuditError: the line cannot be written, so nobody may be told the score.
        """
        try:
            with file_lock(self._folder / LOCK):
                self._delete_old()
                self._append(one, decision)
        except OSError as error:
            raise self._cannot(error) from error

    def delete_old(self) -> int:
        """Delete files older than the policy keeps; return how many.

        Raises:
            AuditError: one cannot be deleted.
        """
        try:
            with file_lock(self._folder / LOCK):
                return self._delete_old()
        except OSError as error:
            raise self._cannot(error) from error

    def digest(self, kind: str, value: str | bytes) -> str:
        """Return the keyed digest by which a patient, a stay or inputs stand in the log."""
        return self._mac(encode(f"decision-{kind}", value))

    def named(self, kind: str, identity: str) -> str:
        """Return how an identifier stands in the log, by the policy; nothing for nobody."""
        if not identity or self._policy.identifiers == "clear":
            return identity[:LONGEST_TEXT]
        return self.digest(kind, identity)

    def lines(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yield every line, oldest first, and whether it fits the one before and was not changed.

        Raises:
            AuditError: a file cannot be read.
        """
        before: str | None = None
        for file in _files(self._folder):
            try:
                content = file.read_bytes()
            except OSError as error:
                raise AuditError(f"{file}: cannot be read ({error.strerror})") from error
            for line in content.splitlines():
                found = _parsed(line)
                if found is None:
                    yield {"damaged": file.name}, False
                    before = None
                    continue
                fits = self._fits(found, before)
                before = str(found.get("mac"))
                yield found, fits

    def _fits(self, line: dict[str, Any], before: str | None) -> bool:
        unsigned = {key: value for key, value in line.items() if key != "mac"}
        whole = str(line.get("mac")) == self._mac(_canonical(unsigned))
        return whole and (before is None or line.get("previous") == before)

    def _append(self, one: Answered, decision: Decision) -> None:
        now = self._clock().astimezone(UTC)
        number, previous = self._last()
        line: dict[str, Any] = {
            "number": number + 1,
            "at": now.isoformat(timespec="milliseconds"),
            "by": decision.by[:LONGEST_TEXT],
            "patient": self.named("patient", one.patient_id),
            "stay": self.named("stay", one.stay_id),
            "model": decision.model,
            "study": decision.study,
            "inputs": self.digest("inputs", one.inputs) if one.inputs else "",
            "result": "scored" if decision.scored else "refused",
            "previous": previous,
        }
        line["mac"] = self._mac(_canonical(line))
        file = os.open(
            self._file(now), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE
        )
        begin = os.fstat(file).st_size
        try:
            content = _canonical(line) + b"\n"
            while content:
                content = content[os.write(file, content) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, begin)  # half a line was never acknowledged
            raise
        finally:
            os.close(file)

    def _last(self) -> tuple[int, str]:
        """Return number and MAC of the last whole line; cut off what a crash left behind it."""
        for file in reversed(_files(self._folder)):
            with file.open("r+b") as opened:
                size = opened.seek(0, os.SEEK_END)
                begin = opened.seek(max(0, size - LONGEST_LINE))
                content = opened.read()
                whole = content.rfind(b"\n") + 1
                if whole < len(content):
                    opened.truncate(begin + whole)
            if not whole:
                continue
            found = _parsed(content[:whole].splitlines()[-1])
            if found is None or type(found.get("number")) is not int:
                raise AuditError(f"{file}: its last line is damaged; {_ASIDE}")
            return found["number"], str(found.get("mac"))
        return 0, FIRST

    def _file(self, now: datetime) -> Path:
        """Return the file to write: the last one, unless it is of another day or full."""
        day = now.date().isoformat()
        known = _files(self._folder)
        if known:
            last, number = _parts(known[-1])
            if last >= day and known[-1].stat().st_size < self._policy.largest_mib * MIB:
                return known[-1]  # a clock that was put back does not write behind later lines
            if last >= day:
                return self._folder / f"{last}-{number + 1:04d}.jsonl"
        return self._folder / f"{day}-0001.jsonl"

    def _delete_old(self) -> int:
        oldest = (self._clock() - timedelta(days=self._policy.keep_days)).date().isoformat()
        old = [file for file in _files(self._folder) if _parts(file)[0] < oldest]
        for file in old:
            file.unlink()
        return len(old)

    def _mac(self, content: bytes) -> str:
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()

    def _cannot(self, error: OSError) -> AuditError:
        return AuditError(
            f"{self._folder}: the decision log cannot be written ({error.strerror}), and this "
            "site's policy wants it; make room or correct who may write there"
        )


_ASIDE = "move the folder aside, and keep it as evidence"


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if _NAME.fullmatch(one.name))


def _parts(file: Path) -> tuple[str, int]:
    found = _NAME.fullmatch(file.name)
    assert found is not None  # noqa: S101  # _files gives no other
    return found[1], int(found[2])


def _canonical(line: dict[str, Any]) -> bytes:
    return json.dumps(line, sort_keys=True, separators=(",", ":")).encode()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
