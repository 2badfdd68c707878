"""What a hospital's people are told of, at the addresses that they wrote into ``site.toml``.

Read from this site's folder and from what the coordinator answers; nothing that is told comes from
a record, a setting or a reason (:mod:`consilium.shared.notices.kinds`).
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cryptography.x509 import load_der_x509_certificate

from consilium.client.hospital.decision_notes import DecisionNotes
from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.connection import Connection
from consilium.client.service.offers import fetch_offer, fetch_progress, list_offers
from consilium.client.service.pinned_connection import approvals_of, proxy_of
from consilium.shared.enrolment.messages import StudyProgress
from consilium.shared.errors import (
    AuthenticationError,
    ConsiliumError,
    ProtocolError,
    SettingsError,
    UnreachableError,
)
from consilium.shared.notices.courier import Courier, Look, open_courier
from consilium.shared.notices.kinds import NoticeEvent, Sender
from consilium.shared.notices.settings import NoticeSettings
from consilium.shared.notices.spans import days_since, look_at_certificates, look_at_disk

REACHED_MARK = "reached"
REFUSED_REST_S = 300.0  # a site that is not accepted asks no more often
MOST_NEW_OFFERS = 20  # read in one look; each may have a megabyte
ENDED = ("finished", "stopped")

log = logging.getLogger(__name__)

A = TypeVar("A")
Marks = dict[str, str | None]


class CoordinatorAnswers(Protocol):
    """What the coordinator tells this site when it is asked; each call may raise ConsiliumError."""

    def offers(self) -> Sequence[bytes]:
        """The digests of the studies that are offered."""

    def name(self, digest: bytes) -> str:
        """The name of an offered study, its offer checked."""

    def progress(self, digest: bytes) -> StudyProgress:
        """How far a study is."""

    def certificate_ends(self) -> datetime | None:
        """When the certificate ends that the coordinator showed last."""

    def now(self, now: float) -> float:
        """The coordinator's time, seconds since 1970, when this machine's clock shows ``now``."""


class AnswersByLine:
    """The coordinator's answers over this site's connection.

    Args:
        folder: the site's.
        connection: of the running site, which several threads may use.
    """

    def __init__(self, folder: SiteFolder, connection: Connection) -> None:
        self._connection, self._coordinator = connection, folder.enrolment().coordinator

    def offers(self) -> Sequence[bytes]:
        """The digests of the studies that are offered."""
        return list_offers(self._connection)

    def name(self, digest: bytes) -> str:
        """The name of an offered study, its offer checked."""
        return fetch_offer(self._connection, digest).check(self._coordinator)[0].name

    def progress(self, digest: bytes) -> StudyProgress:
        """How far a study is."""
        return fetch_progress(self._connection, digest)

    def certificate_ends(self) -> datetime | None:
        """When the certificate ends that the coordinator showed last."""
        return self._connection.certificate_ends()

    def now(self, now: float) -> float:
        """The coordinator's time."""
        return now - self._connection.clock_ahead_s


def site_courier(folder: SiteFolder, connection: Connection) -> Courier | None:
    """Return what sends this site's notices; None if ``site.toml`` has no ``[notices]``.

    Raises:
        SettingsError: a file that ``[notices]`` or ``[proxy]`` names, or the outbox, is unusable.
    """
    settings = folder.settings().notices
    if settings is None:
        return None
    proxy = proxy_of(folder)
    return open_courier(
        settings,
        folder.path,
        sender_of(folder),
        SiteLookout(folder, settings, AnswersByLine(folder, connection)),
        proxy=None if proxy is None else proxy.for_httpx(),
    )


def sender_of(folder: SiteFolder) -> Sender:
    """Return this site as notices name it.

    Raises:
        SettingsError: it is not enrolled.
    """
    return Sender(side="site", name=folder.owner(), identity=folder.identity().public)


class SiteLookout:
    """Finds what is to be told at a site.

    Args:
        folder: the site's.
        settings: ``[notices]``.
        answers: what the coordinator says.
        free: returns the free bytes of the disk that holds a folder.
    """

    def __init__(
        self,
        folder: SiteFolder,
        settings: NoticeSettings,
        answers: CoordinatorAnswers,
        *,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._folder, self._settings, self._answers, self._free = folder, settings, answers, free
        authority = load_der_x509_certificate(folder.enrolment().authority)
        self._authority_ends = authority.not_valid_after_utc
        self._notes = DecisionNotes(folder.path / "approvals")
        self._began: float | None = None
        self._ask_after = float("-inf")
        self._skipped = set[bytes]()  # studies of which this coordinator tells nothing usable

    def look(self, marks: Mapping[str, str], now: float) -> Look:
        """Look once."""
        self._began = now if self._began is None else min(self._began, now)
        asked, changed = self._look_at_coordinator(marks, now)
        disk, disk_marks = look_at_disk(self._settings, self._free(self._folder.path), marks, now)
        ends = (("server", self._answers.certificate_ends()), ("authority", self._authority_ends))
        theirs = datetime.fromtimestamp(self._answers.now(now), UTC)
        ending = look_at_certificates(self._settings, ends, theirs)
        return Look(events=[*asked, *disk, *ending], marks=changed | disk_marks)

    def _look_at_coordinator(
        self, marks: Mapping[str, str], now: float
    ) -> tuple[list[NoticeEvent], Marks]:
        """Ask what is offered and how far studies are; if nobody answers for long, say so."""
        if now >= self._ask_after:
            self._ask_after = float("-inf")
            try:
                offered = self._answers.offers()
                events, changed = self._look_at_offers(offered, marks, now)
                further, more = self._look_at_progress({**marks, **_set(changed)})
                return [*events, *further], changed | more | {REACHED_MARK: str(int(now))}
            except (AuthenticationError, UnreachableError, ProtocolError) as error:
                log.debug("notices: %s", error)
                if error.case == "not-accepted":
                    self._ask_after = now + REFUSED_REST_S
        reached = marks.get(REACHED_MARK, "0")
        away_s = now - max(float(reached), self._began or now)
        if away_s < 60 * self._settings.missing_minutes:
            return [], {}
        return [NoticeEvent(kind="coordinator-unreachable", once=reached)], {}

    def _look_at_offers(
        self, offered: Sequence[bytes], marks: Mapping[str, str], now: float
    ) -> tuple[list[NoticeEvent], Marks]:
        """Return what there is to say of studies that nobody here has decided about."""
        approved = set(approvals_of(self._folder).digests())
        wanted = {f"offer {digest.hex()}" for digest in (*offered, *approved)}
        events: list[NoticeEvent] = []
        changed: Marks = {
            mark: None for mark in marks if mark.startswith("offer ") and mark not in wanted
        }
        new = 0
        for digest in offered:
            mark = f"offer {digest.hex()}"
            if mark not in marks:
                if digest in self._skipped or (new := new + 1) > MOST_NEW_OFFERS:
                    continue
                name = self._asked(digest, self._answers.name)
                if name is None:
                    continue
                changed[mark] = f"{int(now)} {name}"
            since, _, name = {**marks, **_set(changed)}[mark].partition(" ")
            if digest not in approved:
                events += self._of_undecided(digest, name, float(since), now)
        return events, changed

    def _of_undecided(
        self, digest: bytes, name: str, since: float, now: float
    ) -> list[NoticeEvent]:
        """Return the offer itself, and a reminder for each day on which nobody has decided."""
        study: dict[str, Any] = {"study": name, "study_digest": digest.hex()[:16]}
        try:
            note = self._notes.find(digest)
        except SettingsError as error:  # a damaged one decides nothing
            log.warning("%s", error)
            note = None
        if note is not None and note.state == "waiting":
            days = days_since(datetime.fromisoformat(note.at).timestamp(), now)
            once = f"{note.at} {days}"
            return [NoticeEvent(kind="approval-waiting", once=once, case="persons", **study)]
        if note is not None:
            return []  # somebody has refused or withdrawn
        events = [NoticeEvent(kind="study-offered", once="", **study)]
        if days := days_since(since, now):
            events.append(NoticeEvent(kind="approval-waiting", once=str(days), **study))
        return events

    def _look_at_progress(self, marks: Mapping[str, str]) -> tuple[list[NoticeEvent], Marks]:
        """Return void rounds and ends of approved studies, but none of before notices began."""
        events: list[NoticeEvent] = []
        changed: Marks = {}
        for digest in approvals_of(self._folder).digests():
            mark = f"progress {digest.hex()}"
            known = marks.get(mark)
            if known in ENDED or digest in self._skipped:
                continue
            progress = self._asked(digest, self._answers.progress)
            if progress is None:
                continue
            name = self._name(digest, marks)
            seen = known is not None or REACHED_MARK in marks  # or notices have just begun
            told = int(known) if known is not None else 0 if seen else None
            last = max((*progress.void_rounds, told or 0))
            study: dict[str, Any] = {"study": name, "study_digest": digest.hex()[:16]}
            if told is not None:
                events += [
                    NoticeEvent(kind="round-void", once="", round=number, **study)
                    for number in progress.void_rounds
                    if number > told
                ]
            if progress.state in ENDED:
                if seen:
                    events.append(
                        NoticeEvent(kind="study-finished", once="", case=progress.state, **study)
                    )
                changed[mark] = progress.state
            else:
                changed[mark] = str(last)
        return events, changed

    def _asked(self, digest: bytes, ask: Callable[[bytes], A]) -> A | None:
        """Ask about a study; None, and no more until a restart, if what is told cannot be used.

        A coordinator of an older version does not tell how far a study is.

        Raises:
            UnreachableError: nobody answers. AuthenticationError: this site is not accepted, or the
                coordinator shows another certificate, which one whose own has expired renews.
        """
        try:
            return ask(digest)
        except UnreachableError:
            raise
        except ConsiliumError as error:
            if error.case in ("not-accepted", "certificate"):
                raise
            log.info("no notices of study %s: %s", digest.hex()[:16], error)
            self._skipped.add(digest)
            return None

    def _name(self, digest: bytes, marks: Mapping[str, str]) -> str:
        """Return the name of an approved study."""
        known = marks.get(f"offer {digest.hex()}")
        if known is not None:
            return known.partition(" ")[2]
        try:
            approval = approvals_of(self._folder).find(digest)
        except SettingsError as error:
            log.warning("%s", error)
            approval = None
        return digest.hex()[:16] if approval is None else approval.study.name


def _set(changed: Marks) -> dict[str, str]:
    return {name: value for name, value in changed.items() if value is not None}
