"""Which settings of a study are searched, and how they are drawn.

Random search (Bergstra and Bengio 2012, JMLR 13:281-305), begun at the study's own settings: each
of them is drawn anew with probability one half. Setting number k depends on the seed and k alone,
so a search can be made longer.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from consilium.shared.errors import PrivacyError, SettingsError, StudyError
from consilium.shared.files.strict_toml import parse_toml, read_text
from consilium.shared.model.network import build_model
from consilium.shared.model.weight_vector import parameter_count
from consilium.shared.privacy.accounting import plan
from consilium.shared.study.definition import Study, with_changes
from consilium.shared.study.input_names import feature_names

Key = tuple[str, str]
Changes = Mapping[Key, Any]

# What may be searched; None allows every key of the table. What is to be learned, from whom and at
# what price for a patient is not a setting: no search may change it.
SEARCHED: Mapping[str, tuple[str, ...] | None] = {
    "study": ("rounds",),
    "model": None,
    "training": None,
    "privacy": ("clip_norm", "statistics_fraction"),
    "aggregation": (
        "strategy", "server_learning_rate", "momentum", "second_moment", "adaptivity",
        "average_decay", "weighting", "update_norm", "max_weight",
    ),
}  # fmt: skip
MOST_DRAWS = 200  # for one setting that is valid and new
_FACTOR = 4.0  # by which the usual space reaches below and above a study's own step length


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``; on a scale ``log`` each ratio is as likely as its like."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def draw(self, stream: np.random.Generator) -> float:
        """Return a number of the range, of three digits."""
        low, high = (math.log(one) if self.log else one for one in (self.low, self.high))
        drawn = stream.uniform(low, high)
        number = min(max(float(f"{math.exp(drawn) if self.log else drawn:.3g}"), self.low),
                     self.high)  # fmt: skip  # reads as one
        return round(number) if self.whole else number


Values = Range | tuple[Any, ...]
Space = Mapping[Key, Values]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A setting to try.

    Attributes:
        changes: what differs from the study, by table and key.
        study: the study with them.
        parameters: number of its model's parameters.
    """

    changes: Changes
    study: Study
    parameters: int


def usual_space(study: Study) -> dict[Key, Values]:
    """Return what is searched unless a space is given: steps, size, noise and length of training.

    A key that has no effect in the study's privacy mode is left out.
    """
    space: dict[Key, Values] = {
        ("aggregation", "server_learning_rate"): _around(study.aggregation.server_learning_rate),
        ("training", "weight_decay"): _once((0.0, 0.001, 0.01, 0.1, study.training.weight_decay)),
        ("training", "sampling_rate"): _once(
            min(1.0, f * study.training.sampling_rate) for f in (0.5, 1.0, 2.0)
        ),
        ("study", "rounds"): _once(max(1, round(f * study.rounds)) for f in (0.5, 1.0, 2.0)),
    }
    if study.privacy.mode != "distributed":
        space["training", "learning_rate"] = _around(study.training.learning_rate)
    if study.privacy.mode != "none":
        space["privacy", "clip_norm"] = _around(study.privacy.clip_norm)
    if not study.model.branches:
        own = study.model
        space["model", "hidden"] = _once(max(2, round(f * own.hidden)) for f in (0.5, 1.0, 2.0))
        space["model", "cell"] = _once((own.cell, "gru", "lstm"))
        space["model", "dropout"] = _once((own.dropout, 0.0, 0.2, 0.4))
        if study.data.clock == "hour":
            space["model", "branches"] = ((), _beside(study))
    return space


def read_space(path: Path) -> dict[Key, Values]:
    """Read a search space: a file with the study's tables, each key a list of values or a range.

    Raises:
        SettingsError: one sentence on what is wrong.
    """
    text = read_text(path, what="search space", raises=SettingsError)
    content = parse_toml(text, what="search space", where=str(path), raises=SettingsError)
    return space_of(content, where=str(path))


def space_of(content: Mapping[str, Any], *, where: str) -> dict[Key, Values]:
    """Return the search space that tables describe; ``where`` names them in the sentence.

    A key's value is a list of values, or a table with ``low``, ``high`` and perhaps ``scale``,
    ``linear`` or ``log``.

    Raises:
        SettingsError: a table or key may not be searched, or a range is none.
    """
    space: dict[Key, Values] = {}
    for table, keys in content.items():
        if table not in SEARCHED or not isinstance(keys, Mapping):
            raise SettingsError(
                f"search space {where}: {table!r} is not one of the tables that may be searched, "
                f"{', '.join(SEARCHED)}; remove it (rounds stands in [study])"
            )
        allowed = SEARCHED[table]
        for key, values in keys.items():
            if allowed is not None and key not in allowed:
                raise SettingsError(
                    f"search space {where}: [{table}] {key} may not be searched, only "
                    f"{', '.join(allowed)}; remove it"
                )
            space[table, key] = _values(values, f"search space {where}: [{table}] {key}")
    if not space:
        raise SettingsError(
            f"search space {where}: names no setting; give a key of [model], say, and its values"
        )
    return space


def described(space: Space) -> dict[str, Any]:
    """Return the space as plain values by ``table.key``, for the record."""
    return {
        f"{table}.{key}": (
            {"low": one.low, "high": one.high, "scale": "log" if one.log else "linear"}
            if isinstance(one, Range)
            else plain(one)
        )
        for (table, key), one in space.items()
    }


def plain(value: Any) -> Any:
    """Return a value as JSON would have it: lists for tuples."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def candidates(study: Study, space: Space, *, number: int, seed: int) -> list[Candidate]:
    """Return so many different settings; the first is the study's own.

    Raises:
        SettingsError: the space has too few that are valid.
    """
    found = [_candidate(study, {})]
    seen = {found[0].study.digest}
    for index in range(1, number):
        stream = np.random.default_rng((seed, index))
        refused = "all that were drawn had been tried"
        for _ in range(MOST_DRAWS):
            changes = _drawn(study, space, stream)
            try:
                one = _candidate(study, changes)
                plan(one.study)  # its budget can be kept
            except (StudyError, PrivacyError) as error:
                refused = str(error)
                continue
            if one.study.digest not in seen:
                break
        else:
            raise SettingsError(
                f"search space: has no setting number {index + 1} that is valid and new "
                f"({refused}); give fewer runs, or more values"
            )
        seen.add(one.study.digest)
        found.append(one)
    return found


def changed(study: Study, changes: Changes) -> Study:
    """Return the study with the changes.

    With branches, the keys of a single network take their defaults unless they are changed, too.

    Raises:
        StudyError: it is not valid.
    """
    tables: dict[str, dict[str, Any]] = {}
    for (table, key), value in changes.items():
        tables.setdefault(table, {})[key] = value
    return with_changes(study, **tables)


def _drawn(study: Study, space: Space, stream: np.random.Generator) -> dict[Key, Any]:
    """Draw values of some of the settings; with branches, a single network has no keys."""
    chosen = {key: values for key, values in space.items() if stream.random() < 0.5}
    drawn = {
        key: one.draw(stream) if isinstance(one, Range) else one[int(stream.integers(len(one)))]
        for key, one in chosen.items()
    }
    if drawn.get(("model", "branches")):
        own = type(study.model).model_fields
        drawn = {key: value for key, value in drawn.items()
                 if key[0] != "model" or key[1] == "branches"}  # fmt: skip  # reads as one
        drawn |= {("model", key): field.default for key, field in own.items() if key != "branches"}
    now = study.model_dump(by_alias=True)
    return {
        (table, key): value
        for (table, key), value in drawn.items()
        if plain(value) != plain((now if table == "study" else now[table]).get(key))
    }


def _candidate(study: Study, changes: Changes) -> Candidate:
    one = changed(study, changes)
    parameters = parameter_count(build_model(one, len(feature_names(one)), seed=0))
    return Candidate(changes=changes, study=one, parameters=parameters)


def _beside(study: Study) -> tuple[dict[str, Any], ...]:
    """Return branches: the study's network, a linear map and a network on summaries."""
    own = study.model.model_dump(exclude_defaults=True) | {"kind": "recurrent"}
    own.pop("skip", None)  # the linear map is a branch of its own
    return own, {"kind": "linear"}, {"kind": "summary", "hidden": 32}


def _once(values: Iterable[object]) -> tuple[object, ...]:
    """Return the values, each once."""
    return tuple(dict.fromkeys(values))


def _around(value: float) -> Range:
    return Range(low=value / _FACTOR, high=value * _FACTOR, log=True)


def _values(given: Any, where: str) -> Values:
    if isinstance(given, Sequence) and not isinstance(given, str) and given:
        return tuple(given)
    numbers = isinstance(given, Mapping) and all(
        isinstance(given.get(bound), int | float) and not isinstance(given.get(bound), bool)
        for bound in ("low", "high")
    )
    if not numbers or set(given) - {"low", "high", "scale"}:
        raise SettingsError(
            f"{where}: must be a list of values, or a table with low, high and perhaps scale; "
            'write [8, 16], or { low = 0.01, high = 1.0, scale = "log" }'
        )
    low, high, scale = given["low"], given["high"], given.get("scale", "linear")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SettingsError(f"{where}: low {low} must be below high {high}, and both finite")
    if scale not in ("linear", "log") or (scale == "log" and low <= 0):
        raise SettingsError(
            f"{where}: scale {scale!r} must be 'linear', or 'log' with low above 0; correct it"
        )
    whole = isinstance(low, int) and isinstance(high, int)
    return Range(low=low, high=high, log=scale == "log", whole=whole)
