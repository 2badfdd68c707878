"""Guesses about a CSV of molecules: which column has the SMILES, which tokens occur."""

from collections import Counter
from collections.abc import Iterable

from consilium.client.sources.recorded.molecules import tokenise
from consilium.shared.errors import SettingsError
from consilium.simulations.guesses.look import Look
from consilium.simulations.guesses.roles import Choices, GuessNotes, is_binary
from consilium.simulations.guesses.texts import WRITTEN, study_head
from consilium.simulations.guesses.toml_text import line, remark, value_text
from consilium.simulations.guesses.words import suggests

_SHARE = 0.98  # of the cells that can be cut into tokens
_MOST_TOKENS = 200
_LONG = 4.0  # characters of a SMILES on average, at least: codes such as "C" and "N" are none


def smiles_column(look: Look) -> str | None:
    """Return the column of SMILES: called so, or one whose texts can all be cut into tokens."""
    called = [name for name in look.columns if "smiles" in name.lower()]
    if len(called) == 1 and look.separator == ",":
        return called[0]
    for name in look.columns:
        if name in look.numbers or name in look.times or look.separator != ",":
            continue
        texts = look.texts(name).drop_nulls()
        if len(texts) < 5 or float(texts.str.len_chars().mean() or 0.0) < _LONG:  # type: ignore[arg-type]
            continue
        cut = sum(tokenise(text.strip()) is not None for text in texts.head(2000))
        typical = texts.str.contains(r"[cCnNoO][(=1c]").mean()
        if cut >= _SHARE * min(2000, len(texts)) and float(typical or 0.0) > 0.5:  # type: ignore[arg-type]
            return name
    return None


def molecules_texts(look: Look, smiles: str, choices: Choices, name: str) -> tuple[str, str]:
    """Return the study and the settings of a CSV of molecules.

    Raises:
        SettingsError: no column could be the outcome, or several could.
    """
    notes = GuessNotes()
    label = choices.columns.get("label") or _label(look, smiles, notes)
    several = label.split("+")
    for one in several:
        if one not in look.columns:
            raise SettingsError(f"--column label={label}: there is no column {one!r}; correct it")
    cut = [tokens for text in look.texts(smiles).drop_nulls() if (tokens := tokenise(text.strip()))]
    lengths = sorted(map(len, cut)) or [1]
    window = lengths[int(0.95 * (len(lengths) - 1))]
    kind = "binary" if is_binary(look, several[0]) else "regression"
    task = [line("kind", "multilabel" if len(several) > 1 else kind, "# guess: by the values")]
    if len(several) > 1:
        task.append(line("outputs", len(several)))
    elif kind == "regression":
        values = look.numbers[label].drop_nulls()
        task.append(line("center", float(values.median() or 0.0), "# guess: of these records"))  # type: ignore[arg-type]
        task.append(line("spread", float(values.std() or 1.0), "# guess: of these records"))  # type: ignore[arg-type]
    data = [
        'source = "molecules"',
        'clock = "position"',
        line("label", label, notes.of("label")),
        line("window_h", window, "# guess: so many tokens hold 95 % of the molecules whole"),
    ]
    persons = look.texts(smiles).n_unique()
    lines = study_head(name, f"To predict {label}", persons=persons, data=data, task=task)
    lines += [
        "[tokens]",
        'names = ["token"]',
        remark("guess: the tokens that occur here; all others share one vector"),
        f"vocabulary = {value_text(_vocabulary(cut))}",
        "",
        "[variables]",
        'branch = { unit = "1", low = 0, high = 40, center = 1, spread = 1 }',
        'ring = { unit = "1", low = 0, high = 40, center = 1, spread = 1 }',
    ]
    records = [
        remark(WRITTEN),
        "[data]",
        'source = "molecules"  # guess: a column can be cut into tokens of SMILES',
        line("path", str(look.path)),
        line("column", smiles, "# guess: by its name or its texts"),
        "",
        "[test]",
        line("fraction", 0.2, "# guess: a fifth of the molecules"),
    ]
    return "\n".join(lines) + "\n", "\n".join(records) + "\n"


def _label(look: Look, smiles: str, notes: GuessNotes) -> str:
    """Return the only column that could be an outcome.

    Raises:
        SettingsError: none could, or several.
    """
    numeric = [name for name in look.numbers if name != smiles]
    binary = [name for name in numeric if is_binary(look, name)]
    called = [name for name in binary if suggests(name, "label")]
    fitting = called or binary or [name for name in numeric if not _counts(look, name)]
    if len(fitting) != 1:
        told = ", ".join(map(repr, fitting[:8])) or "none"
        raise SettingsError(
            f"{look.path}: of its columns {told} could be the outcome to predict; say which: "
            "--column label=NAME, or several joined by +"
        )
    notes.say("label", f"{fitting[0]!r} is the only column that could be")
    return fitting[0]


def _counts(look: Look, name: str) -> bool:
    values = look.numbers[name].drop_nulls()
    return bool((values % 1 == 0).all()) and values.n_unique() > 0.9 * len(values)


def _vocabulary(cut: Iterable[list[str]]) -> list[str]:
    counted = Counter(token for tokens in cut for token in tokens)
    return [token for token, _ in counted.most_common(_MOST_TOKENS)]
