"""What every request must fulfil, whoever sends it, and what every answer forbids.

A request's ``Host`` names this machine (against DNS rebinding). One that changes something comes
from a page of this very address (``Origin``): ports of one machine are one site, so ``SameSite``
alone would let another port's page send it. Its body is a small form.

Every answer forbids scripts, frames, and whatever lies elsewhere.
"""

from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consilium.shared.service.local_service import HERE

COOKIE = "consilium"
LARGEST_FORM = 1 << 16
MOST_FIELDS = 50
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with none at all, a form's Origin would be "null"
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what comes from elsewhere, and puts the headers on every answer."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, if it may be."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in HEADERS.items()
                        if name.lower().encode() not in given
                    ),
                ]
            await send(message)

        if refused := _refusal(Request(scope)):
            answer = PlainTextResponse(f"{refused}\n", status_code=HTTPStatus.FORBIDDEN)
            await answer(scope, receive, send_guarded)
            return
        await self._application(scope, receive, send_guarded)


def _refusal(request: Request) -> str:
    """Return why a request is refused whoever sends it, or nothing."""
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or hosts[0].rpartition(":")[0] not in HERE:
        return "ask 127.0.0.1, with its port"
    if request.method in ("GET", "HEAD"):
        return ""
    if request.headers.getlist("origin") != [f"http://{hosts[0]}"]:
        return "this was sent by another page than this application's"
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return "this was sent by a page of another address"
    return ""


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        HTTPException: too large, or not a form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send a form")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the form is too large")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "this is not a form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "a field stands twice in the form")
    return fields


def cookies_of(request: Request) -> list[str]:
    """Return every cookie of the name; a page on another port may have set one, too."""
    found = []
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == COOKIE:
                found.append(value)
    return found
