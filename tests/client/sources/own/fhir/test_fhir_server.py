"""FHIR from a server, one of ours on loopback: what is fetched, refused, retried, and told."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from consilium.client.records.features import to_grid
from consilium.client.sources.own.fhir import fhir_connection, fhir_server
from consilium.client.sources.own.fhir.fhir_connection import assertion
from consilium.client.sources.own.settings.systems import FhirAuth, FhirSettings
from consilium.client.sources.reach import ask_source
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import ConsiliumError, DataError, SettingsError
from tests.client.sources.fhir_server import FhirServer, private_pem, running
from tests.client.sources.own.fhir.test_fhir import (
    SMALL,
    condition,
    encounter,
    observation,
    patient,
    values,
)

PEOPLE = ("1", "2", "3")


def numbered(identity: str, hour: int, value: float) -> dict[str, Any]:
    when = f"2020-01-01T{9 + hour:02}:00:00Z"
    return observation(identity, value, id=f"{identity}-{hour}", effectiveDateTime=when)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FhirServer]:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fhir_connection, "wait", lambda seconds: None)
    content = [patient(one) for one in PEOPLE] + [encounter(one) for one in PEOPLE]
    content += [numbered(one, hour, 80 + hour) for one in PEOPLE for hour in range(3)]
    with running(tmp_path, [*content, condition("2", onsetDateTime="2020-01-02")]) as state:
        yield state


def settings(server: FhirServer, text: str = "") -> FhirSettings:
    table = tomllib.loads(
        f'source = "fhir"\nserver = "{server.address}/fhir"\nca_file = "{server.ca}"\n{text}'
    )
    chosen = read_data_settings(table, where="site.toml", folder=server.ca.parent)
    assert isinstance(chosen, FhirSettings)
    return chosen


def read(server: FhirServer, text: str = "") -> list[list[float]]:
    source = open_source(settings(server, text), SMALL)
    return values(to_grid(source.read_patients(SMALL), SMALL))


EVERYBODY = [[80, 81, 82]] * 3
CONDITION = '[outcome]\nkind = "condition"\ncodes = ["http://snomed.info/sct|91302008"]'


def test_an_export_is_asked_for_awaited_fetched_and_deleted(server: FhirServer) -> None:
    assert read(server) == EVERYBODY
    assert server.asked[0] == "/fhir/$export?_type=Patient%2CEncounter%2CObservation"
    assert server.asked.count("/fhir/status/1") == 2
    assert server.asked[-1] == "DELETE /fhir/status/1"
    assert read(server, 'group = "icu"') == EVERYBODY
    assert any("Group/icu" in one for one in server.asked)


def test_a_search_is_followed_page_by_page(server: FhirServer) -> None:
    text = 'fetch = "search"\nsearch = { Observation = "category=vital-signs" }\n'
    assert read(server, text) == EVERYBODY
    first = next(one for one in server.asked if "/Observation" in one)
    assert first == "/fhir/Observation?_count=1000&category=vital-signs"
    assert sum("/Observation" in one for one in server.asked) == 5
    source = open_source(settings(server, text + CONDITION), SMALL)
    assert to_grid(source.read_patients(SMALL), SMALL).y_N.tolist() == [0, 1, 0]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("fetch", ["export", "search"])
@pytest.mark.parametrize("fault", [429, 503, 500, "cut"])
@pytest.mark.parametrize("place", ["Observation", "Patient"])
def test_a_server_that_fails_now_and_then_is_asked_again(
    fetch: str, fault: int | str, place: str, server: FhirServer
) -> None:
    server.faults = [(place, fault)] * 3
    server.faults += [("status", 503)]
    assert read(server, f'fetch = "{fetch}"') == EVERYBODY


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        ([("status", 503)] * 6, "the state of the export: the server answers 503 again and again"),
        ([("export", 404)], "the export: refused with 404; check"),
        ([("export", 403)], r"the export: refused with 403; check \[data.auth\]"),
        ([("export", 302)], r"redirected \(302\); write the address that it leads to"),
        ([("export", 401)] * 2, "the export: refused with 401"),
        ([("files", "cut")] * 9, "the server cannot be reached, or the line was cut"),
    ],
)
def test_a_server_that_fails_is_told_in_one_sentence(
    faults: list[tuple[str, int | str]], sentence: str, server: FhirServer
) -> None:
    server.faults = faults
    with pytest.raises(DataError, match=sentence) as caught:
        read(server)
    assert "\n" not in str(caught.value)


def test_nothing_is_fetched_from_hosts_that_nobody_named(server: FhirServer) -> None:
    server.next_host = "https://127.0.0.2:9"
    with pytest.raises(DataError, match="names a page elsewhere than on itself"):
        read(server, 'fetch = "search"')
    server.file_host = "https://files.example.org"
    with pytest.raises(DataError, match=r"lies on files\.example\.org; if that is right, add it"):
        read(server)
    assert server.asked[-1] == "DELETE /fhir/status/1"
    server.file_host = server.address.replace("https", "http")
    with pytest.raises(DataError, match="the export lies on 127"):
        read(server, f'file_hosts = ["{server.file_host.rpartition("//")[2]}"]')


def test_a_certificate_that_nobody_vouches_for_is_refused(server: FhirServer) -> None:
    chosen = settings(server).model_copy(update={"ca_file": None})
    with pytest.raises(DataError, match="certificate is not vouched for; name the hospital's"):
        list(open_source(chosen, SMALL).read_patients(SMALL))
    (server.ca.parent / "ca").write_text("none")
    with pytest.raises(SettingsError, match="holds no certificate in PEM"):
        list(
            open_source(
                chosen.model_copy(update={"ca_file": server.ca.parent / "ca"}), SMALL
            ).read_patients(SMALL)
        )


def test_an_export_that_failed_in_parts_grows_too_large_or_takes_too_long_is_refused(
    server: FhirServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.errors = [{"resourceType": "OperationOutcome", "issue": [{"severity": "information"}]}]
    assert read(server) == EVERYBODY
    server.errors[0]["issue"].append({"severity": "error", "diagnostics": "Meier"})
    with pytest.raises(DataError, match="says that 1 parts of the export failed") as caught:
        read(server)
    assert "Meier" not in str(caught.value)
    server.errors = []
    with pytest.raises(DataError, match="has more than 1e-06 GiB for this study"):
        read(server, "largest_gib = 0.000001")
    server.polls = 10**9
    monkeypatch.setattr(fhir_connection, "POLL_S", 5.0)
    monkeypatch.setattr(fhir_connection, "_asked_pause", lambda headers, otherwise: otherwise)
    with pytest.raises(DataError, match=r"was not ready within 0\.001 hours"):
        read(server, "longest_wait_h = 0.001")


def test_a_page_that_is_too_large_or_no_bundle_is_refused(
    server: FhirServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = f"{server.address}/fhir/.well-known/smart-configuration?"
    chosen = settings(server, 'fetch = "search"').model_copy(update={"server": elsewhere})
    with pytest.raises(DataError, match="the search for Patient is answered by no Bundle"):
        list(open_source(chosen, SMALL).read_patients(SMALL))
    monkeypatch.setattr(fhir_server, "LARGEST_DOCUMENT", 100)
    with pytest.raises(DataError, match="is answered by more than 100 bytes"):
        read(server, 'fetch = "search"')


KEYS = {
    "RS384": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
}
AUTH = '[auth]\nclient_id = "site-7"\nkey_file = "key.pem"\nkey_id = "k1"\n'


def write_key(folder: Path, key: Any, mode: int = 0o600) -> Path:
    path = folder / "key.pem"
    path.unlink(missing_ok=True)
    path.touch(mode=mode)
    path.write_bytes(private_pem(key))
    return path


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_site_proves_by_its_key_who_it_is(algorithm: str, server: FhirServer) -> None:
    jwt = pytest.importorskip("jwt")
    key = KEYS[algorithm]()
    write_key(server.ca.parent, key)
    server.public_key = key.public_key()
    assert read(server, AUTH) == EVERYBODY
    assert len(server.tokens) == 1
    auth = settings(server, AUTH).auth
    assert auth is not None
    header = jwt.get_unverified_header(assertion(auth, "https://x/token"))
    assert (header["alg"], header["kid"]) == (algorithm, "k1")
    server.tokens.clear()  # as if it had run out at the server
    server.faults = [("files", 401)]
    server.polls = 2
    assert read(server, AUTH) == EVERYBODY
    assert len(server.tokens) == 2
    with pytest.raises(DataError, match=r"a token is refused with 400; check \[data.auth\]"):
        read(server, AUTH.replace("site-7", "site-8"))


def test_a_token_may_be_given_and_never_leaves_for_other_hosts(
    server: FhirServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.public_key, server.tokens = object(), ["opaque-7"]
    monkeypatch.setenv("FHIR_TOKEN", "opaque-7")
    chosen = settings(server, '[auth]\ntoken_env = "FHIR_TOKEN"')
    assert "opaque-7" not in repr(chosen)
    assert values(to_grid(open_source(chosen, SMALL).read_patients(SMALL), SMALL)) == EVERYBODY
    with fhir_connection.Connection.open(chosen) as connection:
        assert "Authorization" in connection._headers(f"{server.address}/fhir/x", "a")
        assert "Authorization" not in connection._headers("https://files.example.org/x", "a")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('path = "x"', "neither or both of path and server"),
        ('fetch = "search"\nsearch = { Observations = "a=b" }', r"\[data.search.Observations\]"),
        ('search = { Observation = "a=b" }', "search belongs to fetch = 'search'"),
        ('fetch = "search"\ngroup = "icu"', "group belongs to fetch = 'export'"),
        ('[auth]\nclient_id = "a"', "only one of client_id and key_file; name both"),
        ("[auth]", "must name client_id, token_env or token_file, and one of them only"),
        ('[auth]\ntoken_env = "A"\ntoken_file = "b"', "and one of them only"),
        ('group = "../x"', r"\[data\] group is not acceptable"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(
    text: str, sentence: str, server: FhirServer
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        settings(server, text)


@pytest.mark.parametrize(
    "address", ["http://h/fhir", "https://", "h", "https://me:hunter2@h/fhir", "https://h/?a=b"]
)
def test_a_server_is_named_by_https_and_without_a_secret(address: str, tmp_path: Path) -> None:
    table = {"source": "fhir", "server": address}
    with pytest.raises(SettingsError, match=r"\[data\] server: (must be|holds)") as caught:
        read_data_settings(table, where="site.toml", folder=tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_key_must_be_strong_and_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = FhirAuth(client_id="a", key_file=tmp_path / "key.pem")

    def told() -> str:
        with pytest.raises(SettingsError) as caught:
            assertion(auth, "https://x/token")
        return str(caught.value)

    pytest.importorskip("jwt")
    write_key(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    assert "holds no private key in PEM" in told()
    (tmp_path / "key.pem").write_text("secret")
    assert "secret" not in told()
    write_key(tmp_path, KEYS["ES384"](), mode=0o644)
    assert "mode 644" in told()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'consilium-fl[fhir]'" in told()


def test_an_unknown_host_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_connection, "wait", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "*")
    table = {"source": "fhir", "server": "https://127.0.0.1:9/fhir"}
    chosen = read_data_settings(table, where="site.toml", folder=tmp_path)
    with pytest.raises(ConsiliumError, match="cannot be reached, or the line was cut"):
        list(open_source(chosen, SMALL).read_patients(SMALL))


def test_retry_after_is_a_number_or_a_date_within_bounds() -> None:
    import httpx

    def pause(text: str) -> float:
        return fhir_connection._asked_pause(httpx.Headers({"retry-after": text}), 7.0)

    assert pause("3") == 3
    assert pause("999999") == fhir_connection.LONGEST_PAUSE_S
    assert pause("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert pause("soon") == pause("nan") == pause("") == 7
    assert np.isfinite(pause("1e400"))


def test_preflight_asks_the_server_what_it_is(server: FhirServer) -> None:
    assert ask_source(settings(server))[-1] == f"{server.address}/fhir answers"
    elsewhere = f"{server.address}/fhir/Patient?"
    wrong = settings(server).model_copy(update={"server": elsewhere})
    with pytest.raises(DataError, match="is no FHIR server; correct"):
        ask_source(wrong)
