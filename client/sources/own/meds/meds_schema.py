"""The form of a MEDS dataset, version 0.4: its folders, codes and columns.

The reference package ``meds`` checks the same with pyarrow, which is as large as polars; therefore
the tables are written out here, and a test compares them with the package.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import polars as pl

from consilium.shared.errors import DataError

VERSIONS = ("0.3", "0.4")  # the same columns of data, labels and splits
DATA = "data"
METADATA_FILE = "metadata/dataset.json"
SPLITS_FILE = "metadata/subject_splits.parquet"
LARGEST_METADATA_BYTES = 1 << 20
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
LABELS = ("boolean_value", "integer_value", "float_value")
BROKEN = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)

_Check = tuple[str, Callable[[pl.DataType], bool]]
_WHOLE: _Check = ("whole numbers", lambda kind: kind.is_integer())
_NUMBER: _Check = ("numbers", lambda kind: kind.is_numeric())
_TEXT: _Check = ("text", lambda kind: kind in (pl.String, pl.Categorical, pl.Enum))
_TIME: _Check = (
    "dates with times and without a zone",
    lambda kind: isinstance(kind, pl.Datetime) and kind.time_zone is None,
)
_TRUTH: _Check = ("true and false", lambda kind: kind == pl.Boolean)

REQUIRED: Mapping[str, Mapping[str, _Check]] = MappingProxyType(
    {
        "data": {"subject_id": _WHOLE, "time": _TIME, "code": _TEXT},
        "labels": {"subject_id": _WHOLE, "prediction_time": _TIME},
        "subject splits": {"subject_id": _WHOLE, "split": _TEXT},
    }
)
OPTIONAL: Mapping[str, Mapping[str, _Check]] = MappingProxyType(
    {
        "data": {"numeric_value": _NUMBER, "text_value": _TEXT},
        "labels": {"boolean_value": _TRUTH, "integer_value": _WHOLE, "float_value": _NUMBER},
        "subject splits": {},
    }
)


def check_columns(path: Path, kind: str) -> dict[str, pl.DataType]:
    """Return the columns of a MEDS file.

    Args:
        path: a Parquet file.
        kind: "data", "labels" or "subject splits".

    Raises:
        DataError: the file is missing or damaged, or a column is missing or of another type.
    """
    try:
        columns = dict(pl.read_parquet_schema(path))
    except BROKEN as error:
        raise DataError(
            f"{path} is missing, damaged or no Parquet; write the dataset again"
        ) from error
    for name, (meaning, fits) in {**REQUIRED[kind], **OPTIONAL[kind]}.items():
        if name not in columns and name in REQUIRED[kind]:
            raise DataError(
                f"{path} has no column {name!r}, which {kind} of MEDS {VERSIONS[-1]} have; convert "
                "the dataset with current tools"
            )
        if name in columns and not fits(columns[name]):
            raise DataError(
                f"{path}: column {name!r} is {columns[name]} and must be {meaning}, as in {kind} "
                f"of MEDS {VERSIONS[-1]}; convert the dataset with current tools"
            )
    return columns


def check_version(folder: Path) -> None:
    """Refuse a dataset whose metadata name an unknown version.

    Raises:
        DataError: the version is unknown, or the metadata are no JSON object.
    """
    path = folder / METADATA_FILE
    if not path.is_file():
        return  # the standard requires no field, and some tools omit the file
    try:
        if path.stat().st_size > LARGEST_METADATA_BYTES:
            raise ValueError
        content = json.loads(path.read_text("utf-8"))
        version = str(content.get("meds_version") or VERSIONS[-1])
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no JSON object; write the dataset again") from error
    if ".".join(version.split(".")[:2]) not in VERSIONS:
        raise DataError(
            f"{path}: meds_version is none of {', '.join(VERSIONS)}; convert the dataset with "
            "current tools"
        )
