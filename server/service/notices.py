"""What the coordinator's operator is told of: read from register, audit log, disk and certificate.

Whatever is told stands on disk already, and the audit log is read on from the entry that was noted
with the events before it, so a crash at any moment loses none and adds none.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.register import Register, State, Submitted
from consilium.server.service.monitor import free_bytes
from consilium.shared.audit.events import AuditEvent, RoundClosed
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.tail import AuditTail
from consilium.shared.notices.courier import Courier, Look, open_courier
from consilium.shared.notices.kinds import NoticeEvent, Sender
from consilium.shared.notices.settings import NoticeSettings
from consilium.shared.notices.spans import days_since, look_at_certificates, look_at_disk

ENTRY_MARK = "audit-entry"


def coordinator_courier(folder: CoordinatorFolder) -> Courier | None:
    """Return what sends the coordinator's notices; None if its settings have no ``[notices]``.

    Raises:
        SettingsError: ``[notices]`` is wrong, or a file that it names or the outbox is unusable.
    """
    settings = folder.notices()
    if settings is None:
        return None
    return open_courier(
        settings, folder.path, sender_of(folder), CoordinatorLookout(folder, settings)
    )


def sender_of(folder: CoordinatorFolder) -> Sender:
    """Return the coordinator as notices name it."""
    return Sender(side="coordinator", name="", identity=folder.identity().public)


class CoordinatorLookout:
    """Finds what is to be told at the coordinator.

    Args:
        folder: the coordinator's.
        settings: ``[notices]``.
        free: returns the free bytes of the disk that holds a folder.
        clock: returns seconds since 1970.
    """

    def __init__(
        self,
        folder: CoordinatorFolder,
        settings: NoticeSettings,
        *,
        free: Callable[[str], int] = free_bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._settings, self._free = folder, settings, free
        self._register: Register = folder.register()
        self._tail = AuditTail(folder.path / AUDIT_FILE)
        self._last = 0
        self._void: list[tuple[int, NoticeEvent]] = []  # read, and perhaps not noted: a full disk
        self._began = clock()  # nobody is missing before there was somebody to come to

    def look(self, marks: Mapping[str, str], now: float) -> Look:
        """Look once."""
        studies = self._register.studies()
        void, entry = self._look_at_log(studies, marks)
        ended, closed = _look_at_ends(studies, marks)
        waiting, since = _look_at_approvals(studies, marks, now)
        disk, disk_marks = look_at_disk(
            self._settings, self._free(str(self._folder.path)), marks, now
        )
        certificates = self._folder.certificates
        ends = (("server", certificates.expires()), ("authority", certificates.authority_expires()))
        ending = look_at_certificates(self._settings, ends, datetime.fromtimestamp(now, UTC))
        return Look(
            events=[
                *(*void, *ended, *waiting),
                *(*self._look_at_sites(studies, now), *disk, *ending),
            ],
            marks=entry | closed | since | disk_marks,
        )

    def _look_at_log(
        self, studies: tuple[Submitted, ...], marks: Mapping[str, str]
    ) -> tuple[list[NoticeEvent], dict[str, str | None]]:
        """Return what the log says since the last look; at the very first, nothing."""
        names = {study.digest: study.name for study in studies}
        for entry in self._tail.read():
            self._last = entry.number
            self._void += [(entry.number, event) for event in _void_rounds(entry.event, names)]
        known = marks.get(ENTRY_MARK)
        noted = self._last if known is None else int(known)
        self._void = [(number, event) for number, event in self._void if number > noted]
        return [event for _, event in self._void], {ENTRY_MARK: str(self._last)}

    def _look_at_sites(self, studies: tuple[Submitted, ...], now: float) -> list[NoticeEvent]:
        """Return an event for each site of an open study that has not asked for work for long."""
        wanted = {
            site for study in studies if study.open for site in set(study.roster) - study.gone
        }
        bound_s, events = 60 * self._settings.missing_minutes, []
        for member in self._register.members():
            seen = member.enrolled if member.seen is None else member.seen
            away_s = now - max(seen, self._began)
            if member.name in wanted and member.revoked is None and away_s >= bound_s:
                events.append(
                    NoticeEvent(kind="site-missing", once=f"{seen:.3f}", sites=(member.name,))
                )
        return events


def _void_rounds(event: AuditEvent, names: Mapping[bytes, str]) -> list[NoticeEvent]:
    """Return what an entry of the log is to people if it is a void round; never the reason."""
    if not isinstance(event, RoundClosed) or event.void is None or event.study_digest not in names:
        return []
    return [
        NoticeEvent(
            kind="round-void",
            once=event.study_hash.hex(),
            study=names[event.study_digest],
            study_digest=event.study_digest.hex()[:16],
            round=event.round,
        )
    ]


def _look_at_ends(
    studies: tuple[Submitted, ...], marks: Mapping[str, str]
) -> tuple[list[NoticeEvent], dict[str, str | None]]:
    """Return an event for each study that has ended since the last look; at the first, none."""
    ended = [study for study in studies if not study.open]
    events = [
        NoticeEvent(
            kind="study-finished",
            once="",
            study=study.name,
            study_digest=study.digest.hex()[:16],
            case="finished" if study.state is State.FINISHED else "stopped",
        )
        for study in ended
        if ENTRY_MARK in marks and f"ended {study.digest.hex()}" not in marks
    ]
    return events, {f"ended {study.digest.hex()}": "" for study in ended}


def _look_at_approvals(
    studies: tuple[Submitted, ...], marks: Mapping[str, str], now: float
) -> tuple[list[NoticeEvent], dict[str, str | None]]:
    """Return an event a day for each study whose hospitals have not all approved it."""
    events: list[NoticeEvent] = []
    changed: dict[str, str | None] = {}
    for study in studies:
        mark = f"waiting {study.digest.hex()}"
        sites = tuple(site for site in study.undeclared if site not in study.gone)
        if not (sites and study.open):
            if mark in marks:
                changed[mark] = None
            continue
        since = float(marks.get(mark, now))
        changed[mark] = str(int(since))
        if days := days_since(since, now):
            events.append(
                NoticeEvent(
                    kind="approval-waiting",
                    once=str(days),
                    study=study.name,
                    study_digest=study.digest.hex()[:16],
                    sites=sites,
                )
            )
    return events, changed
