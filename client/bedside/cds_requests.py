"""What a CDS Hooks request must fulfil before anything is read of a patient.

Whatever is wrong is told in one sentence with a 4xx status, and nothing of the request is quoted.
"""

from collections.abc import Collection, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from consilium.client.sources.own.fhir.bundles import unbundled
from consilium.client.sources.own.fhir.ndjson import IDENTIFIER, at, identity, json_object, text
from consilium.shared.errors import DataError
from consilium.shared.service.local_service import HERE

LARGEST_BODY = 16 << 20
MOST_RESOURCES = 50_000
LONGEST_INSTANCE = 100
GOING_ON = ("in-progress", "arrived", "triaged", "onleave")
Resource = dict[str, Any]


def check_from_here(request: Request) -> None:
    """Refuse a web page, and one whose host name was pointed at this machine (DNS rebinding).

    Raises:
        HTTPException: it is not a program on this machine.
    """
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or hosts[0].partition(":")[0] not in HERE or "origin" in request.headers:
        raise HTTPException(HTTPStatus.FORBIDDEN, "only programs on this machine are answered")


def bearer_of(request: Request) -> str:
    """Return the bearer token, empty if there is not exactly one."""
    given = request.headers.getlist("authorization")
    kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return token.strip() if kind.lower() == "bearer" else ""


async def body_of(request: Request) -> bytes:
    """Return the body.

    Raises:
        HTTPException: it is no JSON by its type, or too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            sentence = f"send at most {LARGEST_BODY} bytes"
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
    return bytes(body)


def object_of(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises:
        HTTPException: it is none.
    """
    found = json_object(body)
    if isinstance(found, str):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the request is no JSON object in UTF-8")
    return found


def context_of(asked: Mapping[str, Any], hook: str) -> dict[str, str]:
    """Return the context's fields that are used: patientId, and encounterId and userId if given.

    Raises:
        HTTPException: the request is of another hook, or a field is missing or malformed.
    """
    if asked.get("hook") != hook:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"this service is for the hook {hook}")
    instance, context = asked.get("hookInstance"), asked.get("context")
    if not isinstance(instance, str) or not 0 < len(instance) <= LONGEST_INSTANCE:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "hookInstance must be a UUID")
    if not isinstance(context, dict):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "context must be an object")
    found = {}
    for name in ("patientId", "encounterId"):
        value = context.get(name)
        if value is None and name == "encounterId":
            continue
        if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"context.{name} must be a FHIR id")
        found[name] = value
    user = context.get("userId")
    if isinstance(user, str) and all(map(IDENTIFIER.fullmatch, user.split("/"))):
        found["userId"] = user
    return found


def prefetched(
    asked: Mapping[str, Any], wanted: Collection[str], patient_id: str
) -> list[Resource]:
    """Return the resources under the keys of the templates.

    Raises:
        HTTPException: some are missing or incomplete, or the patient is another one.
    """
    given = asked.get("prefetch")
    if given is not None and not isinstance(given, dict):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "prefetch must be an object")
    missing = [key for key in wanted if not _is_whole(given or {}, key)]
    if missing:
        raise HTTPException(
            HTTPStatus.PRECONDITION_FAILED,
            f"prefetch lacks {', '.join(missing)}, or has not all of it (an error, or one page of "
            "several); this service asks no FHIR server, so send all that GET /cds-services names, "
            "and null for what there is none of",
        )
    found = [one for key in wanted for one in _unbundled((given or {})[key])]
    if len(found) > MOST_RESOURCES:
        sentence = f"prefetch has more than {MOST_RESOURCES} resources; send those of the stay"
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
    if not any(
        one.get("resourceType") == "Patient" and one.get("id") == patient_id for one in found
    ):
        sentence = "prefetch has no Patient of context.patientId; send that patient's"
        raise HTTPException(HTTPStatus.PRECONDITION_FAILED, sentence)
    return found


def stay_that_goes_on(resources: Collection[Resource], patient_id: str) -> str | None:
    """Return a patient's Encounter that goes on, the last one begun; None if there is none."""
    going = [
        (text(one, "period", "start") or "", text(one, "id") or "")
        for one in resources
        if one.get("resourceType") == "Encounter"
        and text(one, "status") in GOING_ON
        and identity(at(one, "subject")) == patient_id
    ]
    return max(going)[1] if going else None


def check_feedback(asked: Mapping[str, Any]) -> None:
    """Refuse what is no feedback.

    Raises:
        HTTPException: it is none.
    """
    listed = asked.get("feedback")
    if not isinstance(listed, list) or not all(
        isinstance(at(one, "card"), str) and at(one, "outcome") in ("accepted", "overridden")
        for one in listed
    ):
        raise HTTPException(
            HTTPStatus.BAD_REQUEST,
            "feedback must be a list of objects with card, and outcome accepted or overridden",
        )


def _is_whole(given: Mapping[str, Any], key: str) -> bool:
    """Whether a key is there, and nothing says that there was more or that it failed."""
    value = given.get(key)
    if key not in given or value is None:
        return key in given
    if not isinstance(value, dict) or value.get("resourceType") == "OperationOutcome":
        return False
    links, entries = value.get("link"), value.get("entry")
    more = isinstance(links, list) and any(at(link, "relation") == "next" for link in links)
    return not more and not (isinstance(entries, list) and any(map(_is_error, entries)))


def _is_error(entry: Any) -> bool:
    if at(entry, "resource", "resourceType") != "OperationOutcome":
        return False
    issues = at(entry, "resource", "issue")
    found = issues if isinstance(issues, list) else []
    return any(at(issue, "severity") in ("fatal", "error") for issue in found)


def _unbundled(value: Any) -> Iterator[Resource]:
    try:
        yield from unbundled(value or {}, "prefetch")
    except DataError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error
