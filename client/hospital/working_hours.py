"""When a hospital's machine may work for studies, in the hospital's own time."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, kw_only=True)
class WorkingHours:
    """A span of each of some weekdays; one that ends before it starts goes over midnight.

    Attributes:
        days: weekdays on which the span starts.
        start: first moment; ``end`` is the first moment after it. Equal means 24 hours.
    """

    days: frozenset[str]
    start: time
    end: time

    def allow(self, now: datetime) -> bool:
        """Tell whether ``now``, in local time, lies in the span of a day or of the day before."""
        moment, today = now.time(), DAYS[now.weekday()]
        yesterday = DAYS[(now - timedelta(days=1)).weekday()]
        if self.start < self.end:
            return today in self.days and self.start <= moment < self.end
        begun = today in self.days and moment >= self.start
        return begun or (yesterday in self.days and moment < self.end)

    def __str__(self) -> str:
        days = ", ".join(day for day in DAYS if day in self.days)
        return f"{self.start:%H:%M} to {self.end:%H:%M} ({days})"
