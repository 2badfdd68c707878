"""A study's file with some settings changed: the same text where that is simple, comments and all.

A changed text is read again, and taken only if it is the study that was meant; else the study is
written anew, without comments.
"""

import re
from collections.abc import Mapping
from typing import Any

from consilium.shared.errors import StudyError
from consilium.shared.study.definition import Study, parse_study
from consilium.simulations.experiments.search_space import Changes, plain
from consilium.simulations.guesses.toml_text import key_text, line, remark, value_text

_HEADER = re.compile(r"^\s*\[")
_VALUE = r"""("[^"\\]*"|'[^']*'|[^\s#"'\[{]+)"""  # a text, a number or a truth on one line


def study_text(study: Study, changes: Changes, meant: Study, text: str | None, about: str) -> str:
    """Return the file of a study with changes.

    Args:
        study: without them.
        changes: by table and key.
        meant: with them.
        text: the file of ``study``; None if there is none.
        about: a remark for its first line.

    Returns:
        TOML text whose study is ``meant``.
    """
    if text is not None and _is(text, study):
        edited = text
        for (table, key), value in changes.items():
            edited = _edited(edited, table, key, value)
        if _is(edited, meant):
            return f"{remark(about)}\n{edited}"
    return f"{remark(about)}\n{_anew(meant)}"


def _is(text: str, study: Study) -> bool:
    try:
        return parse_study(text).digest == study.digest
    except StudyError:
        return False


def _edited(text: str, table: str, key: str, value: Any) -> str:
    """Return the text with a key's line changed, or added to its table."""
    lines = text.splitlines()
    begin, end = _span(lines, table)
    if begin is None:
        return "\n".join([*lines, "", f"[{table}]", line(key, plain(value))]) + "\n"
    pattern = re.compile(rf"^(\s*{re.escape(key_text(key))}\s*=\s*){_VALUE}(\s*(?:#.*)?)$")
    for number in range(begin, end):
        if found := pattern.match(lines[number]):
            lines[number] = f"{found[1]}{value_text(plain(value))}{found[3]}"
            break
    else:
        lines.insert(begin, line(key, plain(value)))
    return "\n".join(lines) + "\n"


def _span(lines: list[str], table: str) -> tuple[int | None, int]:
    """Return the lines of a table (first, end), its header left out; ``study`` has none."""
    headers = [number for number, one in enumerate(lines) if _HEADER.match(one)]
    header = re.compile(rf"^\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?$")
    if table == "study":
        return 0, headers[0] if headers else len(lines)
    for number in headers:
        if header.match(lines[number]):
            after = [other for other in headers if other > number]
            return number + 1, after[0] if after else len(lines)
    return None, 0


def _anew(study: Study) -> str:
    """Return a study as TOML: top-level keys, then a table each, values on one line."""
    content = _known(study.model_dump(by_alias=True, exclude_defaults=True))
    keys = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    text = [line(key, value) for key, value in keys.items()]
    for name, table in content.items():
        if isinstance(table, Mapping):
            text += ["", f"[{key_text(name)}]", *(line(key, value) for key, value in table.items())]
    return "\n".join(text) + "\n"


def _known(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content without keys that are not set, which TOML cannot say."""
    return {
        key: _known(value) if isinstance(value, Mapping) else plain(value)
        for key, value in content.items()
        if value is not None
    }
