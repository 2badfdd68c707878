"""Wrong passwords make the next try wait: three are free, then 1 s, 2 s, 4 s, up to a minute."""

import threading
import time
from collections.abc import Callable

FREE_TRIES = 3
LONGEST_S = 60.0


class BackOff:
    """Counts wrong passwords by name; whoever waits is not checked at all.

    Names that nobody has share one count, so that a stranger's words take no memory.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: dict[str, tuple[int, float]] = {}

    def wait_s(self, name: str) -> float:
        """Return how many seconds are left until this name may be tried again."""
        with self._lock:
            return self._left(name)

    def begin(self, name: str) -> float:
        """Return 0 and count a try as wrong until :meth:`succeeded`, or the seconds to wait.

        Counting before the check, so that tries side by side do not share one count.
        """
        with self._lock:
            left = self._left(name)
            if left == 0:
                count = self._failed.get(name, (0, 0.0))[0] + 1
                late = count - FREE_TRIES
                pause = min(LONGEST_S, 2.0 ** min(late, 10)) if late >= 0 else 0.0
                self._failed[name] = (count, self._clock() + pause)
            return left

    def succeeded(self, name: str) -> None:
        """Forget the wrong tries of a name."""
        with self._lock:
            self._failed.pop(name, None)

    def _left(self, name: str) -> float:
        return max(0.0, self._failed.get(name, (0, 0.0))[1] - self._clock())
