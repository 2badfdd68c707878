"""A coordinator and its sites as processes on loopback, driven by the commands people type."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from consilium.client.commands.declared_size import chosen_size
from consilium.client.hospital.folder import SiteFolder
from consilium.client.service.connection import Connection
from consilium.client.service.enroll import enrol_request, pin_reply
from consilium.client.service.pinned_connection import approvals_of, connect
from consilium.client.service.site_cohort import site_cohort
from consilium.server.commands.steering import want
from consilium.server.coordinator.enrolment import EnrolmentService, invite, submit
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.coordinator.register import Register, Wanted
from consilium.server.flower.database_link import enrol_node, open_link
from consilium.server.service.overview import overview
from consilium.shared.audit.events import Vouched
from consilium.shared.audit.own_log import open_audit
from consilium.shared.crypto.declaration import Declaration
from consilium.shared.enrolment.fingerprint import fingerprint
from consilium.shared.enrolment.invitation import Invitation
from consilium.shared.enrolment.messages import EnrolReply, StudyOffer
from consilium.shared.study.definition import parse_study

SITES = ("north", "east", "south", "west")
STUDY = """
schema = 1
name = "tiny"
title = "Tiny"
rounds = {rounds}
seed = 7
sites = ["north", "east", "south", "west"]
[data]
source = "physionet2012"
label = "In-hospital_death"
window_h = 12
minimum_patients = 5
[model]
hidden = {hidden}
[training]
local_steps = 1
sampling_rate = 0.5
[privacy]
mode = "{mode}"
epsilon = {epsilon}
[aggregation]
round_timeout_s = {timeout}
[variables]
HR = {{ unit = "/min", low = 10, high = 300, center = 85, spread = 18 }}
GCS = {{ unit = "{{score}}", low = 3, high = 15, center = 12, spread = 4 }}
Age = {{ unit = "a", low = 15, high = 120, center = 64, spread = 17, role = "static" }}
"""
POLICY = """
[privacy]
allow_without_privacy = true
[federation]
minimum_patients = 5
"""
PATIENCE = 4.0  # how much slower than expected a busy machine may be
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Systems hand out ports from 32768 on.
_OWN_PORTS = iter(range(20_000 + 500 * (WORKER % 24), 20_000 + 500 * (WORKER % 24 + 1)))
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "COLUMNS": "200",
}


def tiny_study(
    *,
    rounds: int = 3,
    mode: str = "none",
    epsilon: float = 8.0,
    timeout: float = 20.0,
    hidden: int = 4,
) -> str:
    """A study that a few invented patients suffice for; nobody's data."""
    return STUDY.format(rounds=rounds, mode=mode, epsilon=epsilon, timeout=timeout, hidden=hidden)


def write_records(folder: Path, *, patients: int, seed: int, sites: int = 4) -> None:
    """Write invented stays in the challenge's format; an ICU type for each of the sites."""
    rng = np.random.default_rng(seed)
    place = folder / "set-a"
    place.mkdir(parents=True)
    outcomes = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"]
    for number in range(sites * patients):
        record, died = 132000 + number, int(rng.random() < 0.3)
        age = 40 + int(rng.integers(0, 50))
        lines = [
            "Time,Parameter,Value",
            *(f"00:00,RecordID,{record}", f"00:00,Age,{age}", "00:00,Gender,1"),
            *("00:00,Height,170", f"00:00,ICUType,{number % sites + 1}", "00:00,Weight,80"),
        ]
        for hour in range(0, 12, 2):
            lines.append(f"{hour:02d}:10,HR,{int(80 + 25 * died + rng.normal(0, 8))}")
            lines.append(f"{hour:02d}:20,GCS,{int(np.clip(14 - 5 * died + rng.normal(), 3, 15))}")
        (place / f"{record}.txt").write_text("\n".join(lines) + "\n")
        outcomes.append(f"{record},10,5,7,-1,{died}")
    (folder / "Outcomes-a.txt").write_text("\n".join(outcomes) + "\n")


def free_port() -> int:
    """A port of this machine that nothing listens on, and that nobody else will be given.

    Not one that the system hands out: it could go to any connection before it is used. Each
    process of the tests has ports of its own and takes one after the other.
    """
    for port in _OWN_PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there are no ports left")


@dataclass
class Federation:
    """Folders and processes of one coordinator and its sites."""

    root: Path
    records: Path
    port: int = field(default_factory=free_port)
    sites: Mapping[str, int] = field(
        default_factory=lambda: {s: n + 1 for n, s in enumerate(SITES)}
    )
    policy: str = POLICY
    host: str = "127.0.0.1"
    vouching: bool = True
    wrappers: Mapping[str, list[str]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.root / "coordinator"

    def site(self, name: str) -> Path:
        """A site's folder."""
        return self.root / "sites" / name

    def log(self, name: str) -> Path:
        """Where a process writes what it says."""
        return self.root / f"{name}.log"

    def said(self, name: str) -> str:
        """What a process has said so far."""
        return self.log(name).read_text() if self.log(name).exists() else ""

    # Commands, as people type them.

    def operator(self, *words: str, fails: bool = False) -> str:
        """Run ``consilium-coordinator``."""
        return self._command("server", words, self.coordinator, fails=fails)

    def hospital(
        self, site: str, *words: str, fails: bool = False, said: str = "", name: str = ""
    ) -> str:
        """Run ``consilium-site``, wrapped and in the environment as the process ``name``."""
        return self._command("client", words, self.site(site), fails=fails, said=said, name=name)

    def _command(
        self,
        package: str,
        words: tuple[str, ...],
        folder: Path,
        *,
        fails: bool,
        said: str = "",
        name: str = "",
    ) -> str:
        within = self.wrappers.get(name, [])
        command = [
            *within,
            sys.executable,
            "-m",
            f"consilium.{package}",
            *words,
            "--folder",
            str(folder),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, input=said, env=self._environment(name),
            timeout=120 * PATIENCE, check=False,
        )  # fmt: skip
        told = f"{' '.join(words)}: {done.stdout}{done.stderr}"
        assert (done.returncode != 0) is fails, told
        assert "Traceback" not in done.stderr, told
        return done.stdout + (done.stderr if fails else "")

    def _environment(self, name: str) -> dict[str, str]:
        cleared = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        return cleared | ENVIRONMENT | self.environments.get(name, {})

    # Setting up.

    def make_site(self, site: str, unit: int) -> None:
        """Initialise one site with the records of one intensive-care unit."""
        self.hospital(site, "init", "--site", site)
        with (self.site(site) / "site.toml").open("a") as settings:
            settings.write(self._data_settings(unit))
        (self.site(site) / "policy.toml").write_text(self.policy)

    def enrol(self, *sites: str) -> None:
        """Invite and enrol sites; the coordinator must be running."""
        for site in sites or self.sites:
            token = self.operator("invite", site)
            self.hospital(site, "enroll", "-", said=token)

    def submit(self, text: str, name: str = "tiny", *, approve: bool = True) -> None:
        """Submit a study, and let all sites approve it."""
        file = self.root / f"{name}.toml"
        file.write_text(text)
        self.operator("submit", str(file))
        self.vouch()
        for site in self.sites if approve else ():
            self.hospital(site, "approve", name, "--yes")

    def prepare(self, *texts: str) -> None:
        """Make all folders, enrol, submit and approve, without processes."""
        settings = Settings(name="tests", host=self.host, port=self.port, listen=self.host)
        folder = CoordinatorFolder.make(self.coordinator, settings, (self.host,))
        link, register, audit = (
            open_link(folder.link_database),
            folder.register(),
            open_audit(folder),
        )
        enrolment = EnrolmentService(
            register=register,
            identity=folder.identity(),
            audit=audit,
            nodes=lambda site, key: enrol_node(link, site, key),
        )
        for site, unit in self.sites.items():
            self._enrol_directly(enrolment, invite(folder, site), unit)
        self.vouch()
        for text in texts:
            self.offer(text)

    def offer(self, text: str) -> None:
        """Submit a study, and approve it at its sites, without processes."""
        folder = CoordinatorFolder.open(self.coordinator)
        register, study = folder.register(), parse_study(text)
        submit(register, folder.identity(), open_audit(folder), study, text.encode())
        offered = register.study(study.name)
        offer = StudyOffer(
            text=offered.text,
            roster=dict(offered.roster.members),
            declared={},
            signature=offered.signature,
        )
        for site in study.sites:
            opened = SiteFolder.open(self.site(site))
            found = approvals_of(opened).check(offer)
            size = chosen_size(found, site, site_cohort(opened, study), None)
            declared = Declaration.signed(
                size, study_digest=study.digest, site=site, sign=opened.identity().sign
            )
            register.declare(study.digest, site, declared)
            approvals_of(opened).approve(offer, declared)

    def vouch(self, *by: str, of: str = "") -> None:
        """Let these sites, or all, vouch for all others, or for one, as after telephone calls."""
        folders = [SiteFolder.open(self.site(name)) for name in self.sites if self.vouching]
        prints = {f.owner(): fingerprint(f.owner(), f.identity().public) for f in folders}
        for folder in folders:
            if by and folder.owner() not in by:
                continue
            audit = open_audit(folder)
            for name, known in prints.items():
                if name != folder.owner() and of in ("", name):
                    event = Vouched(hospital=name, fingerprint=known, vouched=True, by="test")
                    folder.vouchers().vouch(name, known, recorded=partial(audit.append, event))

    def _enrol_directly(self, service: EnrolmentService, invitation: Invitation, unit: int) -> None:
        site = SiteFolder.make(self.site(invitation.site), site=invitation.site)
        with (site.path / "site.toml").open("a") as settings:
            settings.write(self._data_settings(unit))
        (site.path / "policy.toml").write_text(self.policy)
        request = enrol_request(site, invitation)
        pin_reply(site, invitation, EnrolReply.from_bytes(service.enrol(request.to_bytes())))
        open_audit(site)

    def _data_settings(self, unit: int) -> str:
        return (
            f'[data]\nsource = "physionet2012"\npath = "{self.records}"\n'
            f"where = {{ ICUType = {unit} }}\n"
        )

    # Processes.

    def start(self, name: str, *words: str) -> None:
        """Start the coordinator or a site."""
        package = "server" if name == "coordinator" else "client"
        folder = self.coordinator if name == "coordinator" else self.site(name)
        patience = ["--patience", "60"] if name == "coordinator" else []
        if name == "coordinator" and "--monitor-port" not in words:
            patience += ["--monitor-port", "0"]
        command = [
            *self.wrappers.get(name, []), sys.executable, "-m", f"consilium.{package}", "start",
            "--folder", str(folder), *patience, *words,
        ]  # fmt: skip
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment(name)
            )

    def serve(self) -> None:
        """Start the coordinator's service alone: the test plays the study's process."""
        folder = str(self.coordinator)
        with self.log("coordinator").open("ab") as log:
            self.processes["coordinator"] = subprocess.Popen(
                [sys.executable, "-m", "consilium.server", "serve", "--folder", folder],
                stdout=log,
                stderr=log,
                env=self._environment("coordinator"),
            )
        self.wait_for(self.is_serving, "the coordinator to serve", 30)

    def line(self, site: str) -> Connection:
        """A site's line to the coordinator, for a test that plays the site."""
        return connect(SiteFolder.open(self.site(site)))

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Kill a process of ours, as a crash would."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(30 * PATIENCE)

    def descendants(self, name: str) -> list[int]:
        """Process identifiers of what a process has started."""
        parent = self.processes[name].pid
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(pid) for pid in listed]

    def children(self) -> dict[str, int]:
        """Process identifiers of the coordinator's service and studies."""
        found = {}
        for pid in self.descendants("coordinator"):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"serve" in words:
                    found["service"] = pid
                if b"run-study" in words:
                    found["study"] = pid
        return found

    def close(self) -> None:
        """End everything that was started."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(15 * PATIENCE)
            process.kill()
            process.wait()
        self.processes.clear()

    # Watching.

    def is_serving(self) -> bool:
        """Whether the coordinator's port takes connections."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.host, self.port)) == 0

    def overview(self) -> dict[str, Any]:
        """What ``watch --json`` tells, by the function behind it."""
        folder = CoordinatorFolder.open(self.coordinator)
        return dict(overview(folder, folder.register()))

    def want(self, wanted: Wanted, study: str = "tiny") -> None:
        """Pause or stop a study, and wait until it stands.

        By the function behind ``pause`` and ``stop``: while a command starts, a tiny study has
        twenty rounds and could be over.
        """
        want(CoordinatorFolder.open(self.coordinator), study, wanted, by="test")
        state = {Wanted.PAUSE: "paused", Wanted.STOP: "stopped"}[wanted]
        self.wait_for(lambda: self.state_of(study) == state, f"{study} to be {state}", 60)

    def records_of(self, study: str = "") -> list[dict[str, Any]]:
        """The rounds so far, as the coordinator recorded them: of one study, or of all."""
        found: list[dict[str, Any]] = []
        files = self.coordinator.glob("studies/*/rounds.jsonl")
        for file in [self.rounds_file(study)] if study else files:
            for line in file.read_text().splitlines() if file.exists() else ():
                with suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def rounds_file(self, study: str) -> Path:
        """Where the coordinator records a study's rounds."""
        return self.coordinator / "studies" / self.digest_of(study).hex() / "rounds.jsonl"

    def digest_of(self, study: str) -> bytes:
        """The digest of a study."""
        return Register(self.coordinator / "register.sqlite").study(study).digest

    def state_of(self, study: str = "tiny") -> str:
        """How far a study is."""
        return str(Register(self.coordinator / "register.sqlite").study(study).state)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until something is so, on a busy machine some times as long."""
        seconds *= PATIENCE
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = {name: self.said(name)[-1500:] for name in ("coordinator", *self.sites)}
                raise AssertionError(f"waited {seconds} s for {what}\n" + "\n".join(
                    f"--- {name}\n{said}" for name, said in logs.items()))  # fmt: skip
            time.sleep(0.02)

    def pause_after(self, rounds: int, study: str = "tiny") -> None:
        """Pause a study once it has had so many rounds; let it have a dozen more than those."""
        digest = Register(self.coordinator / "register.sqlite").study(study).digest.hex()
        file = self.coordinator / "studies" / digest / "rounds.jsonl"
        self.wait_for(
            lambda: file.exists() and len(file.read_text().splitlines()) >= rounds,
            f"{rounds} rounds", 90,
        )  # fmt: skip
        self.want(Wanted.PAUSE, study)

    def finish(self, seconds: float = 120, study: str = "tiny") -> None:
        """Wait for a study to finish."""
        self.wait_for(lambda: self.state_of(study) == "finished", f"{study} to finish", seconds)
