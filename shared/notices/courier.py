"""Sends what waits in the outbox, in threads of its own, and looks for what is to be told.

One thread looks; one sends mail; one posts to each web address. A server that is dead or slow holds
up its own thread and nothing else: no round, no other address, and no event, for all of these are
read from what is on disk anyway.
"""

import hashlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from consilium.shared.errors import ConsiliumError, SettingsError
from consilium.shared.notices.kinds import NoticeEvent, Sender
from consilium.shared.notices.mail import send_mail
from consilium.shared.notices.outbox import FILE_NAME, Delivery, Notice, Outbox
from consilium.shared.notices.settings import NoticeSettings, mail_address
from consilium.shared.notices.webhook import post

LONGEST_WAIT_S = 60.0
END_WITHIN_S = 3.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a look found: events, and what to note of the sources (None: forget it)."""

    events: Sequence[NoticeEvent]
    marks: Mapping[str, str | None] = field(default_factory=dict)


class Lookout(Protocol):
    """Finds what is to be told, in this side's files and at the other side."""

    def look(self, marks: Mapping[str, str], now: float) -> Look:
        """Look once.

        Args:
            marks: what former looks noted.
            now: seconds since 1970.
        """


class Addresses:
    """Whoever gets the notices, by the names that the outbox has for them.

    Args:
        settings: ``[notices]``.
        folder: where the files that they name lie.
        proxy: for webhooks; None leaves that to ``HTTPS_PROXY``.

    Raises:
        SettingsError: the file with more authorities cannot be used.
    """

    def __init__(
        self, settings: NoticeSettings, folder: Path, *, proxy: httpx.Proxy | None = None
    ) -> None:
        self._settings, self._folder, self._proxy = settings, folder, proxy
        self._context = _context(settings, folder)
        self._mail = {
            f"mail to {mail_address(to).addr_spec}": to
            for to in (settings.mail.to if settings.mail else ())
        }
        self._urls = {
            _webhook_name(url): url for url in (settings.webhook.urls if settings.webhook else ())
        }

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """The names, those together that one thread serves."""
        mail = (tuple(self._mail),) if self._mail else ()
        return (*mail, *((name,) for name in self._urls))

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return (*self._mail, *self._urls)

    def send(self, notice: Notice, name: str, now: float) -> str:
        """Send a notice to one of them; return what its server said.

        Raises:
            UnreachableError: it was not taken; SettingsError: a file cannot be used.
        """
        if name in self._mail and self._settings.mail is not None:
            to = self._mail[name]
            return send_mail(notice, to, self._settings.mail, self._folder, self._context)
        if self._settings.webhook is None:
            raise SettingsError(f"no address {name} is in the settings")
        return post(
            notice,
            self._urls[name],
            self._settings.webhook,
            self._folder,
            self._context,
            proxy=self._proxy,
            now=now,
        )


class Courier:
    """Looks and sends until it is closed.

    Args:
        settings: ``[notices]``.
        outbox: what waits, and what became of it.
        lookout: finds what is to be told.
        addresses: whom to tell.
        clock: returns seconds since 1970.
    """

    def __init__(
        self,
        settings: NoticeSettings,
        outbox: Outbox,
        lookout: Lookout,
        addresses: Addresses,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._outbox, self._clock = settings, outbox, clock
        self._lookout, self._addresses = lookout, addresses
        self._stop = threading.Event()
        self._wake = {line: threading.Event() for line in addresses.lines}
        self._sent: set[tuple[str, str]] = set()  # taken, but not noted yet: the disk is full
        self._said = ""
        self._threads = [
            threading.Thread(target=self._watch, name="notices", daemon=True),
            *(
                threading.Thread(target=self._serve, args=(line,), name="notices out", daemon=True)
                for line in addresses.lines
            ),
        ]

    def start(self) -> None:
        """Begin to look and to send."""
        for thread in self._threads:
            thread.start()

    def close(self, *, within_s: float = END_WITHIN_S) -> None:
        """Stop; what is being sent may end first, if it does so in time."""
        self._stop.set()
        for event in self._wake.values():
            event.set()
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def look(self) -> None:
        """Look once, note what was found, and make notices of it."""
        now, marks = self._clock(), self._outbox.marks()
        found = self._lookout.look(marks, now)
        wanted = [event for event in found.events if event.kind in self._settings.kinds]
        changed = {name: mark for name, mark in found.marks.items() if marks.get(name) != mark}
        if wanted or changed:
            self._outbox.note(wanted, changed)
        quiet_s = 60 * self._settings.quiet_minutes
        self._outbox.form(self._addresses.names, quiet_s=quiet_s, now=now)

    def send_next(self, line: Sequence[str]) -> bool:
        """Try what is due next at one of these addresses; return whether anything was."""
        delivery = self._outbox.begin(
            line, first_pause_s=self._settings.look_every_s, now=self._clock()
        )
        if delivery is None:
            return False
        known = (delivery.notice.id, delivery.address)
        said = "it was taken before"
        if known not in self._sent:
            try:
                said = self._addresses.send(delivery.notice, delivery.address, self._clock())
            except ConsiliumError as error:
                self._note_failure(delivery, str(error))
                return True
        self._sent.add(known)
        self._outbox.delivered(delivery, said=said, now=self._clock())
        self._sent.discard(known)
        log.info("notice %s (%s): taken", delivery.notice.id, delivery.notice.kind)
        return True

    def _note_failure(self, delivery: Delivery, why: str) -> None:
        over = self._outbox.failed(delivery, said=why, now=self._clock())
        log.warning(
            "notice %s (%s) was not taken, attempt %d%s: %s",
            delivery.notice.id, delivery.notice.kind, delivery.attempts,
            ", the last one" if over else "", why,
        )  # fmt: skip

    def _watch(self) -> None:
        self._trying(lambda: self._outbox.give_up_others(self._addresses.names, now=self._clock()))
        while not self._stop.is_set():
            self._trying(self.look)
            for event in self._wake.values():
                event.set()
            self._stop.wait(self._settings.look_every_s)

    def _serve(self, line: tuple[str, ...]) -> None:
        wake = self._wake[line]
        while not self._stop.is_set():
            wake.clear()
            more = True
            while more and not self._stop.is_set():
                more = self._trying(lambda: self.send_next(line)) is True
            wake.wait(min(LONGEST_WAIT_S, self._settings.look_every_s))

    def _trying(self, work: Callable[[], object]) -> object:
        """Do it; what goes wrong is logged, once while it stays the same, and tried again later."""
        try:
            done = work()
        except ConsiliumError as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("notices: %s", error)
            return None
        except Exception:  # a defect here must end neither the notices nor a study
            if not self._stop.is_set():  # or the connection was closed with the process
                log.exception("notices: an unforeseen error")
            return None
        return done


def open_courier(
    settings: NoticeSettings,
    folder: Path,
    sender: Sender,
    lookout: Lookout,
    *,
    proxy: httpx.Proxy | None = None,
) -> Courier:
    """Return a courier with the outbox in this side's folder; it does nothing before it is started.

    Raises:
        SettingsError: the outbox, or the file with more authorities, cannot be used.
    """
    outbox = Outbox(folder / FILE_NAME, sender)
    return Courier(settings, outbox, lookout, Addresses(settings, folder, proxy=proxy))


@contextmanager
def sending(open_one: Callable[[], Courier | None]) -> Iterator[None]:
    """Send notices while the context is open; without them, studies go on all the same.

    Args:
        open_one: opens the courier; None if nobody is to be told anything.
    """
    try:
        courier = open_one()
    except ConsiliumError as error:
        log.error("no notices are sent: %s", error)
        courier = None
    if courier is not None:
        courier.start()
    try:
        yield
    finally:
        if courier is not None:
            courier.close()


def _webhook_name(url: str) -> str:
    """Return a name that tells addresses apart; a path may hold a secret, so it is not shown."""
    return f"webhook at {urlsplit(url).hostname} ({hashlib.sha256(url.encode()).hexdigest()[:6]})"


def _context(settings: NoticeSettings, folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.authority is not None:
        file = folder / settings.authority
        try:
            context.load_verify_locations(file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"{file}: is no file of certificates ({error.strerror or type(error).__name__}); "
                "[notices] authority names it"
            ) from None
    return context
