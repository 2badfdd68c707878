"""A keyed fingerprint of a cohort: equal as long as persons, their stays and their outcomes are.

Guarantee: without the key the fingerprint is 32 bytes like any others (HMAC-SHA256 is a
pseudo-random function); it does not even tell whether two hospitals, or two studies, have the same
persons.
"""

import hashlib
import hmac

import numpy as np

from consilium.client.records.cohort import Cohort
from consilium.client.records.features import TimeGrid
from consilium.shared.study.definition import Study

_USE = b"consilium: fingerprint of a cohort"


def cohort_fingerprint(cohort: Cohort, study: Study, *, key: bytes) -> bytes:
    """Return HMAC-SHA256 (32 bytes) over each person's identifier, stays and outcomes.

    The order in which a source yields persons, or one person's stays, changes nothing; nor do
    measured values, which the study's windows may round.

    Args:
        cohort: training and validation patients count alike.
        study: whose cohort it is; another study has another fingerprint.
        key: this site's own.
    """
    mac = hmac.new(hmac.digest(key, _USE, hashlib.sha256), study.digest, hashlib.sha256)
    for person, labels in sorted(pair for part in cohort.parts for pair in _persons(part)):
        for content in (person.encode(), *labels):
            mac.update(len(content).to_bytes(8, "big") + content)
        mac.update(b"\xff" * 8)  # no content is so long: here the person ends
    return mac.digest()


def _persons(grid: TimeGrid) -> list[tuple[str, list[bytes]]]:
    """Return by person the labels of each stay, as sorted bytes."""
    y_N = np.ascontiguousarray(grid.y_N, dtype="<f4")
    ends = np.cumsum(np.bincount(grid.patient_N, minlength=grid.patients))[:-1]
    of_person = np.split(y_N, ends)[: grid.patients]  # of nobody it is one empty part
    return [
        (person, sorted(row.tobytes() for row in rows))
        for person, rows in zip(grid.patient_ids, of_person, strict=True)
    ]
