"""What the commands about persons do, on both sides: passwords are asked for, never arguments."""

import getpass
import os
import sys

from consilium.shared.errors import SettingsError
from consilium.shared.web.users import MOST_CHARACTERS, Users


def new_password(descriptor: int | None) -> str:
    """Ask twice on the terminal for a password, or read it from a file descriptor.

    Raises:
        SettingsError: the two differ, or nothing can be read.
    """
    if descriptor is not None or not sys.stdin.isatty():
        return read_password(descriptor)
    first = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != first:
        raise SettingsError("the two passwords differ; nothing was changed, try again")
    return first


def read_password(descriptor: int | None) -> str:
    """Ask once for a password, or read the first line of a file descriptor or standard input.

    Raises:
        SettingsError: nothing can be read there, or it is not text.
    """
    if descriptor is None and sys.stdin.isatty():
        return getpass.getpass("Password: ")
    number = 0 if descriptor is None else descriptor
    try:
        with os.fdopen(os.dup(number), "rb") as given:
            line = given.readline(8 * MOST_CHARACTERS)
        return line.decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"no password can be read as UTF-8 text from file descriptor {number}; write one line "
            "there"
        ) from error


def user_lines(users: Users) -> list[str]:
    """Return a line for each person: name and role."""
    known = users.all()
    return [f"{one.role:<10} {one.name}" for one in known] or ["nobody can sign in yet"]
