"""When a hospital's machine may work for studies, in the hospital's own time."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, kw_only=True)
class WorkingHours:
    """The same span of hours on some weekdays; if ``end`` is before ``start``, past midnight.

    Attributes:
        days: weekdays on which the span starts.
        start: when it starts; it ends just before ``end``. If both are equal it lasts 24 hours.
    """

    days: frozenset[str]
    start: time
    end: time

    def allow(self, now: datetime) -> bool:
        """Return whether ``now``, in local time, lies in today's span or in yesterday's."""
        moment, today = now.time(), DAYS[now.weekday()]
        yesterday = DAYS[(now - timedelta(days=1)).weekday()]
        if self.start < self.end:
            return today in self.days and self.start <= moment < self.end
        begun = today in self.days and moment >= self.start
        return begun or (yesterday in self.days and moment < self.end)

    def __str__(self) -> str:
        days = ", ".join(day for day in DAYS if day in self.days)
        return f"{self.start:%H:%M} to {self.end:%H:%M} ({days})"
