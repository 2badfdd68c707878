"""The application that both sides' pages are: who may see which page.

Before a page is made, a request must have passed these, in this order:

1. what :mod:`consilium.shared.web.guard` asks of every request, whoever sends it;
2. its cookie belongs to a session, whose place stands in the path;
3. the person's role may see the page;
4. a form holds the session's token.
"""

import hmac
import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from consilium.shared.errors import ConsiliumError
from consilium.shared.service.pages import page_templates, render_page
from consilium.shared.web.back_off import BackOff
from consilium.shared.web.guard import COOKIE, Guard, cookies_of, read_form
from consilium.shared.web.sessions import IDLE_S, Session, Sessions
from consilium.shared.web.users import User, Users

PACKAGE = "consilium.shared.web"
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A request that passed: whose, with what in its path, its query and its form.

    Attributes:
        session: of the person.
        application: that serves it.
        at: the page's path, its parts in braces.
        parts: of the path, by name.
        query: of the address, by name.
        form: what was sent, by name; empty unless the page changes something.
    """

    session: Session
    application: "Application"
    at: str
    parts: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def person(self) -> User:
        """Who asks."""
        return self.session.user

    @property
    def by(self) -> str:
        """The person as the audit log names them."""
        return f"{self.person.name} ({self.person.role})"

    def address(self, path: str) -> str:
        """Return where a page of this session is, such as ``/studies``."""
        return f"/s/{self.session.place}{path}"

    def page(self, package: str, template: str, *, status: int = 200, **content: Any) -> Response:
        """Return a page made of a template, with the frame that all pages have."""
        said, self.session.said[:] = tuple(self.session.said), []
        shown = render_page(
            package,
            template,
            visit=self,
            links=[one for one in self.application.links if self.person.role in one.roles],
            name=self.application.name,
            said=said,
            **content,
        )
        return HTMLResponse(shown, status_code=status)

    def go(self, path: str, said: str = "") -> Response:
        """Return an answer that leads to another page, which says the sentence."""
        if said:
            self.session.said.append(said)
        return RedirectResponse(self.address(path), status_code=HTTPStatus.SEE_OTHER)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, or something that a form does.

    Attributes:
        path: below the session's place; parts in braces.
        roles: that may ask for it.
        answer: makes the answer.
        changes: whether it changes something, so that it is asked by POST with the form's token.
        link: its words in the navigation; empty if it is not there.
    """

    path: str
    roles: frozenset[str]
    answer: Callable[[Visit], Response]
    changes: bool = False
    link: str = ""


class Application:
    """Serves pages to persons who signed in.

    Args:
        name: above all pages.
        users: who may sign in.
        pages: all of them; the first is where signing in leads.
        style: package and file of the style sheet.
        back_off: how wrong passwords wait.
    """

    def __init__(
        self,
        name: str,
        users: Users,
        pages: Sequence[Page],
        *,
        style: tuple[str, str] = (PACKAGE, "common/application.css"),
        back_off: BackOff | None = None,
    ) -> None:
        self.name, self.users, self._sheet = name, users, style
        self.sessions = Sessions(users)
        self.links = tuple(page for page in pages if page.link)
        self._home = pages[0].path
        self._back_off = back_off or BackOff()
        self._checking = threading.Lock()
        routes = [
            Route("/", self._front, methods=["GET"]),
            Route("/sign-in", self._sign_in, methods=["POST"]),
            Route("/style.css", self._style, methods=["GET"]),
            *(
                Route(
                    "/s/{place}" + page.path,
                    self._endpoint(page),
                    methods=["POST" if page.changes else "GET"],
                )
                for page in (*pages, Page(path="/sign-out", roles=frozenset(users.roles),
                                          answer=self._sign_out, changes=True))
            ),
        ]  # fmt: skip
        self.asgi: ASGIApp = Guard(
            Starlette(
                routes=routes,
                exception_handlers={
                    HTTPException: self._refuse,
                    ConsiliumError: self._fail,
                    Exception: self._fail,
                },
            )
        )

    def _endpoint(self, page: Page) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            fields = await read_form(request) if page.changes else {}
            return await run_in_threadpool(self._answer, page, request, fields)

        return endpoint

    def _answer(self, page: Page, request: Request, fields: Mapping[str, str]) -> Response:
        session = self.sessions.find(request.path_params["place"], cookies_of(request))
        if session is None:
            return RedirectResponse("/?ended=1", status_code=HTTPStatus.SEE_OTHER)
        parts = {name: part for name, part in request.path_params.items() if name != "place"}
        visit = Visit(
            session=session,
            application=self,
            at=page.path,
            parts=parts,
            query=dict(request.query_params),
            form=fields,
        )
        if session.user.role not in page.roles:
            log.warning("%s was refused %s", visit.by, page.path)
            return self._told(
                visit,
                HTTPStatus.FORBIDDEN,
                f"Your role is {session.user.role}; this is for "
                f"{' and '.join(sorted(page.roles))}.",
            )
        if page.changes and not hmac.compare_digest(
            fields.get("token", "").encode(), session.token.encode()
        ):
            return self._told(
                visit, HTTPStatus.FORBIDDEN, "This form is of another session; open the page again."
            )
        try:
            return page.answer(visit)
        except HTTPException as error:
            return self._told(visit, HTTPStatus(error.status_code), str(error.detail))
        except ConsiliumError as error:
            return self._told(visit, HTTPStatus.CONFLICT, str(error))

    def _told(self, visit: Visit, status: HTTPStatus, sentence: str) -> Response:
        return visit.page(
            PACKAGE, "told.html", status=status, sentence=sentence, home=visit.address(self._home)
        )

    async def _front(self, request: Request) -> Response:
        ended = "ended" in request.query_params
        why = "You were signed out, or were away too long." if ended else ""
        return await run_in_threadpool(self._sign_in_page, why)

    def _sign_in_page(self, why: str = "", status: int = 200) -> Response:
        shown = render_page(
            PACKAGE,
            "sign_in.html",
            name=self.name,
            why=why,
            nobody=not self.users.all(),
            idle_min=round(IDLE_S / 60),
        )
        return HTMLResponse(shown, status_code=status)

    async def _sign_in(self, request: Request) -> Response:
        fields = await read_form(request)
        return await run_in_threadpool(self._try, fields)

    def _try(self, fields: Mapping[str, str]) -> Response:
        known = self.users.find(fields.get("name", ""))
        name = "" if known is None else known.name
        if wait := self._back_off.begin(name):
            return self._sign_in_page(
                f"Too many wrong passwords; try again in {math.ceil(wait)} s.",
                HTTPStatus.TOO_MANY_REQUESTS,
            )
        with self._checking:  # each takes memory
            user = self.users.check(fields.get("name", ""), fields.get("password", ""))
        if user is None:
            log.warning("a wrong password was given for %s", name or "a name that nobody has")
            return self._sign_in_page("Name or password is wrong.", HTTPStatus.FORBIDDEN)
        self._back_off.succeeded(name)
        session, cookie = self.sessions.begin(user)
        log.info("%s (%s) signed in", user.name, user.role)
        answer = RedirectResponse(
            f"/s/{session.place}{self._home}", status_code=HTTPStatus.SEE_OTHER
        )
        answer.set_cookie(
            COOKIE, cookie, path=f"/s/{session.place}", httponly=True, samesite="strict"
        )
        return answer

    def _sign_out(self, visit: Visit) -> Response:
        self.sessions.end(visit.session.place)
        answer = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
        answer.delete_cookie(COOKIE, path=f"/s/{visit.session.place}", httponly=True)
        return answer

    async def _style(self, _: Request) -> Response:
        package, file = self._sheet
        text = page_templates(package).get_template(file).render()
        return Response(text, media_type="text/css")

    async def _refuse(self, _: Request, error: Exception) -> Response:
        refused = cast(HTTPException, error)
        return PlainTextResponse(f"{refused.detail}\n", status_code=refused.status_code)

    async def _fail(self, _: Request, error: Exception) -> Response:
        if isinstance(error, ConsiliumError):
            return PlainTextResponse(f"{error}\n", status_code=HTTPStatus.CONFLICT)
        return PlainTextResponse(
            "This page failed; the log says where (logs/web.jsonl).\n",
            status_code=HTTPStatus.INTERNAL_SERVER_ERROR,
        )
