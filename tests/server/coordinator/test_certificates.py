"""The server certificate is renewed in time, for the same names, as long as the authority lasts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consilium.server.coordinator.certificates import (
    AUTHORITY_DAYS,
    RENEW_BEFORE,
    SERVER_DAYS,
    CertificateFiles,
    issue_server_certificate,
    make_authority,
    renew_in_time,
)
from consilium.shared.errors import SettingsError

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("fl.example.org", "10.0.0.7")


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    made = CertificateFiles.under(tmp_path)
    make_authority(made, name="tests", now=BEGIN)
    issue_server_certificate(made, NAMES, now=BEGIN)
    return made


def test_a_certificate_is_renewed_before_it_ends_and_not_earlier(files: CertificateFiles) -> None:
    ends = files.expires()
    assert not renew_in_time(files, now=ends - RENEW_BEFORE - timedelta(days=1))
    assert renew_in_time(files, now=ends - timedelta(days=30))
    assert files.expires() > ends + timedelta(days=SERVER_DAYS - 60)
    assert files.names() == NAMES
    assert not renew_in_time(files, now=ends - timedelta(days=30))


def test_one_that_has_ended_is_renewed_too(files: CertificateFiles) -> None:
    assert renew_in_time(files, now=files.expires() + timedelta(days=3))


def test_renewing_ends_with_the_authority_and_does_not_go_round_in_circles(
    files: CertificateFiles,
) -> None:
    last = BEGIN + timedelta(days=AUTHORITY_DAYS - 40)
    assert renew_in_time(files, now=last)
    assert not renew_in_time(files, now=last)
    assert not renew_in_time(files, now=BEGIN + timedelta(days=AUTHORITY_DAYS + 40))


def test_past_the_authority_rotating_says_what_to_do(files: CertificateFiles) -> None:
    past = BEGIN + timedelta(days=AUTHORITY_DAYS + 1)
    with pytest.raises(SettingsError, match=r"authority ended .*; run .init. in a new folder"):
        issue_server_certificate(files, NAMES, now=past)
