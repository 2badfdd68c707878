"""Keeps the coordinator's processes alive: the service, and one for each study that is to run.

A process that ends too early is started again, after a pause that grows each time. When the
supervisor is killed, its children notice within a fraction of a second, and end.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

from consilium.server.coordinator.certificates import renew_in_time
from consilium.server.coordinator.folder import CoordinatorFolder, hold_lock
from consilium.server.coordinator.register import Register, State, Wanted
from consilium.server.service.monitor import (
    Monitor,
    certificate_ailments,
    disk_ailments,
    free_bytes,
)
from consilium.server.service.notices import coordinator_courier
from consilium.server.service.operator_page import read_page, sign_in_elsewhere
from consilium.server.service.overview import status
from consilium.shared.audit.configuration import note_configuration
from consilium.shared.audit.own_log import open_audit
from consilium.shared.errors import SettingsError
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.notices.courier import sending
from consilium.shared.web.users import FILE_NAME as USERS_FILE

LOOK_EVERY_S = 0.25
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0
STEADY_S = 30.0  # a child that lived this long starts again without a pause
END_WITHIN_S = 10.0
RENEW_EVERY_S = 3600.0

_ASKED_FOR = {Wanted.PAUSE: State.PAUSED, Wanted.STOP: State.STOPPED}

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Child:
    """A child process, and the earliest time to start it again."""

    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    not_before: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self.process is not None and self.process.poll() is None

    def keep_alive(self, name: str) -> None:
        """Start the child if it does not run."""
        now = time.monotonic()
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            lived_s = now - self.started
            self.pause_s = (
                FIRST_PAUSE_S if lived_s > STEADY_S else min(2 * self.pause_s, LONGEST_PAUSE_S)
            )
            self.process, self.not_before = None, now + self.pause_s
            if code != 0:
                log.warning(
                    "%s ended with status %d after %.0f s; starting it again in %.1f s",
                    name, code, lived_s, self.pause_s,
                )  # fmt: skip
        if now >= self.not_before:
            self.started = now
            self.process = subprocess.Popen(self.command)  # noqa: S603 - our own interpreter

    def end(self) -> None:
        """Ask the child to end; kill it if it does not."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


class Supervisor:
    """Keeps the service and the studies' processes running.

    Args:
        folder: the coordinator's.
        patience_s: see :func:`consilium.server.service.study_process.run_submitted`.
        monitor_port: for health and measurements on this machine alone; None for no monitor.
    """

    def __init__(
        self, folder: CoordinatorFolder, *, patience_s: float, monitor_port: int | None = None
    ) -> None:
        self._folder, self._patience_s = folder, patience_s
        self._register: Register = folder.register()
        self._service = _Child(command=self._command("serve"))
        self._studies: dict[bytes, _Child] = {}
        self._certificate = self._certificate_stamp()
        self._stop = threading.Event()
        self._monitor_port = monitor_port
        self._looked = time.monotonic()
        self._renew_at = 0.0

    def run(self) -> None:
        """Supervise until told to stop.

        Raises:
            SettingsError: another process supervises this folder.
        """
        lock = hold_lock(
            self._folder.path / "lock",
            refused=f"{self._folder.path}: a coordinator runs in this folder already",
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        monitor: Monitor | None = None
        try:
            note_configuration(open_audit(self._folder), self._folder.path, ("coordinator.toml",))
            monitor = self._monitor()
            with sending(lambda: coordinator_courier(self._folder)):
                while not self._stop.wait(LOOK_EVERY_S):
                    self._looked = time.monotonic()
                    self._look_after_service()
                    self._look_after_studies()
        finally:
            if monitor is not None:
                monitor.close()
            for child in (*self._studies.values(), self._service):
                child.end()
            os.close(lock)

    def _monitor(self) -> Monitor | None:
        """Start the monitor; if that fails, studies run without it."""
        if self._monitor_port is None:
            return None
        try:
            return Monitor(
                self._monitor_port,
                status=lambda: status(self._folder, self._register),
                ailments=self._ailments,
                page=self._page,
            )
        except SettingsError as error:
            log.warning("%s", error)
            return None

    def _page(self, found: JsonRecord, wrong: list[str]) -> str:
        """Return the page, or where to sign in for it once a person was added who may."""
        if (self._folder.path / USERS_FILE).exists():
            return sign_in_elsewhere()
        return read_page(self._folder, found, wrong)

    def _ailments(self) -> list[str]:
        """Return one sentence for each thing that is wrong now."""
        wrong = []
        if time.monotonic() - self._looked > LONGEST_PAUSE_S:
            wrong.append("the supervisor has not looked after its processes; start it again")
        if not self._service.alive:
            wrong.append("the service does not run; see the log for why it ended")
        wrong += [
            f"the process of study {digest.hex()[:16]} does not run; see the log for why it ended"
            for digest, child in list(self._studies.items())
            if not child.alive
        ]
        ends = self._folder.certificates.expires()
        wrong += certificate_ailments(ends, datetime.now(UTC))
        return wrong + disk_ailments(free_bytes(str(self._folder.path)))

    def _look_after_service(self) -> None:
        """Keep the service running; a renewed certificate needs a new process."""
        self._renew_certificate()
        stamp = self._certificate_stamp()
        if stamp != self._certificate:
            log.info("the server certificate was renewed; starting the service again")
            self._service.end()
            self._service.not_before = 0.0
            self._certificate = stamp
        self._service.keep_alive("the service")

    def _renew_certificate(self) -> None:
        """Renew the server certificate before it ends; what fails is tried again an hour later."""
        if time.monotonic() < self._renew_at:
            return
        self._renew_at = time.monotonic() + RENEW_EVERY_S
        try:
            if renew_in_time(self._folder.certificates):
                log.info("the server certificate ended soon and was renewed")
        except (SettingsError, OSError) as error:
            log.warning("the server certificate could not be renewed: %s", error)

    def _look_after_studies(self) -> None:
        for study in self._register.studies():
            wanted = study.wanted is Wanted.RUN and study.open
            if wanted and study.digest not in self._studies:
                command = self._command("run-study", study.digest.hex())
                command += ["--patience", f"{self._patience_s:g}"]
                self._studies[study.digest] = _Child(command=command)
            child = self._studies.get(study.digest)
            if child is None:
                continue
            if wanted:
                child.keep_alive(f"study {study.name}")
            elif child.process is None or child.process.poll() is not None:
                del self._studies[study.digest]
        for study in self._register.studies():
            asked = _ASKED_FOR.get(study.wanted)
            silent = study.digest not in self._studies  # no process of its own to note its state
            if asked and study.open and study.state is not asked and silent:
                self._register.note(study.digest, asked)

    def _command(self, *words: str) -> list[str]:
        return [
            sys.executable, "-P", "-m", "consilium.server", *words,
            "--folder", str(self._folder.path), "--parent", str(os.getpid()),
        ]  # fmt: skip

    def _certificate_stamp(self) -> int:
        return self._folder.certificates.server.stat().st_mtime_ns

    def _ask_to_stop(self, _: int, __: FrameType | None) -> None:
        self._stop.set()
