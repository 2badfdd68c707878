"""What the user of ``init`` has said: options as choices."""

from collections.abc import Sequence

from consilium.shared.errors import SettingsError
from consilium.simulations.guesses.roles import Choices
from consilium.simulations.guesses.words import ROLES

_OTHERS = ("stays",)  # not a column: the file of the table of stays


def said(
    columns: Sequence[str],
    separator: str | None,
    time_format: str | None,
    hours_unit: str | None,
) -> Choices:
    """Return what was said.

    Args:
        columns: ``ROLE=NAME`` each.
        separator: between columns, ``tab`` for a tab.
        time_format: as strptime takes it.
        hours_unit: min, h or d.

    Raises:
        SettingsError: one names no role, or the separator is no single character.
    """
    named: dict[str, str] = {}
    known = [role for role in ROLES if " " not in role] + list(_OTHERS)
    for text in columns:
        role, equals, name = text.partition("=")
        if not equals or role not in known or not name:
            raise SettingsError(
                f"--column {text!r} must be ROLE=NAME, with a role among {', '.join(known)}"
            )
        named[role] = name
    separator = "\t" if separator in ("tab", "\\t") else separator
    if separator is not None and len(separator) != 1:
        raise SettingsError(f"--separator {separator!r} must be one character, or tab")
    return Choices(
        columns=named, separator=separator, time_format=time_format, hours_unit=hours_unit
    )
