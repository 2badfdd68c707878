"""What no request may do, whoever sends it, over a real connection."""

import asyncio
import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import Response

from consilium.shared.errors import DataError, SettingsError
from consilium.shared.web.application import Application, Page, Visit
from consilium.shared.web.back_off import BackOff
from consilium.shared.web.guard import LARGEST_FORM
from consilium.shared.web.server import listen
from consilium.shared.web.users import Users
from tests.web_served import PASSWORD, QUICK, Person, served

DONE: list[str] = []


def home(visit: Visit) -> Response:
    return visit.page("consilium.shared.web", "told.html", sentence="<i>hello</i>", home="/")


def act(visit: Visit) -> Response:
    DONE.append(visit.by)
    return visit.go("/overview", "It was <b>done</b>.")


def fails(visit: Visit) -> Response:
    if visit.query:
        raise RuntimeError("patient 4711")
    raise DataError("the <records> cannot be read")


PAGES = [
    Page(path="/overview", roles=frozenset(("steward", "it")), answer=home, link="Overview"),
    Page(path="/act", roles=frozenset(("steward",)), answer=act, changes=True),
    Page(path="/fails", roles=frozenset(("it",)), answer=fails),
]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    made = Users(tmp_path_factory.mktemp("web"), ("steward", "it"), command="x", cost=QUICK)
    made.set("Anna Meier", "steward", PASSWORD)
    made.set("Tom", "it", PASSWORD)
    return made


@pytest.fixture(scope="module")
def address(users: Users) -> Iterator[str]:
    with served(Application("A hospital", users, PAGES)) as found:
        yield found


def raw(address: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int:
    """The status of a request exactly as it is written here."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    status = connection.getresponse().status
    connection.close()
    return status


def test_signing_in_leads_to_the_first_page_and_signing_out_ends_it(address: str) -> None:
    anna = Person(address, "anna meier")
    cookie = anna.answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert f"Path={anna.place}" in cookie
    shown = anna.get("/overview")
    assert "Anna Meier, steward" in shown.text
    assert "&lt;i&gt;hello" in shown.text
    assert anna.post("/sign-out").url.path == "/"
    assert anna.get("/overview").headers["location"] == "/?ended=1"
    assert "signed out" in anna.client.get("/?ended=1").text


def test_every_answer_forbids_scripts_frames_and_keeping(address: str) -> None:
    anna = Person(address, "Anna Meier")
    for answer in (
        anna.answer,
        anna.get("/overview"),
        anna.get("/nowhere"),
        anna.client.get("/style.css"),
        anna.client.get("/"),
        anna.client.get("/", headers={"Host": "evil.example"}),
        anna.client.post("/sign-in", data={"name": "x"}),
    ):
        policy = answer.headers["content-security-policy"]
        assert "script" not in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        assert "<script" not in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "evil.example:127.0.0.1", "", "[::1]:80"]
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(address: str, host: str) -> None:
    assert raw(address, "GET", "/", {"Host": host}) == 403
    port = urlsplit(address).port
    assert raw(address, "GET", "/", {"Host": f"localhost:{port}"}) == 200


def test_a_request_without_a_host_is_refused(address: str) -> None:
    assert raw(address, "GET", "/", {}) in (400, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},  # another port of this machine, which is the same site
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_form_that_another_page_sends_does_nothing(address: str, headers: dict[str, str]) -> None:
    anna = Person(address, "Anna Meier")
    DONE.clear()
    for path, fields in (("/sign-in", {"name": "Anna Meier", "password": PASSWORD}),
                         (f"{anna.place}/act", {"token": anna.token})):  # fmt: skip
        answer = anna.client.post(path, data=fields, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    bare = httpx.post(f"{address}{anna.place}/act", cookies=dict(anna.client.cookies),
                      data={"token": anna.token}, trust_env=False)  # fmt: skip
    assert bare.status_code == 403
    assert DONE == []


def test_a_form_needs_the_token_of_its_own_session(address: str) -> None:
    anna, again = Person(address, "Anna Meier"), Person(address, "Anna Meier")
    DONE.clear()
    for token in ("", "x", again.token, "é"):
        assert anna.post("/act", token=token).status_code == 403
    assert DONE == []
    assert "It was &lt;b&gt;done" in anna.post("/act").text
    assert DONE == ["Anna Meier (steward)"]
    assert "It was" not in anna.get("/overview").text


def test_an_act_is_never_a_link(address: str) -> None:
    assert Person(address, "Anna Meier").get("/act").status_code == 405


def test_another_role_is_told_whose_the_page_is(address: str) -> None:
    tom = Person(address, "Tom")
    DONE.clear()
    refused = tom.post("/act")
    assert refused.status_code == 403
    assert "Your role is it; this is for steward." in refused.text
    assert DONE == []


def test_a_cookie_is_worth_nothing_at_another_place(address: str) -> None:
    anna, tom = Person(address, "Anna Meier"), Person(address, "Tom")
    (stolen,) = anna.client.cookies.values()
    there = {"Cookie": f"consilium={stolen}"}
    for place in (tom.place, "/s/x", "/s/.."):
        answer = httpx.get(
            f"{address}{place}/overview", headers=there, trust_env=False, follow_redirects=False
        )
        assert answer.status_code in (303, 404)
    planted = {"Cookie": f"consilium=planted; consilium={stolen}; consilium=x"}
    found = httpx.get(f"{address}{anna.place}/overview", headers=planted, trust_env=False)
    assert found.status_code == 200


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/style.css/../x", "/%2e%2e/x", "//x", "/s"])
def test_a_path_that_leads_out_leads_nowhere(address: str, path: str) -> None:
    host = urlsplit(address).netloc
    assert raw(address, "GET", path, {"Host": host}) in (303, 404)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * LARGEST_FORM, 413),
        ("application/x-www-form-urlencoded", b"a=%ff", 400),
        ("application/x-www-form-urlencoded", b"\xff", 400),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 51), 400),
        ("application/x-www-form-urlencoded", b"name=a&name=b", 400),
    ],
)
def test_what_is_no_small_form_is_refused(
    address: str, kind: str, body: bytes, status: int
) -> None:
    headers = {"Host": urlsplit(address).netloc, "Origin": address, "Content-Type": kind}
    assert raw(address, "POST", "/sign-in", headers, body) == status


def test_wrong_passwords_wait_and_the_right_one_too(users: Users) -> None:
    application = Application("A hospital", users, PAGES, back_off=BackOff(lambda: 0.0))
    with served(application) as address:
        told = [Person(address, "Tom", "wrong").answer for _ in range(3)]
        assert [one.status_code for one in told] == [403, 403, 403]
        right = Person(address, "tom").answer
        assert right.status_code == 429
        assert "try again in 1 s" in right.text
        assert Person(address, "Anna Meier").answer.status_code == 303
        for name in ("x", "y", "z"):
            assert Person(address, name, "wrong").answer.status_code == 403
        assert Person(address, "w", "wrong").answer.status_code == 429


def test_a_mistake_is_told_and_a_defect_is_not_quoted(address: str) -> None:
    tom = Person(address, "Tom")
    told = tom.get("/fails")
    assert told.status_code == 409
    assert "the &lt;records&gt; cannot be read" in told.text
    broken = tom.get("/fails?x=1")
    assert broken.status_code == 500
    assert "4711" not in broken.text


def test_nobody_is_told_how_to_be_let_in(tmp_path: Path) -> None:
    nobody = Users(tmp_path, ("it",), command="x", cost=QUICK)
    with served(Application("A hospital", nobody, PAGES)) as address:
        assert "web-user add" in httpx.get(address, trust_env=False).text


def test_what_is_no_request_is_not_answered(users: Users) -> None:
    async def nothing(*_: object) -> dict[str, str]:
        raise AssertionError

    application = Application("A hospital", users, PAGES)
    asyncio.run(application.asgi({"type": "websocket"}, nothing, nothing))  # type: ignore[arg-type]


def test_a_damaged_file_of_persons_is_told_to_whoever_asks(tmp_path: Path) -> None:
    users = Users(tmp_path, ("it",), command="x", cost=QUICK)
    users.file.touch(0o600)
    with served(Application("A hospital", users, PAGES)) as address:
        told = httpx.get(address, trust_env=False)
    assert told.status_code == 409
    assert "is damaged" in told.text


def test_a_port_that_is_taken_is_told() -> None:
    taken = listen(0)
    with pytest.raises(SettingsError, match="type no password into what listens there"):
        listen(taken.getsockname()[1])
    taken.close()
