"""The site's metrics, in a file: since a site never listens, Prometheus cannot query it.

``metrics.prom`` in the site's folder is in Prometheus's text format, for the textfile collector of
its node exporter (https://github.com/prometheus/node_exporter#textfile-collector). The file is
never sent, and only the site's account may read it.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from consilium.client.ledger.releases import Account
from consilium.client.ledger.store import Ledger
from consilium.client.round.answer import Answer, Answers
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.secure_sum.messages import Action
from consilium.shared.service.prometheus import Metric, Sample, gauge, to_text

FILE_NAME = "metrics.prom"
EVERY_S = 10.0

log = logging.getLogger(__name__)


class Measurements:
    """Passes messages on, counts the answers, and writes the counts at most every ten seconds.

    Args:
        answers: answers the messages.
        folder: the site's folder, which gets the file.
        ledger: gives the budget that is left.
        tell: called with the lifetime epsilon left at each writing, unless None.
        clock: returns seconds since 1970.
    """

    def __init__(
        self,
        answers: Answers,
        folder: Path,
        ledger: Ledger,
        *,
        tell: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._answers, self._file, self._ledger = answers, folder / FILE_NAME, ledger
        self._clock, self._tell = clock, tell
        self._messages: Counter[tuple[str, str]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._started = clock()
        self._last_message: float | None = None
        self._written = float("-inf")
        self.write()

    @property
    def site(self) -> str:
        """The site's name."""
        return self._answers.site

    def handle(self, action: Action, body: bytes) -> Answer:
        """Answer one message and count it, even if the file cannot be written."""
        began = self._clock()
        answer = self._answers.handle(action, body)
        self._last_message = self._clock()
        outcome = answer.refusal.code if answer.refusal else "ok"
        self._messages[action.value, outcome] += 1
        self._seconds[action.value] += self._last_message - began
        if self._last_message - self._written >= EVERY_S:
            self.write()
        return answer

    def write(self) -> None:
        """Write the file now; a failure is only logged."""
        self._written = self._clock()
        total = self._ledger.summary().total
        if self._tell is not None:
            self._tell(total.left)
        try:
            write_atomically(self._file, to_text(self._metrics(total)).encode(), mode=0o600)
        except OSError as error:
            log.warning("%s could not be written: %s", self._file, error.strerror)

    def _metrics(self, total: Account) -> list[Metric]:
        site = self._answers.site
        return [
            gauge("consilium_site_started_seconds", "When it started.", self._started, site=site),
            gauge(
                "consilium_site_last_message_seconds",
                "When the last message was answered.",
                self._last_message,
                site=site,
            ),
            Metric(
                name="consilium_site_messages_total",
                help="Messages answered, by action and outcome (ok, or the refusal's code).",
                kind="counter",
                samples=tuple(
                    Sample(value=count, labels={"site": site, "action": action, "outcome": outcome})
                    for (action, outcome), count in sorted(self._messages.items())
                ),
            ),
            Metric(
                name="consilium_site_answer_seconds_total",
                help="Seconds spent on answers, by action.",
                kind="counter",
                samples=tuple(
                    Sample(value=round(seconds, 6), labels={"site": site, "action": action})
                    for action, seconds in sorted(self._seconds.items())
                ),
            ),
            gauge(
                "consilium_site_epsilon_spent",
                "Lifetime privacy budget spent or reserved, epsilon.",
                total.spent + total.reserved,
                site=site,
            ),
            gauge(
                "consilium_site_epsilon_left",
                "Lifetime privacy budget left, epsilon.",
                total.left,
                site=site,
            ),
        ]
