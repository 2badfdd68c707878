"""What people type to make sure of other hospitals, and what they see of it."""

import json
from pathlib import Path

import pytest
import segno
from typer.testing import CliRunner

from consilium.client.cli import app
from consilium.client.commands.vouch import qr_blocks
from consilium.client.hospital.folder import SiteFolder
from consilium.shared.audit.entry import AuditEntry
from consilium.shared.audit.events import Vouched, VouchersTaken
from consilium.shared.audit.reading import read_lines
from consilium.shared.enrolment.fingerprint import fingerprint, to_hex, to_qr_text, to_words
from consilium.shared.errors import AuditError, PolicyError, SettingsError
from tests.client.site_folders import enrolled

MODULES = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}  # dark is 1; the blocks are light


def run(*words: str, folder: SiteFolder) -> str:
    """Run a command to its end; its own errors are raised."""
    asked = [*words, "--folder", str(folder.path)]
    result = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def print_of(folder: SiteFolder) -> bytes:
    return fingerprint(folder.owner(), folder.identity().public)


def events_of(folder: SiteFolder) -> list[object]:
    lines = read_lines(folder.path / "audit.jsonl")
    events = [AuditEntry.from_line(line).event for line in lines]
    return [event for event in events if isinstance(event, Vouched | VouchersTaken)]


@pytest.fixture
def north(tmp_path: Path) -> SiteFolder:
    return enrolled(tmp_path / "north", "north")


@pytest.fixture
def south(tmp_path: Path) -> SiteFolder:
    return enrolled(tmp_path / "south", "south")


def test_a_site_shows_its_fingerprint_in_every_form(north: SiteFolder) -> None:
    own = print_of(north)
    shown = run("identity", folder=north)
    listed = shown.split(":", 1)[1].split(to_hex(own))[0].split()
    assert listed[1::2] == list(to_words(own))
    assert listed[::2] == [str(place) for place in range(1, 13)]
    assert qr_blocks(to_qr_text("north", own)) in shown
    told = json.loads(run("identity", "--json", folder=north))
    assert told == {
        "site": "north",
        "words": " ".join(to_words(own)),
        "fingerprint": own.hex(),
        "qr": to_qr_text("north", own),
    }


def test_the_drawn_code_is_the_one_of_the_text_module_by_module() -> None:
    text = to_qr_text("coronary-unit", bytes(range(16)))
    rows = qr_blocks(text).split("\n")
    drawn = [[MODULES[block][half] for block in row] for row in rows for half in (0, 1)]
    quiet = 4
    matrix = [list(row) for row in segno.make_qr(text, error="m").matrix]
    size = len(matrix)
    inner = [row[quiet:-quiet] for row in drawn[quiet : quiet + size]]
    assert inner == matrix
    border = [*drawn[:quiet], *drawn[quiet + size : size + 2 * quiet]]
    assert not any(map(any, border))
    assert all(len(row) == size + 2 * quiet for row in drawn)


def test_a_site_that_is_not_enrolled_yet_has_a_fingerprint_once_it_has_a_name(
    tmp_path: Path,
) -> None:
    nameless = SiteFolder.make(tmp_path / "nameless")
    with pytest.raises(SettingsError, match="this site has no name yet"):
        run("identity", folder=nameless)
    named = SiteFolder.make(tmp_path / "named", site="east")
    own = fingerprint("east", named.identity().public)
    assert json.loads(run("identity", "--json", folder=named))["fingerprint"] == own.hex()


def test_a_hospital_is_vouched_for_by_words_digits_or_code_and_the_log_says_so(
    north: SiteFolder, south: SiteFolder
) -> None:
    own = print_of(south)
    said = run("vouch", "south", *to_words(own), folder=north)
    assert f"This site now vouches for south, {to_hex(own)}." in said
    for typed in (
        ["south", *map(str.upper, to_words(own))],
        ["south", own.hex()],
        ["south", *to_hex(own).split()],
        [to_qr_text("south", own)],
        ["south", to_qr_text("south", own)],
    ):
        assert "vouches already" in run("vouch", *typed, folder=north)
    (event,) = events_of(north)
    assert isinstance(event, Vouched)
    assert (event.hospital, event.fingerprint, event.vouched) == ("south", own, True)
    assert run("vouch", "--list", folder=north) == f"south  {to_hex(own)}  by this site\n"


def test_a_slip_of_the_tongue_is_named_and_nothing_is_pinned(
    north: SiteFolder, south: SiteFolder
) -> None:
    words = list(to_words(print_of(south)))
    with pytest.raises(SettingsError, match="word 3, 'applr', is not in the list: did you mean 'a"):
        run("vouch", "south", *words[:2], "applr", *words[3:], folder=north)
    assert run("vouch", "--list", folder=north) == "This site vouches for nobody yet.\n"
    assert events_of(north) == []


def test_vouchers_go_from_hospital_to_hospital_as_files(
    north: SiteFolder, south: SiteFolder, tmp_path: Path
) -> None:
    east = bytes(16)
    file = tmp_path / "south.vouchers"
    with pytest.raises(SettingsError, match="vouches for nobody yet"):
        run("vouch", "--export", str(file), folder=south)
    run("vouch", "east", east.hex(), folder=south)
    assert "word for east; signed" in run("vouch", "--export", str(file), folder=south)
    with pytest.raises(PolicyError, match="south is not vouched for by this site"):
        run("vouch", "--import", str(file), folder=north)
    run("vouch", "south", print_of(south).hex(), folder=north)
    assert "south vouches for east." in run("vouch", "--import", str(file), folder=north)
    taken = events_of(north)[-1]
    assert isinstance(taken, VouchersTaken)
    assert (taken.signer, taken.signer_identity) == ("south", south.identity().public)
    assert f"east  {to_hex(east)}  by south\n" in run("vouch", "--list", folder=north)
    run("vouch", "--withdraw", "south", folder=north)
    assert "by south (does not count" in run("vouch", "--list", folder=north)
    run("vouch", "--withdraw", "east", folder=south)
    assert "word for nobody" in run("vouch", "--export", str(file), folder=south)


def test_a_withdrawal_is_in_the_log_with_what_was_withdrawn(
    north: SiteFolder, south: SiteFolder
) -> None:
    run("vouch", "south", print_of(south).hex(), folder=north)
    assert "vouches for south no longer" in run("vouch", "--withdraw", "south", folder=north)
    event = events_of(north)[-1]
    assert isinstance(event, Vouched)
    assert (event.hospital, event.fingerprint, event.vouched) == ("south", print_of(south), False)
    with pytest.raises(SettingsError, match="south is not vouched for"):
        run("vouch", "--withdraw", "south", folder=north)


def test_vouchers_that_the_log_does_not_name_are_found_by_audit_verify(
    north: SiteFolder, south: SiteFolder
) -> None:
    run("vouch", "south", print_of(south).hex(), folder=north)
    run("audit", "verify", folder=north)
    (north.path / "vouchers" / "north.vouchers").unlink()
    with pytest.raises(AuditError, match="its audit log differ on south"):
        run("audit", "verify", folder=north)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "one thing at a time"),
        (["--list", "--withdraw", "south"], "one thing at a time"),
        (["south", "--list"], "one thing at a time"),
        (["south"], "the fingerprint of south is missing"),
        (["so/uth", "0" * 32], "'so/uth' is not a hospital's name"),
        (["north", "0" * 32], "north is this site"),
        (["consilium:x"], "is not the text of a hospital's QR code"),
        (["--import", "nowhere.vouchers"], "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_sentence(
    words: list[str], sentence: str, north: SiteFolder
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        run("vouch", *words, folder=north)


def test_a_list_that_cannot_be_written_is_said(north: SiteFolder, tmp_path: Path) -> None:
    run("vouch", "south", "0" * 32, folder=north)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be written"):
        run("vouch", "--export", str(tmp_path / "file" / "x"), folder=north)


def test_only_an_enrolled_site_vouches_since_its_log_bears_its_name(tmp_path: Path) -> None:
    named = SiteFolder.make(tmp_path / "named", site="east")
    with pytest.raises(SettingsError, match="is not enrolled"):
        run("vouch", "south", "0" * 32, folder=named)
