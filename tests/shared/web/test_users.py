"""Who may sign in: passwords are salted and slow, the file is its owner's alone."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from consilium.shared.errors import SettingsError
from consilium.shared.web import commands
from consilium.shared.web.commands import new_password, read_password, user_lines
from consilium.shared.web.users import COST, LARGEST_BYTES, User, Users

PASSWORD = "four words that rhyme"


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(tmp_path, ("steward", "it"), command="x web-user", cost=2)


def test_a_person_has_one_password_under_any_spelling_of_the_name(users: Users) -> None:
    users.set("Ännchen O'Hara", "steward", PASSWORD)
    found = users.check("ännchen o'hara", PASSWORD)
    assert found is not None
    assert (found.name, found.role) == ("Ännchen O'Hara", "steward")
    assert users.check("Ännchen O'Hara", PASSWORD + "x") is None
    assert users.check("nobody", PASSWORD) is None
    users.set("ÄNNCHEN O'HARA", "it", "another long password")
    assert [one.role for one in users.all()] == ["it"]
    assert users.check("Ännchen O'Hara", PASSWORD) is None
    assert user_lines(users) == ["it         ÄNNCHEN O'HARA"]
    users.remove("ännchen o'hara")
    assert user_lines(users) == ["nobody can sign in yet"]
    with pytest.raises(SettingsError, match="nobody is named"):
        users.remove("ännchen o'hara")


def test_the_same_password_is_never_hashed_to_the_same_and_stands_nowhere(users: Users) -> None:
    users.set("anna", "steward", PASSWORD)
    users.set("bert", "steward", PASSWORD)
    text = users.file.read_text()
    anna, bert = json.loads(text)["users"]
    assert anna["hashed"] != bert["hashed"]
    assert PASSWORD not in text
    assert stat.S_IMODE(users.file.stat().st_mode) == 0o600
    assert anna["hashed"] not in repr(users.all())


def test_passwords_cost_as_much_as_is_said_unless_a_test_says_otherwise(tmp_path: Path) -> None:
    users = Users(tmp_path, ("it",), command="x")
    users.set("anna", "it", PASSWORD)
    assert users.all()[0].cost == COST == 15


@pytest.mark.parametrize(
    ("name", "role", "password", "told"),
    [
        ("", "it", PASSWORD, "no name to sign in with"),
        ("a\nb", "it", PASSWORD, "no name to sign in with"),
        ("<b>", "it", PASSWORD, "no name to sign in with"),
        ("a" * 49, "it", PASSWORD, "no name to sign in with"),
        ("anna", "chief", PASSWORD, "must be one of steward, it"),
        ("anna", "it", "short", "has 5 characters; take 12 to 256"),
        ("anna", "it", "x" * 257, "has 257 characters"),
        ("anna maria meier", "it", "Anna Maria Meier", "is the person's name"),
    ],
)
def test_what_nobody_can_be_named_or_take_is_refused(
    users: Users, name: str, role: str, password: str, told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        users.set(name, role, password)
    assert users.all() == ()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        pytest.param(" " * (LARGEST_BYTES + 1), id="large"),
        '{"users": [{}]}',
        '{"users": [{"name": "a", "role": "it", "salt": "00", "cost": 15, "hashed": "00"}]}',
    ],
)
def test_a_damaged_file_lets_nobody_in(users: Users, content: str) -> None:
    users.file.touch(0o600)
    users.file.write_text(content)
    with pytest.raises(SettingsError, match="is damaged; remove it"):
        users.check("a", PASSWORD)


def test_a_file_that_others_can_read_lets_nobody_in(users: Users) -> None:
    users.set("anna", "it", PASSWORD)
    users.file.chmod(0o640)
    with pytest.raises(SettingsError, match="may be read by other accounts"):
        users.check("anna", PASSWORD)


def test_of_persons_added_side_by_side_none_is_lost(users: Users) -> None:
    names = [f"person {number}" for number in range(8)]
    threads = [threading.Thread(target=users.set, args=(name, "it", PASSWORD)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.name for one in users.all()] == names


def test_a_password_comes_from_a_descriptor_without_its_line_break() -> None:
    for written, read in ((b"two words \n", "two words "), (b"none", "none"), (b"a\r\n\nb", "a")):
        out, into = os.pipe()
        os.write(into, written)
        os.close(into)
        assert read_password(out) == read
        os.close(out)
    with pytest.raises(SettingsError, match="no password can be read"):
        read_password(out)


def test_a_password_is_asked_for_twice_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.sys.stdin, "isatty", lambda: True, raising=False)
    typed = iter(["one of many words", "one of many words", "this", "that", "once"])
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))
    assert new_password(None) == "one of many words"
    with pytest.raises(SettingsError, match="the two passwords differ"):
        new_password(None)
    assert read_password(None) == "once"


def test_a_password_comes_from_standard_input_that_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, into = os.pipe()
    os.write(into, b"\xff\n")
    os.close(into)
    monkeypatch.setattr(commands.sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(SettingsError, match="as UTF-8 text from file descriptor"):
        new_password(out)
    os.close(out)


def test_a_file_that_cannot_be_read_is_told(users: Users) -> None:
    users.file.mkdir(mode=0o700)
    with pytest.raises(SettingsError, match="cannot be read"):
        users.all()


def test_an_entry_does_not_print_its_hash() -> None:
    assert "ab12" not in str(User(name="a", role="it", salt="ab12", cost=2, hashed="ab12"))
