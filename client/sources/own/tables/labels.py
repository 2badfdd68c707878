"""Labels in columns of a table: numbers, or words and what the hospital says they mean."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from consilium.client.sources.own.settings.tables import StaysColumns
from consilium.client.sources.own.tables.table_files import Piece, cells
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.survival import interval_labels

# Words of languages in which nothing else is meant; others are for [data.stays] values.
_TRUE_FALSE = {
    **dict.fromkeys(("true", "t", "yes", "y", "ja", "j", "oui", "vrai", "wahr", "sí", "sì"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n", "nein", "non", "faux", "falsch", "nee", "nej"), 0.0),
}


def label_columns(settings: StaysColumns, study: Study) -> tuple[str, ...]:
    """Return the columns of the study's label, none in a per-step study.

    Those of survival are the time and whether the event ended it.
    """
    if study.task.per_step:
        return ()
    columns = settings.label if settings.label is not None else study.data.label
    columns = (columns,) if isinstance(columns, str) else columns
    wanted = study.task.outputs if study.task.kind in ("multilabel", "regression") else 1
    if study.task.kind == "survival":
        if len(columns) != 2:
            raise DataError(
                f"study {study.name} asks for survival, [data.stays] label names {len(columns)} "
                'columns; name two, of the time and of the event: label = ["days", "died"]'
            )
        return columns
    if len(columns) != wanted:
        raise DataError(
            f"study {study.name} has {wanted} labels, [data.stays] label names {len(columns)}; "
            "name as many columns"
        )
    return columns


def labels_of(
    piece: Piece, columns: tuple[str, ...], study: Study, values: Mapping[str, float]
) -> pl.Series:
    """Return the labels as numbers, as a list if the study has several; all 0 without columns."""
    if not columns:
        return pl.Series([0.0]).new_from_index(0, len(piece.frame))
    if study.task.kind == "survival":
        return _survival_of(piece, columns, study, values)
    found = [label_of(piece, column, values).alias(column) for column in columns]
    if len(found) == 1 and study.task.kind != "multilabel":
        return found[0]
    return pl.DataFrame(found).select(pl.concat_list(pl.all())).to_series()


def _survival_of(
    piece: Piece, columns: tuple[str, ...], study: Study, values: Mapping[str, float]
) -> pl.Series:
    """Return the labels of the study's intervals; ``values`` are of the event's words alone."""
    time = label_of(piece, columns[0], {}).cast(pl.Float64).fill_null(np.nan).to_numpy()
    event = label_of(piece, columns[1], values).cast(pl.Float64).fill_null(np.nan).to_numpy()
    label_NK = interval_labels(time, event, study.task, where=str(piece.path))
    return pl.Series(label_NK.astype(np.float64).tolist(), dtype=pl.List(pl.Float64))


def label_of(piece: Piece, column: str, values: Mapping[str, float]) -> pl.Series:
    """Return a column's labels as numbers, null if a cell is empty.

    Words are those of ``values``, in the hospital's spelling or any case, or else yes and no.
    """
    found = cells(piece, column)
    if found.at_limit:
        raise DataError(
            f"{piece.path}: {found.at_limit} labels {column!r} are a limit such as '<1'; write "
            "numbers, and nothing where it is not known"
        )
    known = _TRUE_FALSE | {word.strip().lower(): float(value) for word, value in values.items()}
    folded = piece.frame[column].cast(pl.String).str.strip_chars().str.to_lowercase()
    meant = folded.replace_strict(known, default=None, return_dtype=pl.Float64)
    number = meant.fill_null(found.number)  # a code such as 2 may be given a meaning, too
    fault = (number.is_null() & found.word.is_not_null()).arg_true()
    if len(fault):
        raise DataError(
            f"{piece.where(fault[0])}: the label {column!r} is no number; say what its words "
            "mean in site.toml, such as values = { ja = 1, nein = 0 } beside label"
        )
    return number
