"""Guesses about systems with a format of their own: FHIR, MEDS and OMOP are only recognised.

The study names usual variables of the dictionary, which these systems find by their codes; what the
records have of them, ``consilium-site check`` says.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from consilium.simulations.guesses.texts import WRITTEN, study_head
from consilium.simulations.guesses.toml_text import line, remark, value_text

USUAL = ("HR", "RespRate", "Temp", "SaO2", "NISysABP", "Creatinine", "K", "Na", "Glucose", "WBC",
         "Platelets", "Lactate", "Age", "Gender")  # fmt: skip  # reads as one
_SQLITE = b"SQLite format 3\x00"


def system_at(path: Path) -> str | None:
    """Return ``fhir``, ``meds`` or ``omop`` if a file or folder is one, else None."""
    if path.is_file():
        return "omop" if _is_omop(path) else None
    names = [file.name.lower() for file in path.rglob("*") if file.is_file()][:10_000]
    if any(name.endswith((".ndjson", ".ndjson.gz")) for name in names):
        return "fhir"
    data = path / "data"
    if data.is_dir() and next(data.rglob("*.parquet"), None) is not None:
        return "meds"
    return None


def _is_omop(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            return False
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT lower(name) FROM sqlite_master").fetchall()
    except sqlite3.Error:
        return False
    return ("visit_occurrence",) in found


def system_texts(path: Path, source: str, name: str) -> tuple[str, str]:
    """Return the study and the settings of such a system."""
    data = [
        'source = "hospital"',
        'label = "death"  # guess: the outcome below',
        "window_h = 48  # guess: two days",
    ]
    lines = study_head(name, "To predict death in hospital", persons=10_000, data=data,
                       task=['kind = "binary"'])  # fmt: skip  # reads as one
    lines += [
        remark("guess: usual variables by their names in the dictionary; see which of them "
               "'consilium-site check' finds, and remove the others"),
        f"variables = {value_text(USUAL)}",
    ]  # fmt: skip  # reads as the file
    at = lines.index("seed = 1") + 1  # a key outside tables stands above them
    lines.insert(at, lines.pop())
    lines.insert(at, lines.pop())
    records = [
        remark(WRITTEN),
        "[data]",
        line("source", source, "# guess: by the form of the files"),
        line("file" if source == "omop" else "path", str(path)),
        "",
        "[data.outcome]",
        'kind = "death"  # guess: or "condition" with codes, "length-of-stay", "readmission"',
        "",
        "[test]",
        line("fraction", 0.2, "# guess: a fifth of the persons"),
    ]
    return "\n".join(lines) + "\n", "\n".join(records) + "\n"
