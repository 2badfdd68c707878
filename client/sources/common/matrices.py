"""Shared by sources with one table of values per stay: table to events, and fit to the study."""

import difflib
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.cleaning import Cleaner, Events
from consilium.client.sources.common.source import Stay
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study


def events_of(
    value_TV: NDArray[np.floating], hours_T: NDArray[np.floating] | None, study: Study
) -> Events:
    """Turn a table of values (NaN where missing) into events.

    Columns are the study's variables, then its columns of codes. A static variable gives one event,
    its first known value. Row t lies at ``hours_T[t]``, without hours at hour t. Rows at the end of
    the window or later are left out: a step begins at its hour, so none begins at the end.

    Raises:
        DataError: a value is infinite.
    """
    if np.isinf(value_TV).any():
        raise DataError("a value is infinite; mend the record")
    if hours_T is None:
        hours_T = np.arange(len(value_TV), dtype=np.float64)
    known_TV = ~np.isnan(value_TV) & (hours_T < study.data.reach_h)[:, None]
    for index, variable in enumerate(study.variables.values()):
        if variable.role == "static" and known_TV[:, index].any():
            known_TV[known_TV[:, index].argmax() + 1 :, index] = False
    step_E, variable_E = np.nonzero(known_TV)
    return (
        hours_T[step_E].astype(np.float32),
        variable_E.astype(np.int16),
        value_TV[step_E, variable_E].astype(np.float32),
    )


def stay_of(
    value_TV: NDArray[np.floating],
    study: Study,
    cleaner: Cleaner,
    *,
    stay_id: str,
    label: float | NDArray[np.float32],
    hours_T: NDArray[np.floating] | None = None,
    end_h: float | None = None,
    outcome_h: float | None = None,
) -> Stay:
    """Make a stay of a table of values, its events as of :func:`events_of` and cleaned.

    Raises:
        DataError: a value is infinite.
    """
    hours_E, variable_E, value_E = cleaner.clean(*events_of(value_TV, hours_T, study))
    return Stay(
        stay_id=stay_id,
        hours_E=hours_E,
        variable_E=variable_E,
        value_E=value_E,
        label=label,
        end_h=end_h,
        outcome_h=outcome_h,
    )


def require_source(
    study: Study, name: str, *, clock: str = "hour", alike: Collection[str] = ()
) -> None:
    """Refuse a study that wants another source, or another clock (hours or positions).

    ``alike`` are other sources in whose place this one may stand.

    Raises:
        DataError: source or clock differ.
    """
    if study.data.source not in (name, *alike):
        raise DataError(
            f"study {study.name} wants source {study.data.source!r}, but these data are {name!r}; "
            "choose the matching data or study"
        )
    if study.data.clock != clock:
        raise DataError(
            f"study {study.name}: {name} counts a record by the {clock}; "
            f'set [data] clock = "{clock}"'
        )


def require_task(
    study: Study, name: str, kinds: Collection[str], *, per_step: bool, outputs: int = 1
) -> None:
    """Refuse a study whose task does not fit the label that a source has.

    Raises:
        DataError: the task is of another kind, per step or not, or has other outputs.
    """
    task = study.task
    if task.kind not in kinds or task.per_step != per_step or task.outputs != outputs:
        wanted = " or ".join(repr(kind) for kind in sorted(kinds))
        raise DataError(
            f"{name}: label {study.data.label!r} is for a task of kind {wanted}, "
            f"outputs {outputs}, per_step {str(per_step).lower()}; correct [task]"
        )


def require_label(study: Study, name: str, labels: Collection[str]) -> None:
    """Refuse a label that a source does not have.

    Raises:
        DataError: the label is unknown.
    """
    if study.data.label not in labels:
        raise DataError(
            f"{name} has no label {study.data.label!r}; "
            f"set [data] label to one of {', '.join(labels)}"
        )


def require_variables(study: Study, name: str, offered: Mapping[str, str]) -> None:
    """Refuse variables that a source does not have, or has in another unit.

    Args:
        study: asks for variables.
        name: of the source, for errors.
        offered: unit of each variable that the source has.

    Raises:
        DataError: the sentence names the variable and the most similar one, or the unit.
    """
    for variable, spec in study.variables.items():
        if variable not in offered:
            near = difflib.get_close_matches(variable, offered, n=1, cutoff=0.0)[0]
            raise DataError(
                f"{name} has no variable {variable!r}; did you mean {near!r}, "
                "or remove it from the study"
            )
        if spec.unit != offered[variable]:
            raise DataError(
                f"variable {variable}: the study wants unit {spec.unit!r}, {name} has "
                f"{offered[variable]!r}; state the range, center and spread in that unit"
            )


def require_tokens(study: Study, name: str, columns: Collection[str]) -> None:
    """Refuse columns of codes that a source does not have.

    Raises:
        DataError: the study names columns of codes that the source does not have.
    """
    for column in () if study.tokens is None else study.tokens.names:
        if column not in columns:
            has = f"it has {', '.join(columns)}" if columns else "it has none"
            raise DataError(
                f"{name} has no column of codes {column!r}: {has}; correct [tokens] names"
            )
