"""FHIR Bundles: the resources in them, with the references between them resolved.

A search's pages, a collection, a transaction or a batch may stand in a file of their own
(``.json``) or in a line of NDJSON. Within a Bundle a resource may be known by its ``fullUrl``
alone. HL7, "FHIR R4, Bundle", https://hl7.org/fhir/R4/bundle.html
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from consilium.shared.errors import DataError

LARGEST_DOCUMENT = 64 << 20  # bytes; in memory it takes some ten times as much
_HISTORY = "history"
_DELETE = "DELETE"


def document(file: IO[bytes], path: Path) -> bytes | None:
    """Return a ``.json`` file's document as one line; None if it holds one object a line.

    Raises:
        DataError: it is too large.
    """
    first = file.readline(LARGEST_DOCUMENT + 1)
    try:
        json.loads(first)
        several = any(not line.isspace() for line in iter(lambda: file.readline(1 << 16), b""))
    except (ValueError, RecursionError):
        several = False
    if several:
        return None
    content = first + file.read(LARGEST_DOCUMENT + 1 - len(first))
    if len(content) > LARGEST_DOCUMENT:
        raise DataError(
            f"{path} is one JSON document of more than {LARGEST_DOCUMENT} bytes; write one "
            "resource a line (NDJSON)"
        )
    return b" ".join(content.splitlines())


def unbundled(found: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Yield the resources in a Bundle, and in Bundles within it; any other resource as it is.

    Raises:
        DataError: the Bundle tells the history of resources, of which not all versions count.
    """
    if found.get("resourceType") != "Bundle":
        yield found
        return
    if found.get("type") == _HISTORY:
        raise DataError(
            f"{where}: is a Bundle of a history, which holds old versions; export a search or a "
            "collection"
        )
    listed = found.get("entry")
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    names: dict[str, str] = {}
    held = []
    for entry in entries:
        resource, url = entry.get("resource"), entry.get("fullUrl")
        asked = entry.get("request")
        if not isinstance(resource, dict):
            continue
        if isinstance(asked, dict) and asked.get("method") == _DELETE:
            continue
        if isinstance(url, str) and url.startswith("urn:"):
            identity = resource.get("id")
            if not isinstance(identity, str):
                identity = url.rpartition(":")[2]
                resource = resource | {"id": identity}
            names[url] = f"{resource.get('resourceType')}/{identity}"
        held.append(resource)
    for resource in held:
        inner = _resolved(resource, names) if names else resource
        yield from unbundled(inner, where) if inner.get("resourceType") == "Bundle" else (inner,)


def _resolved(node: Any, names: dict[str, str]) -> Any:
    """Return a part of a resource whose references name resources by their identifiers."""
    if isinstance(node, dict):
        return {
            key: names.get(value, value)
            if key == "reference" and isinstance(value, str)
            else _resolved(value, names)
            for key, value in node.items()
        }
    return [_resolved(one, names) for one in node] if isinstance(node, list) else node
