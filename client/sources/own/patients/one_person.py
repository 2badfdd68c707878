"""Identifiers of one person: which stand for another, and what a patient was called before."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from consilium.client.sources.common.source import Patient


def with_former(patients: Iterable[Patient], merged: Mapping[str, str]) -> Iterator[Patient]:
    """Yield patients with the identifiers that lead to theirs, so that an opt-out under one holds.

    Args:
        patients: as a source reads them.
        merged: the identifier in use, by one that was used before.
    """
    former: dict[str, list[str]] = {}
    for old, left in merged.items():
        if old != left:
            former.setdefault(left, []).append(old)
    for patient in patients:
        before = former.get(patient.patient_id)
        yield replace(patient, former_ids=tuple(before)) if before else patient


def joined(pairs: Iterable[tuple[str, str]], replaced: Iterable[str]) -> dict[str, str]:
    """Return for each identifier in a pair the one that stands for all that are one person's.

    Args:
        pairs: two identifiers of one person each.
        replaced: identifiers that are used no more, if another of the person's is.
    """
    group: dict[str, set[str]] = {}
    for first, second in pairs:
        both = group.get(first, {first}) | group.get(second, {second})
        for one in both:
            group[one] = both
    gone = set(replaced)
    return {one: min(both - gone or both) for one, both in group.items()}
