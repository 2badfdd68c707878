"""The coordinator's state, read from its folder: for ``watch``, ``status`` and the monitor.

It holds nothing about a single site's patients: of a site only whether it is there, its version and
the budget it says it has; of patients only sums and totals.
"""

import re
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from consilium.server.coordinator.folder import CoordinatorFolder
from consilium.server.coordinator.register import Register, Submitted
from consilium.server.coordinator.roster_book import events_in_force, proposal_of
from consilium.server.coordinator.round_records import last_record, rounds_file
from consilium.shared.audit.log import FILE_NAME as AUDIT_FILE
from consilium.shared.audit.summary import summarise
from consilium.shared.enrolment.messages import roster_digest, roster_fingerprint
from consilium.shared.errors import AuditError, StudyError
from consilium.shared.notices.told import notices_status
from consilium.shared.version import VERSION

SEEN_LATELY_S = 60.0  # a site that asked for work within this time counts as present


def overview(folder: CoordinatorFolder, register: Register) -> dict[str, Any]:
    """Return the sites, whether each is present, and the studies, how far each is."""
    now = time.time()
    return {
        "version": VERSION,
        "certificate_ends": folder.certificates.expires().isoformat(),
        "sites": [
            {
                "site": member.name,
                "revoked": member.revoked is not None,
                "version": member.version,
                "seen_s_ago": None if member.seen is None else round(now - member.seen, 1),
                "budget_left": member.budget_left,
                "identity": member.identity.hex(),
            }
            for member in register.members()
        ],
        "studies": [_study_overview(folder, register, study) for study in register.studies()],
        "notices": notices_status(folder.path),
    }


def status(folder: CoordinatorFolder, register: Register) -> dict[str, Any]:
    """Return the overview and a summary of the audit log, as ``status --json`` prints them."""
    return overview(folder, register) | {"audit": _audit(folder.path / AUDIT_FILE)}


def _audit(log: Path) -> dict[str, Any] | None:
    if not log.exists():
        return None
    try:
        summary = summarise(log)
    except AuditError as error:
        return {"error": str(error)}
    return {
        "entries": summary.entries,
        "head": summary.head.hex(),
        "last_at": summary.last_at,
        "counts": summary.counts,
        "site_entries": summary.peers,
        "divergences": summary.divergences,
        "last_refusal": summary.refused
        and {
            "at": summary.refused[0],
            "peer": summary.refused[1].peer,
            "asked": summary.refused[1].asked,
            "sentence": summary.refused[1].sentence,
        },
    }


def _study_overview(
    folder: CoordinatorFolder, register: Register, study: Submitted
) -> dict[str, Any]:
    return {
        "study": study.name,
        **_declared(study),
        "roster_sites": list(study.roster.names),
        "digest": study.digest.hex(),
        "state": study.state.value,
        "wanted": study.wanted.value,
        "detail": study.detail,
        "roster": roster_fingerprint(study.roster),
        "roster_version": study.version,
        **roster_facts(register, study),
        "left_for_good": sorted(study.gone),
        "declared_sizes": {site: d.patients for site, d in sorted(study.declared.items())},
        "last_round": last_record(rounds_file(folder, study.digest)),
    }


def roster_facts(register: Register, study: Submitted) -> dict[str, Any]:
    """Return the roster's digest, the versions that were in force, and the one proposed."""
    proposed = proposal_of(register, study) if study.open else None
    return {
        "roster_digest": roster_digest(study.roster).hex(),
        "roster_versions": [
            {
                "version": event.version,
                "digest": event.roster.hex(),
                "round": event.round,
                "joined": list(event.joined),
                "left": list(event.left),
            }
            for event in events_in_force(register, study)
        ],
        "roster_proposed": proposed
        and {
            "version": proposed.number,
            "joined": list(proposed.joined),
            "left": list(proposed.left),
            "detail": proposed.in_words,
        },
    }


def _declared(study: Submitted) -> dict[str, Any]:
    """Return what the study declares; nothing if another version wrote it and it is unreadable."""
    try:
        declared = study.study
    except StudyError:
        return {"title": study.name, "rounds": None, "epsilon_bound": None, "unit": None}
    private = declared.privacy.mode != "none"
    return {
        "title": declared.title,
        "rounds": declared.rounds,
        "epsilon_bound": declared.privacy.epsilon if private else None,
        "unit": declared.privacy.unit,
    }


def names_of(studies: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return each study's name by its digest, with the digest's first digits if others share it."""
    names = Counter(study["study"] for study in studies)
    return {
        study["digest"]: study["study"]
        + (f" ({study['digest'][:16]})" if names[study["study"]] > 1 else "")
        for study in studies
    }


def rounds_so_far(study: Mapping[str, Any]) -> str:
    """Return how many of its training rounds a study has behind it, void ones included."""
    last, rounds = study["last_round"], study["rounds"]
    if last is None or rounds is None:
        return "-" if last is None else f"sum {last['round']}"
    trained = last.get("trained")
    done = min(max(last["round"] - 1, 0), rounds) if trained is None else trained
    return f"{done} of {rounds}"


def waiting_lines(detail: str, sites: Collection[str]) -> list[str]:
    """Return what a study waits for, a line for each site that the sentence names."""
    named = "|".join(re.escape(site) for site in sorted(sites, key=len, reverse=True))
    return re.split(rf"; (?=(?:{named}): )", detail) if named else [detail]
