"""Short secrets in files of their own, which only this account may read."""

from pathlib import Path

from consilium.shared.errors import SettingsError

LARGEST_BYTES = 4096
PAIR = "NAME:PASSWORD"


def read_private(file: Path, *, named: str, form: str = "of text") -> str:
    """Return the one line that a file holds.

    Args:
        file: the file.
        named: the setting that names it, for the sentence.
        form: what the line is, for the sentence.

    Raises:
        SettingsError: it cannot be read, is longer than a line, or is readable by other accounts.
    """
    try:
        mode = file.stat().st_mode
        with file.open("rb") as opened:
            text = opened.read(LARGEST_BYTES + 1).decode("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file}: cannot be read ({getattr(error, 'strerror', 'not UTF-8')}); {named} names it"
        ) from None
    if mode & 0o077:
        raise SettingsError(
            f"{file}: may be read by other accounts (mode {mode & 0o777:o}); run 'chmod 600 {file}'"
        )
    if len(text) > LARGEST_BYTES or not text.isprintable():
        raise SettingsError(f"{file}: must hold one line {form}; {named} names it")
    return text


def read_pair(file: Path, *, named: str) -> tuple[str, str]:
    """Return the name and the password of a file of one line, NAME:PASSWORD.

    Raises:
        SettingsError: as :func:`read_private`, or it has another form.
    """
    name, colon, password = read_private(file, named=named, form=PAIR).partition(":")
    if not name or not colon:
        raise SettingsError(f"{file}: must hold one line {PAIR}; {named} names it")
    return name, password
