"""Studies whose models are branches of every kind, for the tests of each consumer."""

import pytest

from consilium.shared.study.definition import Study
from tests.study_text import small_study

VARIABLES = {
    "bp": {"unit": "mm[Hg]", "low": 0.0, "high": 300.0, "center": 120.0, "spread": 20.0},
    "age": {
        "unit": "a", "low": 0.0, "high": 120.0, "center": 60.0, "spread": 15.0, "role": "static",
    },
}  # fmt: skip
TOKENS = {"names": ("code", "drug"), "vocabulary": ("x", "y", "z"), "width": 3}
LINEAR = {"kind": "linear"}
SUMMARY = {"kind": "summary", "hidden": 5}
RECURRENT = {"kind": "recurrent", "hidden": 4}
CONVOLUTION = {"kind": "convolution", "channels": 4}
BRANCHES = {
    "linear": [LINEAR],
    "linear of some": [LINEAR | {"inputs": ["age", "hr"]}],
    "summary": [SUMMARY | {"layers": 2}],
    "summary of static": [SUMMARY | {"inputs": ["age"]}],
    "recurrent": [RECURRENT | {"members": 2, "skip": True, "layer_norm": True}],
    "recurrent of codes": [RECURRENT | {"cell": "gru", "inputs": ["drug"], "pooling": "attention"}],
    "convolution": [CONVOLUTION | {"layers": 3}],
    "convolution of some": [CONVOLUTION | {"inputs": ["drug", "bp"], "pooling": "last"}],
    "mean of a convolution": [CONVOLUTION | {"pooling": "mean", "kernel": 2}],
    "convolution before a cell": [
        CONVOLUTION | {"cell": "lstm", "hidden": 3, "pooling": "mean", "inputs": ["hr", "bp"]}
    ],
    "grid": [CONVOLUTION | {"rows": 2, "kernel": 2, "layers": 2}],
    "grid before a cell": [
        CONVOLUTION
        | {"rows": 1, "kernel": 2, "cell": "gru", "hidden": 3, "pooling": "attention"}
        | {"inputs": ["hr", "bp", "age"]}
    ],
    "forecasts": [RECURRENT | {"forecast": 0.5, "inputs": ["age", "bp", "drug"]}, LINEAR],
    "all": [LINEAR, SUMMARY | {"members": 2}, RECURRENT, CONVOLUTION],
}
TASKS = (
    {"kind": "binary", "outputs": 1},
    {"kind": "multilabel", "outputs": 3},
    {"kind": "multiclass", "outputs": 3},
    {"kind": "regression", "outputs": 2, "center": 5.0, "spread": 3.0},
)
CLOCKS_AND_STEPS = pytest.mark.parametrize(
    ("clock", "per_step"),
    [
        ("hour", False),
        ("position", True),
        pytest.param("hour", True, marks=pytest.mark.slow),
        pytest.param("position", False, marks=pytest.mark.slow),
    ],
)


def study_of_branches(
    name: str, *, task: dict[str, object] | None = None, clock: str = "hour", **tables: object
) -> Study:
    """Return a study of two series, a static variable, and the columns of codes that are read."""
    read = {code for one in BRANCHES[name] if one["kind"] in ("recurrent", "convolution")
            for code in one.get("inputs", TOKENS["names"])}  # fmt: skip
    codes = tuple(code for code in TOKENS["names"] if code in read)
    changes = {"data": {"clock": clock, "window_h": 12, "step_h": 2}} | tables
    changes |= {"tokens": TOKENS | {"names": codes}} if codes else {}
    return small_study(
        variables=VARIABLES, task=task or {}, model={"branches": BRANCHES[name]}, **changes
    )
