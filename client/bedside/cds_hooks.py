"""A CDS Hooks service for one model: what an EHR asks when a record is opened or an order chosen.

::

    GET  /cds-services                  the two services, with what the EHR is to send
    POST /cds-services/{id}             cards
    POST /cds-services/{id}/feedback    what became of a card: taken, and not kept

HL7, "CDS Hooks 2.0", https://cds-hooks.hl7.org/2.0/. The service reads what the EHR prefetched, and
never asks ``fhirServer``: it makes no connection. What is missing is named, with 412. Only programs
on this machine are answered, no browser, and nothing of a request is logged.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from http import HTTPStatus
from threading import Lock
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from consilium.client.bedside.assessment import Assessment, Assessor, fhir_source, written_in_fhir
from consilium.client.bedside.cds_cards import CRITICAL, WARNING, cards_of, refusal_card
from consilium.client.bedside.cds_requests import (
    Resource,
    bearer_of,
    body_of,
    check_feedback,
    check_from_here,
    context_of,
    object_of,
    prefetched,
    stay_that_goes_on,
)
from consilium.client.bedside.decision_log import Notes
from consilium.client.bedside.risk_assessment import check_has_risks
from consilium.client.sources.own.fhir.fhir import fhir_translation
from consilium.client.sources.own.fhir.given import Given
from consilium.client.sources.own.settings.systems import FhirSettings
from consilium.shared.clock import utc_now
from consilium.shared.errors import AuditError, AuthenticationError, DataError, SettingsError
from consilium.shared.export.signed_model import SignedModel
from consilium.shared.full_disk import lacks_space

HOOKS = ("patient-view", "order-select")
CODES_AT_ONCE = 40  # in one search, so that its address stays below 2,000 characters
NO_STAY = "No risk is given: the patient is now in no stay of the kind that the study is about."
OPTED_OUT = "No risk is given: this person has opted out of the use of their records."
log = logging.getLogger(__name__)


class Trust(Protocol):
    """Tells who asks."""

    def caller(self, token: str, path: str) -> str:
        """Return who shows this bearer token at this path.

        Raises:
            AuthenticationError: nobody who may ask.
        """


class CdsHooks:
    """Answers for one model.

    Args:
        signed: the model.
        settings: how this hospital writes FHIR; None takes LOINC's codes.
        trust: tells who asks.
        notes: where answers are noted before they are given.
        warning, critical: names of the model's thresholds from which a card says so; empty for
            none, so that every card is for information.
        clock: the time, UTC.

    Raises:
        SettingsError: the model predicts no risks, or has no such threshold.
        DataError: the model does not read numbers by the hour.
    """

    def __init__(
        self,
        signed: SignedModel,
        settings: FhirSettings | None,
        *,
        trust: Trust,
        notes: Notes,
        warning: str = "",
        critical: str = "",
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        check_has_risks(signed.trained.study)
        self._levels = {name: level for level, name in ((CRITICAL, critical), (WARNING, warning))}
        self._levels.pop("", None)
        _check_thresholds(signed, self._levels)
        self._signed, self._settings, self._trust, self._notes = signed, settings, trust, notes
        self._clock, self._lock = clock, Lock()
        self._assessor = Assessor(signed)
        self._prefetch = prefetch_templates(signed, settings)
        self._hook_of = {f"{signed.manifest.study}-{hook}": hook for hook in HOOKS}
        self.asgi: ASGIApp = Starlette(
            routes=[
                Route("/cds-services", self._discover, methods=["GET"]),
                Route("/cds-services/{id}", self._call, methods=["POST"]),
                Route("/cds-services/{id}/feedback", self._feedback, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _refused, Exception: _failed},
        )

    async def _discover(self, request: Request) -> Response:
        check_from_here(request)
        manifest = self._signed.manifest
        described = (
            f"Risk of {', '.join(manifest.outputs)} by the model of study {manifest.study}, from "
            f"{manifest.window}."
        )
        services = [
            {
                "hook": hook,
                "id": name,
                "title": manifest.title,
                "description": described,
                "prefetch": self._prefetch,
            }
            for name, hook in self._hook_of.items()
        ]
        return JSONResponse({"services": services})

    async def _call(self, request: Request) -> Response:
        hook, caller = self._checked(request)
        body = await body_of(request)
        cards = await run_in_threadpool(self._cards, body, hook, caller)
        return JSONResponse({"cards": cards})

    async def _feedback(self, request: Request) -> Response:
        self._checked(request)
        check_feedback(object_of(await body_of(request)))
        return JSONResponse({})

    def _checked(self, request: Request) -> tuple[str, str]:
        """Return the hook that is asked, and who asks."""
        check_from_here(request)
        hook = self._hook_of.get(request.path_params["id"])
        if hook is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "there is no service of this name")
        try:
            return hook, self._trust.caller(bearer_of(request), request.url.path)
        except AuthenticationError as error:
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED, str(error), headers={"WWW-Authenticate": "Bearer"}
            ) from error

    def _cards(self, body: bytes, hook: str, caller: str) -> list[dict[str, Any]]:
        try:
            asked = object_of(body)
            context = context_of(asked, hook)
            resources = prefetched(asked, self._prefetch, context["patientId"])
            with self._lock:
                found = self._assessed(resources, context)
        except RecursionError:
            raise HTTPException(
                HTTPStatus.BAD_REQUEST, "the request is nested too deeply"
            ) from None
        by = ", ".join(filter(None, (caller, hook, context.get("userId"))))
        self._note(found, by)
        if found.refused:
            return [refusal_card(self._signed, found.refused)]
        return cards_of(self._signed, found, self._levels)

    def _assessed(self, resources: list[Resource], context: Mapping[str, str]) -> Assessment:
        """Return the assessment of the stay that the context means."""
        patient_id = context["patientId"]
        stay_id = context.get("encounterId") or stay_that_goes_on(resources, patient_id)
        if stay_id is None:
            return Assessment(patient_id=patient_id, stay_id="", refused=NO_STAY)
        given = Given(resources, name="prefetch", now=self._clock())
        source, reader = fhir_source(self._settings, given=given)
        try:
            patients = [
                one
                for one in source.read_patients(self._signed.trained.study)
                if patient_id in (one.patient_id, *one.former_ids)
            ]
            found = {one.stay_id: one for one in self._assessor.assess(patients, reader)}
        except DataError as error:
            refused = f"No risk is given: {error}"
            return Assessment(patient_id=patient_id, stay_id=stay_id, refused=refused)
        opted_out = source.report.opted_out or (0, 0)
        refused = OPTED_OUT if opted_out[0] else NO_STAY
        none = Assessment(patient_id=patient_id, stay_id=stay_id, refused=refused)
        return found.get(stay_id, none)

    def _note(self, found: Assessment, by: str) -> None:
        try:
            self._notes.note(found, by=by, scored=not found.refused)
        except AuditError as error:
            log.error("nobody is scored, since it cannot be noted: %s", error)
            full = lacks_space(error)
            raise HTTPException(
                HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.SERVICE_UNAVAILABLE,
                "no risk is given, since the decision log that this site wants cannot be written",
            ) from error


def prefetch_templates(signed: SignedModel, settings: FhirSettings | None) -> dict[str, str]:
    """Return what the EHR is to send, by key: FHIR reads and searches.

    Raises:
        DataError: the model does not read numbers by the hour.
        SettingsError: the settings contradict themselves, or no variable has a code.
    """
    translation = fhir_translation(signed.trained.study, written_in_fhir(settings))
    codes, wordless = sorted(translation.codes), sorted(translation.wordless_codes)
    if not codes:
        raise SettingsError(
            "no variable of the study has a code; give them in [data.variables] of site.toml"
        )
    whose = "patient={{context.patientId}}"
    found = {"patient": "Patient/{{context.patientId}}", "encounters": f"Encounter?{whose}"}
    for number, begin in enumerate(range(0, len(codes), CODES_AT_ONCE), start=1):
        key = "observations" if number == 1 else f"observations{number}"
        found[key] = f"Observation?{whose}&code={','.join(codes[begin : begin + CODES_AT_ONCE])}"
    if wordless:
        found["conditions"] = f"Condition?{whose}&code={','.join(wordless)}"
        found["administrations"] = f"MedicationAdministration?{whose}"
    return found


def _check_thresholds(signed: SignedModel, names: Collection[str]) -> None:
    validation = signed.trained.validation
    listed = validation.thresholds if validation else ()
    known = {point.name for points in listed for point in points}
    for name in names:
        if name not in known:
            shown = ", ".join(sorted(known)) or "none"
            raise SettingsError(
                f"{name[:60]!r} is no threshold of this model, which has: {shown}; name one of them"
            )


async def _refused(_: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", HTTPStatus.BAD_REQUEST)
    sentence = str(getattr(error, "detail", ""))
    return JSONResponse(
        {"error": sentence}, status_code=status, headers=getattr(error, "headers", None)
    )


async def _failed(_: Request, __: Exception) -> Response:
    return JSONResponse(
        {"error": "this service failed; its log says where"},
        status_code=HTTPStatus.INTERNAL_SERVER_ERROR,
    )
