"""What each column of a look is: person, time, value, label; what is ambiguous is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consilium.shared.errors import SettingsError
from consilium.simulations.guesses.look import Look
from consilium.simulations.guesses.words import YES_NO, suggests

MOST_CLASSES = 10  # whole numbers beyond are a quantity, not classes


@dataclass(kw_only=True)
class GuessNotes:
    """The reason of each guess, by what was guessed; some reasons the reader must not miss."""

    why: dict[str, str] = field(default_factory=dict)

    def say(self, what: str, reason: str) -> None:
        """Note why something was guessed."""
        self.why[what] = reason

    def of(self, what: str) -> str:
        """Return the comment on a guess."""
        return f"# guess: {self.why[what]}" if what in self.why else "# as you said"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The columns that the user has named, by role; ``separator`` and ``time_format`` too."""

    columns: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None
    time_format: str | None = None
    hours_unit: str | None = None


def one_column(
    look: Look, role: str, candidates: Sequence[str], choices: Choices, notes: GuessNotes
) -> str | None:
    """Return the column that has a role: the user's, or the only one whose name suggests it.

    Args:
        look: the table.
        role: as :data:`consilium.simulations.guesses.words.ROLES` names it.
        candidates: columns whose values would do.
        choices: what the user has said.
        notes: gets the reason.

    Raises:
        SettingsError: several would do, or the user's is not there.
    """
    if (said := choices.columns.get(role)) is not None:
        return said if said in look.columns else None
    found = [name for name in candidates if suggests(name, role)]
    if len(found) > 1:
        exact = [name for name in found if name.lower().strip() in (role, f"{role}_id")]
        found = exact if len(exact) == 1 else found
    if len(found) > 1:
        raise SettingsError(
            f"{look.path}: the columns {' and '.join(map(repr, found))} could be the {role}; say "
            f"which: --column {role}={_quoted(found[0])}"
        )
    if found:
        notes.say(role, f"by its name, {found[0]!r}")
        return found[0]
    return None


def key_columns(look: Look) -> list[str]:
    """Return the columns that could identify something: texts or whole numbers, hardly missing."""
    found = []
    for name in look.columns:
        if name in look.times or look.frame[name].null_count() > 0.05 * len(look.frame):
            continue
        numbers = look.numbers.get(name)
        if numbers is None or bool((numbers.drop_nulls() % 1 == 0).all()):
            found.append(name)
    return found


def person_of(look: Look, choices: Choices, notes: GuessNotes) -> str | None:
    """Return the person's column; a column called ``id`` if nothing else says so."""
    keys = key_columns(look)
    found = one_column(look, "person", keys, choices, notes)
    if found is None and "person" not in choices.columns:
        plain = [name for name in keys if name.lower().strip() in ("id", "nr", "nummer", "number")]
        if len(plain) == 1:
            notes.say("person", f"{plain[0]!r} is the only column called an identifier")
            return plain[0]
    return found


def label_of(look: Look, used: Sequence[str], choices: Choices, notes: GuessNotes) -> str | None:
    """Return the column of the outcome.

    A name that means an outcome decides; then one that often does; then the only column that is
    yes or no, or 0 or 1.

    Raises:
        SettingsError: several would do.
    """
    if (said := choices.columns.get("label")) is not None:
        return said if said in look.columns else None
    left = [name for name in look.columns if name not in used and name not in look.times]
    outcomes = [
        name for name in left if len(look.distinct(name)[:1000]) >= 2 and _means(look, name)
    ]
    for role in ("label", "weak label"):
        found = [name for name in outcomes if suggests(name, role)]
        if len(found) > 1:
            raise _several(look, found)
        if found:
            notes.say("label", f"by its name, {found[0]!r}; is it known only after the prediction?")
            return found[0]
    binary = [name for name in outcomes if is_binary(look, name) and not suggests(name, "split")]
    if len(binary) > 1:
        raise _several(look, binary)
    if binary:
        notes.say("label", f"{binary[0]!r} is the only column of two values")
        return binary[0]
    return None


def is_binary(look: Look, column: str) -> bool:
    """Return whether a column is 0 or 1, or yes or no."""
    values = {value.lower() for value in look.distinct(column)}
    if column in look.numbers:
        return set(look.numbers[column].drop_nulls().unique().to_list()) == {0.0, 1.0}
    return len(values) == 2 and len({YES_NO.get(value) for value in values} - {None}) == 2


def _means(look: Look, column: str) -> bool:
    """Return whether a column could be an outcome: numbers, or words for yes and no."""
    return column in look.numbers or is_binary(look, column)


def _several(look: Look, found: Sequence[str]) -> SettingsError:
    return SettingsError(
        f"{look.path}: the columns {', '.join(map(repr, found[:8]))} could each be the outcome to "
        f"predict; say which: --column label={_quoted(found[0])}"
    )


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name
