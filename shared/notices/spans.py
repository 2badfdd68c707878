"""Looks that both sides take: a disk that is nearly full, certificates that end, days that pass."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from consilium.shared.notices.kinds import NoticeEvent
from consilium.shared.notices.settings import NoticeSettings

DISK_MARK = "disk"
DAY_S = 86_400.0
AGAIN_ABOVE = 1.1  # of the bound: more than so much free, and the next time is another one


def look_at_disk(
    settings: NoticeSettings, free_bytes: int, marks: Mapping[str, str], now: float
) -> tuple[list[NoticeEvent], dict[str, str | None]]:
    """Return an event while the disk is nearly full, the same until there was room; and marks.

    Args:
        settings: with the bound.
        free_bytes: of the disk that holds this side's folder.
        marks: of former looks.
        now: seconds since 1970.
    """
    bound = settings.disk_free_mib << 20
    since = marks.get(DISK_MARK)
    if since is not None and free_bytes > AGAIN_ABOVE * bound:
        return [], {DISK_MARK: None}
    if since is None and free_bytes >= bound:
        return [], {}
    since = since or str(int(now))
    return [NoticeEvent(kind="disk-nearly-full", once=since)], {DISK_MARK: since}


def look_at_certificates(
    settings: NoticeSettings, ends: Iterable[tuple[str, datetime | None]], now: datetime
) -> list[NoticeEvent]:
    """Return an event for each certificate that ends soon; a renewed one is another one.

    Args:
        settings: with how long before.
        ends: ``server`` or ``authority``, and when it ends; None if that is not known.
        now: the time.
    """
    soon = now + timedelta(days=settings.certificate_days)
    return [
        NoticeEvent(
            kind="certificate-ending",
            once=f"{end.timestamp():.0f}",
            day=f"{end:%Y-%m-%d}",
            case=case,
        )
        for case, end in ends
        if end is not None and end <= soon
    ]


def days_since(since: float, now: float) -> int:
    """Return how many whole days have passed; 0 where the clock was put back."""
    return max(0, int((now - since) // DAY_S))
