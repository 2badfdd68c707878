"""FHIR resources that a program gives, one patient's mostly, and is told at once what they mean.

A stay that goes on is read as one that ends now: what comes later is not known yet.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from consilium.client.sources.common.source import Tally
from consilium.client.sources.own.fhir.ndjson import text


class Given:
    """An :class:`.Export` of resources in memory.

    Args:
        resources: any, of one or more types.
        name: what errors call them.
        now: the time at which an Encounter without an end is read to end; None leaves it open.
    """

    def __init__(
        self, resources: Iterable[dict[str, Any]], *, name: str, now: datetime | None = None
    ) -> None:
        self._name, self._now = Path(name), now
        self._by_kind: dict[str, list[dict[str, Any]]] = {}
        for one in resources:
            self._by_kind.setdefault(text(one, "resourceType") or "", []).append(one)

    def __str__(self) -> str:
        return str(self._name)

    def resources(self, kind: str, _: Tally) -> Iterator[tuple[dict[str, Any], Path]]:
        """Yield every resource of a type, once for each identifier: the last one given."""
        latest = {text(one, "id") or number: one for number, one in self._numbered(kind)}
        for one in latest.values():
            yield (self._until_now(one) if kind == "Encounter" else one), self._name

    def has(self, kind: str) -> bool:
        """Whether there are resources of a type."""
        return kind in self._by_kind

    def _numbered(self, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(self._by_kind.get(kind, ()))

    def _until_now(self, encounter: dict[str, Any]) -> dict[str, Any]:
        period = encounter.get("period")
        if self._now is None or not isinstance(period, dict) or "end" in period:
            return encounter
        return encounter | {"period": period | {"end": self._now.isoformat()}}
