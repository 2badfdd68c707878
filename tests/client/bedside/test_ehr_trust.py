"""Who is taken for the EHR: whoever has the secret, or signs as its keys say, once and in time."""

import json
from pathlib import Path
from typing import Any

import pytest

from consilium.client.bedside.ehr_trust import EhrKeys, SharedSecret
from consilium.shared.errors import AuthenticationError, SettingsError

jwt = pytest.importorskip("jwt", reason="needs the extra 'fhir'")

PATH, BASE, ISSUER = "/cds-services/x", "https://cds.example", "https://ehr.example"
NOW = 1_800_000_000.0


def test_a_secret_is_made_once_and_kept_for_this_account(tmp_path: Path) -> None:
    trust = SharedSecret(tmp_path)
    token = trust.file.read_text().strip()
    assert trust.file.stat().st_mode & 0o077 == 0
    assert SharedSecret(tmp_path).caller(token, PATH) == "EHR"
    for wrong in ("", token[:-1], token + "x", "\udc80"):
        with pytest.raises(AuthenticationError):
            trust.caller(wrong, PATH)
    trust.file.chmod(0o644)
    with pytest.raises(SettingsError, match="may be read by other accounts"):
        SharedSecret(tmp_path)


@pytest.fixture(scope="module")
def signing() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP384R1())


def keys(folder: Path, signing: Any) -> EhrKeys:
    public = jwt.algorithms.ECAlgorithm.to_jwk(signing.public_key(), as_dict=True)
    file = folder / "ehr.json"
    file.write_text(json.dumps({"keys": [public | {"kid": "one"}]}))
    return EhrKeys(file, issuer=ISSUER, base_url=BASE, clock=lambda: NOW)


def token(signing: Any, kid: str = "one", algorithm: str = "ES384", **changes: Any) -> str:
    claims = {"iss": ISSUER, "aud": BASE + PATH, "iat": NOW, "exp": NOW + 300, "jti": "1"} | changes
    kept = {name: value for name, value in claims.items() if value is not None}
    return str(jwt.encode(kept, signing, algorithm=algorithm, headers={"kid": kid}))


def test_a_token_of_the_ehr_is_taken_once(tmp_path: Path, signing: Any) -> None:
    trust = keys(tmp_path, signing)
    assert trust.caller(token(signing), PATH) == ISSUER
    with pytest.raises(AuthenticationError, match="shown before"):
        trust.caller(token(signing), PATH)
    assert trust.caller(token(signing, jti="2"), PATH) == ISSUER


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "https://cds.example/cds-services/y"},
        {"exp": NOW - 120},
        {"iat": NOW + 3600, "exp": NOW + 3700},
        {"exp": NOW + 86_400},
        {"jti": None},
        {"exp": None},
        {"kid": "two"},
    ],
)
def test_a_token_of_another_time_place_or_key_is_refused(
    tmp_path: Path, signing: Any, changes: dict[str, Any]
) -> None:
    with pytest.raises(AuthenticationError):
        keys(tmp_path, signing).caller(token(signing, **changes), PATH)


def test_what_nobody_signed_is_refused(tmp_path: Path, signing: Any) -> None:
    trust = keys(tmp_path, signing)
    unsigned = token("", algorithm="none")
    by_secret = token("x" * 64, algorithm="HS512")
    for one in ("", "a.b.c", unsigned, by_secret, token(signing)[:-4] + "AAAA"):
        with pytest.raises(AuthenticationError):
            trust.caller(one, PATH)


@pytest.mark.parametrize("content", ["", "[]", '{"keys": [7]}', '{"keys": []}'])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "ehr.json").write_text(content)
    with pytest.raises(SettingsError):
        EhrKeys(tmp_path / "ehr.json", issuer=ISSUER, base_url=BASE)
