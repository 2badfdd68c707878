"""Files that people write (a study, a policy): TOML read strictly, each mistake one sentence."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from consilium.shared.errors import ConsiliumError

LARGEST_BYTES = 1 << 20

D = TypeVar("D", bound=BaseModel)


class StrictTable(BaseModel):
    """A table of such a file: frozen, and strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def read_text(path: Path, *, what: str, raises: type[ConsiliumError]) -> str:
    """Return a file's text, of a length that a person could have written.

    Args:
        path: the file.
        what: what it is, such as ``study``, for the sentence.
        raises: the error to raise.

    Raises:
        ConsiliumError: of the kind ``raises``: the file is missing, too large, or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise raises(
                f"{what} {path}: {size} bytes is above the bound of {LARGEST_BYTES}; "
                f"a {what} is a short declaration, check that this is the right file"
            )
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise raises(f"{what} {path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise raises(f"{what} {path}: is not UTF-8 text; save it as UTF-8") from error


def parse_toml(text: str, *, what: str, where: str, raises: type[ConsiliumError]) -> dict[str, Any]:
    """Return the content of TOML text; ``where`` names it in the sentence.

    Raises:
        ConsiliumError: of the kind ``raises``: it is not TOML; the line is named.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise raises(f"{what} {where}: is not valid TOML: {fault_in_words(error)}") from error


def fault_in_words(error: tomllib.TOMLDecodeError) -> str:
    """Return what is wrong with TOML text, and the remedy where the parser's words hide it."""
    told = str(error)
    if told.startswith("Expected '=' after a key"):
        told += '; a name with other signs than a-z, A-Z, 0-9, - and _ stands in quotes: "männlich"'
    elif told.startswith(("Invalid value", "Invalid hex", "Unescaped")):
        told += (
            "; a text stands in quotes, a path of Windows in single ones ('C:\\data'), and yes and "
            "no are true and false"
        )
    return f"{told}; correct that line"


def validate(
    content: dict[str, object],
    model: type[D],
    *,
    what: str,
    where: str,
    raises: type[ConsiliumError],
) -> D:
    """Return the content as a validated model; ``where`` names it in the sentence.

    Raises:
        ConsiliumError: of the kind ``raises``; one sentence with key, value, bound and remedy.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        sentence = _sentence(error.errors()[0], model, what)
        raise raises(f"{what} {where}: {sentence}") from error


def _sentence(error: Any, model: type[BaseModel], what: str) -> str:
    """One plain sentence for one pydantic error: key, value, bound, remedy."""
    location = [str(part) for part in error["loc"]]
    *tables, key = location or [f"the {what}"]
    place = f"[{'.'.join(tables)}] {key}" if tables else key
    kind, bounds, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        known = keys_at(model, tables)
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        return f"{place} is not a known key; did you mean {nearest[0]!r}?"
    if kind == "missing":
        return f"{place} is missing; add it"
    if kind == "value_error":
        problem = str(error["msg"]).removeprefix("Value error, ")
        return problem if not tables and not error["loc"] else f"[{'.'.join(location)}] {problem}"
    shown = f"{place} = {value!r}" if isinstance(value, str | int | float) else place
    for bound, words, remedy in (
        ("gt", "must be above", "raise it"),
        ("ge", "must be at least", "raise it"),
        ("lt", "must be below", "lower it"),
        ("le", "must be at most", "lower it"),
    ):
        if bound in bounds:
            return f"{shown} {words} {bounds[bound]}; {remedy}"
    if kind == "literal_error":
        return f"{shown} must be one of {bounds['expected']}; choose one of them"
    if kind == "string_pattern_mismatch":
        return f"{shown} must be lower-case letters, digits and hyphens, at most 64; rename it"
    return f"{shown} is not acceptable: {str(error['msg']).lower()}; correct it"


def keys_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The valid keys of the table at this place (keys that a file chooses are skipped over)."""
    for name in location:
        field = model.model_fields.get(name)
        if field is not None:
            model = next(iter(_models(field.annotation)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation such as ``dict[str, Model]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
