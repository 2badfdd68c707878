"""Writes TOML by hand, since every line has its comment."""

import json
import re
from collections.abc import Mapping, Sequence

Value = str | int | float | bool | Sequence[str | int | float] | Mapping[str, str | float]


def key_text(name: str) -> str:
    """Return a key, quoted if it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else value_text(name)


def value_text(value: object) -> str:
    """Return a value: a text, a number, a truth, a list, or a table in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # TOML's basic strings have JSON's escapes, and DEL must be escaped, too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key_text(str(k))} = {value_text(v)}" for k, v in value.items())
        return f"{{ {inside} }}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(value_text, value))}]"
    raise TypeError(type(value).__name__)


def line(key: str, value: object, comment: str = "") -> str:
    """Return a line with a key, its value and a comment without line ends."""
    text = f"{key_text(key)} = {value_text(value)}"
    return f"{text}  {' '.join(comment.split())}" if comment else text


def remark(text: str) -> str:
    """Return a text as a comment of one line; nothing in it can end the line."""
    return f"# {' '.join(text.split())}"
