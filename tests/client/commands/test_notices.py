"""``notices`` of both sides: a test of all addresses, and what became of notices."""

import re

import pytest
from typer.testing import CliRunner

from consilium.client.cli import app as site
from consilium.server.cli import app as coordinator
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.shared.errors import SettingsError, UnreachableError
from tests.client.site_folders import enrolled
from tests.notice_servers import mail_server
from tests.shared.notices.made_up import write_secret

TABLE = """
[notices.mail]
host = "127.0.0.1"
port = {port}
tls = "none"
from = "Klinik Süd <consilium@klinik.example>"
to = ["it@klinik.example"]
[notices.webhook]
urls = ["http://127.0.0.1:1/services/SECRET"]
secret = "webhook-secret"
"""


@pytest.fixture(params=["site", "coordinator"])
def side(request, tmp_path):
    """An app, its folder and its settings file."""
    path = tmp_path / request.param
    if request.param == "site":
        enrolled(path)
        return site, path, path / "site.toml", "site north"
    CoordinatorFolder.make(path, Settings(name="c", host="localhost", port=1), ("localhost",))
    return coordinator, path, path / "coordinator.toml", "coordinator"


def test_a_test_goes_to_every_address_and_says_what_each_server_said(side):
    app, path, file, shown = side
    with mail_server() as inbox:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(TABLE.format(port=inbox.port))
        write_secret(path)
        done = CliRunner().invoke(app, ["notices", "--test", "--folder", str(path)])
    lines = done.output.splitlines()
    assert lines[0] == "mail to it@klinik.example: taken (250 2.0.0 queued as 4711)"
    assert re.fullmatch(
        r"webhook at 127\.0\.0\.1 \([0-9a-f]{6}\): not taken; the webhook cannot be reached \(.+\)",
        lines[1],
    )
    assert "SECRET" not in done.output
    assert isinstance(done.exception, UnreachableError)
    assert str(done.exception) == "1 of 2 addresses did not take the test"
    (mail,) = inbox.mails()
    assert mail["Subject"] == f"Consilium, {shown}: a test"
    counted = CliRunner().invoke(app, ["notices", "--folder", str(path)])
    assert counted.output == "none so far\n"
    assert CliRunner().invoke(app, ["notices", "--json", "--folder", str(path)]).output == "null\n"


def test_without_the_table_a_sentence_says_where_it_belongs(side):
    app, path, file, _ = side
    done = CliRunner().invoke(app, ["notices", "--test", "--folder", str(path)])
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception).startswith(f"{file}: has no [notices]; say there whom to tell")
