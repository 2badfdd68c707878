"""A site's status, from its folder alone, whether or not the site runs."""

import fcntl
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from consilium.client.hospital.cohort_notes import read_notes
from consilium.client.hospital.folder import SiteFolder
from consilium.client.ledger.store import Ledger
from consilium.client.service.last_refusal import read_last_refusal
from consilium.client.service.pinned_connection import approvals_of
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.summary import summarise
from consilium.shared.errors import ConsiliumError, SettingsError
from consilium.shared.notices.told import notices_status
from consilium.shared.version import VERSION


def site_status(folder: SiteFolder) -> dict[str, Any]:
    """Return what ``consilium-site status --json`` prints; it is never sent anywhere.

    Keys: ``site``, ``version``, ``coordinator``, ``running``, ``policy`` (``"ok"`` or what is wrong
    with it), ``approved`` (studies, each with its ``cohort``), ``budget`` (lifetime and by study),
    ``audit``, ``last_release``, ``last_refusal``, ``recovery`` (whether there is a code, the second
    place), ``notices`` (see :func:`notices_status`).

    Raises:
        SettingsError: the folder is not a site's.
    """
    status: dict[str, Any] = {
        "site": folder.settings().site,
        "version": VERSION,
        "coordinator": None,
        "running": is_held(folder.path / "lock"),
        "notices": notices_status(folder.path),
    }
    try:
        policy = folder.policy()
        status["policy"] = "ok"
    except SettingsError as error:
        return status | {"policy": str(error)}
    try:
        enrolment = folder.enrolment()
    except SettingsError:
        return status | {"approved": []}
    status["site"] = enrolment.site
    named = folder.settings().recovery
    status["recovery"] = {
        "code": folder.recovery_keys() is not None,
        "second_place": None if named is None else named.second_place,
    }
    status["coordinator"] = f"{enrolment.host}:{enrolment.port}"
    status["approved"] = [
        {
            "study": approval.study.name,
            "digest": approval.study.digest.hex(),
            "cohort": _cohort(folder, approval.study.digest),
        }
        for approval in approvals_of(folder)
    ]
    file = folder.path / "ledger.sqlite"
    if file.exists():
        status["budget"] = _budget(
            Ledger(file, lifetime_epsilon=policy.lifetime_epsilon, delta=policy.delta)
        )
    status |= audit_status(folder.path / AUDIT_FILE)
    known, told = read_last_refusal(folder.path), status.get("last_refusal")
    if told and known and known.get("code") == told["code"]:
        status["last_refusal"] = told | {"reason": str(known.get("reason", ""))}
    return status


def audit_status(log: Path) -> dict[str, Any]:
    """Return ``audit``, ``last_release`` and ``last_refusal`` from a site's log."""
    if not log.exists():
        return {"audit": None}
    try:
        summary = summarise(log)
    except ConsiliumError as error:
        return {"audit": {"error": str(error)}}
    release, refusal = summary.released, summary.refused
    return {
        "audit": {
            "entries": summary.entries,
            "head": summary.head.hex(),
            "last_at": summary.last_at,
            "coordinator_entry": summary.peers.get("coordinator"),
            "divergences": sum(summary.divergences.values()),
            "counts": summary.counts,
        },
        "last_release": release
        and {
            "at": release[0],
            "round": release[1].round,
            "purpose": release[1].purpose,
            "study_digest": release[1].study_digest.hex(),
            "epsilon": release[1].epsilon,
        },
        "last_refusal": refusal
        and {
            "at": refusal[0],
            "asked": refusal[1].asked,
            "code": refusal[1].code,
            "sentence": refusal[1].sentence,
        },
    }


def is_held(lock: Path) -> bool:
    """Return whether a process holds this lock, that is, whether the site runs."""
    try:
        file = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _cohort(folder: SiteFolder, digest: bytes) -> dict[str, Any] | None:
    """Return the cohort as approved and as last read, and what changed; None if not known."""
    notes = read_notes(folder.path / "approvals", digest)
    return None if notes is None else notes.model_dump(mode="json") | {"moved": notes.moved}


def _budget(ledger: Ledger) -> dict[str, Any]:
    summary = ledger.summary()
    return {
        "lifetime": asdict(summary.total),
        "studies": [
            {"study": study.study_name, "digest": study.study_digest.hex()}
            | asdict(study.account)
            | {"releases": study.releases, "unit": study.unit}
            for study in summary.studies
        ],
    }
