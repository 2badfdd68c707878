"""Tests whether this machine is ready to take part in studies; each failure with its remedy."""

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.folder import SECRET_FILES, SiteFolder
from consilium.client.hospital.graphics_card import what_computes
from consilium.client.service.connection import Connection
from consilium.client.service.offers import fetch_offers
from consilium.client.service.pinned_connection import approvals_of, connect
from consilium.client.service.site_cohort import suitable_cohort
from consilium.client.sources.reach import ask_source
from consilium.shared.errors import ConsiliumError, SettingsError

LEAST_DISK_BYTES = 1 << 30
LEAST_MEMORY_BYTES = 1 << 30
LARGEST_SKEW_S = 60.0
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")


@dataclass(frozen=True, kw_only=True)
class PreflightTest:
    """The result of one test: what was found, and what to do if the test failed.

    ``code`` is the kind of the error that failed it, if one did; it quotes nothing.
    """

    name: str
    ok: bool
    told: str
    remedy: str = ""
    code: str = ""


def preflight(folder: SiteFolder) -> list[PreflightTest]:
    """Test what a site needs; a test that cannot be made counts as failed."""
    return [
        _permissions(folder),
        _disk(folder),
        _memory(),
        *_computation(folder),
        *_second_place(folder),
        *_network(folder),
        *_data(folder),
    ]


def _permissions(folder: SiteFolder) -> PreflightTest:
    name = "permissions"
    try:
        SiteFolder.open(folder.path)
    except SettingsError as error:
        return _failed(name, error, "see the sentence above")
    mode = folder.path.stat().st_mode & 0o777
    if mode & 0o077:
        return PreflightTest(
            name=name,
            ok=False,
            told=f"{folder.path} may be entered by other accounts (mode {mode:o})",
            remedy=f"run 'chmod 700 {folder.path}'",
        )
    if not os.access(folder.path, os.W_OK):
        return PreflightTest(
            name=name,
            ok=False,
            told=f"{folder.path} cannot be written by this account",
            remedy="run the site under the account that owns the folder",
        )
    return PreflightTest(
        name=name, ok=True, told=f"only this account reads {', '.join(SECRET_FILES)}"
    )


def _disk(folder: SiteFolder) -> PreflightTest:
    place = folder.path if folder.path.exists() else Path.cwd()
    free = shutil.disk_usage(place).free
    return PreflightTest(
        name="disk",
        ok=free >= LEAST_DISK_BYTES,
        told=f"{free / 2**30:.1f} GiB free for {folder.path}",
        remedy="free at least 1 GiB: with a full disk nothing can be recorded, so nothing is sent",
    )


def _second_place(folder: SiteFolder) -> list[PreflightTest]:
    """Look whether budget certificates can be written to the second place, if one is named."""
    try:
        named = folder.settings().recovery
    except SettingsError:
        return []  # the test of the data tells it
    if named is None:
        return []
    place = folder.path / named.second_place
    ok = place.is_dir() and os.access(place, os.W_OK)
    told = f"budget certificates go to {place}" if ok else f"{place} is no folder to write to"
    remedy = "mend it: nothing is released without a copy there"
    return [PreflightTest(name="second place", ok=ok, told=told, remedy=remedy)]


def _memory() -> PreflightTest:
    free = _available_memory()
    return PreflightTest(
        name="memory",
        ok=free >= LEAST_MEMORY_BYTES,
        told=f"{free / 2**30:.1f} GiB available",
        remedy="make at least 1 GiB available; training needs room for the records and the model",
    )


def _computation(folder: SiteFolder) -> list[PreflightTest]:
    """Say what trains models; a card that is allowed and cannot be used is no failure."""
    try:
        policy = folder.policy()
    except SettingsError:
        return []  # the test of the data tells it
    return [PreflightTest(name="computation", ok=True, told=what_computes(policy))]


def _available_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _network(folder: SiteFolder) -> list[PreflightTest]:
    try:
        enrolment = folder.enrolment()
        connection = connect(folder)
    except ConsiliumError as error:
        return [_failed("enrolment", error, "enrol this site")]
    with connection:
        host = connection.address.rpartition(":")[0].strip("[]")
        enrolled = PreflightTest(
            name="enrolment",
            ok=True,
            told=f"site {enrolment.site} at {connection.address}",
        )
        proxied = folder.settings().proxy is not None or any(map(os.environ.get, PROXY_VARIABLES))
        return [enrolled, _name(host, proxied=proxied), *_line(connection, folder)]


def _name(host: str, *, proxied: bool) -> PreflightTest:
    if proxied:
        return PreflightTest(name="name", ok=True, told=f"{host} is looked up by the proxy")
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError as error:
        return PreflightTest(
            name="name",
            ok=False,
            told=f"{host} has no address ({error})",
            remedy="ask the network's administrators, or name the proxy in site.toml ([proxy]) if "
            "names are looked up by one",
        )
    return PreflightTest(name="name", ok=True, told=f"{host} is {', '.join(sorted(addresses))}")


def _line(connection: Connection, folder: SiteFolder) -> list[PreflightTest]:
    failed = _trying(connection.hello)
    if failed is not None:
        remedy = "let this machine dial out to that one address and port; nothing must come in"
        return [PreflightTest(name="line", ok=False, told=failed, remedy=remedy)]
    skew_s = connection.clock_ahead_s
    found = [
        PreflightTest(name="line", ok=True, told="the coordinator shows the pinned certificate"),
        PreflightTest(
            name="clock",
            ok=abs(skew_s) <= LARGEST_SKEW_S,
            told=f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the coordinator",
            remedy="switch on the system's time service; the site works meanwhile, because it "
            "signs by the coordinator's time, but its ledger and audit log bear wrong times",
        ),
    ]
    failed = _trying(lambda: fetch_offers(folder))
    found.append(
        PreflightTest(
            name="account",
            ok=failed is None,
            told=failed or "the coordinator knows this site",
            remedy=(
                "ask the coordinator whether the site was revoked; it needs a new invitation"
                if abs(skew_s) <= LARGEST_SKEW_S
                else "set this machine's clock first: see 'clock' above"
            ),
        )
    )
    return found


def _data(folder: SiteFolder) -> list[PreflightTest]:
    """Ask for the records, and read them as each approved study would."""
    name, remedy = "data", "see the sentence above"
    try:
        chosen = folder.settings().records(folder.path)
        told = ask_source(chosen)
        approved = list(approvals_of(folder)) if _is_enrolled(folder) else []
    except ConsiliumError as error:
        return [_failed(name, error, remedy)]
    found = [PreflightTest(name=name, ok=True, told=sentence) for sentence in told]
    return found + [
        test(folder, approval) for approval in approved for test in (_known_sites, _readable)
    ]


def _is_enrolled(folder: SiteFolder) -> bool:
    return _trying(folder.enrolment) is None


def _known_sites(folder: SiteFolder, approval: Approval) -> PreflightTest:
    """Hold the approved roster against the vouchers, as every message of its study will be."""
    study, roster = approval.study, approval.roster
    failed = _trying(lambda: folder.policy().check_roster(study, roster, folder.vouchers().trust()))
    told = failed or f"study {study.name}: enough of its sites are vouched for"
    remedy = f"run 'consilium-site review {study.name}' to see who is known and who is not"
    return PreflightTest(name="roster", ok=failed is None, told=told, remedy=remedy)


def _readable(folder: SiteFolder, approval: Approval) -> PreflightTest:
    study = approval.study
    remedy = f"run 'consilium-site check {study.name}' for the counts behind this"
    try:
        cohort = suitable_cohort(folder, study)
    except ConsiliumError as error:
        return _failed("data", error, remedy)
    told = f"study {study.name}: {cohort.report.patients} patients can be read"
    return PreflightTest(name="data", ok=True, told=told)


def _trying(work: Callable[[], object]) -> str | None:
    try:
        work()
    except ConsiliumError as error:
        return str(error)
    return None


def _failed(name: str, error: ConsiliumError, remedy: str) -> PreflightTest:
    kind = type(error).__name__
    code = f"{kind}.{error.case}" if error.case else kind
    return PreflightTest(name=name, ok=False, told=str(error), remedy=remedy, code=code)
