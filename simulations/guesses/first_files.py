"""From a file or folder that nobody has described to a study and settings of its records."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from consilium.shared.errors import DataError, SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.study.definition import parse_study
from consilium.simulations.cohorts.study_sites import site_name
from consilium.simulations.guesses.look import ENDINGS, look_at
from consilium.simulations.guesses.molecules import molecules_texts, smiles_column
from consilium.simulations.guesses.roles import Choices
from consilium.simulations.guesses.systems import system_at, system_texts
from consilium.simulations.guesses.tables import guess_tables
from consilium.simulations.guesses.texts import tables_records, tables_study

STUDY, RECORDS = "study.toml", "records.toml"
MOST_TABLES = 50


@dataclass(frozen=True, kw_only=True)
class FirstFiles:
    """What is to be written: the two texts, and tables that were made."""

    study: str
    records: str
    made: dict[str, pl.DataFrame]

    @property
    def guesses(self) -> int:
        """Number of guesses in both texts."""
        return (self.study + self.records).count("# guess: ")


def guess(path: Path, choices: Choices) -> FirstFiles:
    """Look at a file or folder, and guess.

    Args:
        path: tables, a CSV of molecules, or a system of its own format.
        choices: what the user has said.

    Raises:
        SettingsError: something could mean two things; the sentence names the option.
        DataError: nothing here can be read as records.
    """
    if not path.exists():
        raise SettingsError(f"{path} does not exist; correct the path")
    path = path.resolve()
    name = path.name.split(".")[0] or "study"
    if (source := system_at(path)) is not None:
        study, records = system_texts(path, source, name)
        return FirstFiles(study=study, records=records, made={})
    files = [path] if path.is_file() else _tables_in(path)
    looks = [look_at(file, choices.separator) for file in files]
    for look in looks:
        if not len(look.frame):
            raise DataError(f"{look.path}: has no row below its header; nothing can be guessed")
    if len(looks) == 1 and (smiles := smiles_column(looks[0])) is not None:
        study, records = molecules_texts(looks[0], smiles, choices, name)
        return FirstFiles(study=study, records=records, made={})
    found = guess_tables(looks, choices)
    return FirstFiles(
        study=tables_study(found, name), records=tables_records(found), made=found.made
    )


def write(first: FirstFiles, out: Path) -> list[Path]:
    """Write the files into a folder, none of which may be there yet.

    Raises:
        SettingsError: one is there, or the folder cannot be written.
    """
    parse_study(first.study, where=STUDY)
    files = [out / name for name in (STUDY, RECORDS, *first.made)]
    if there := [file for file in files if file.exists()]:
        raise SettingsError(f"{there[0]} exists and is not overwritten; name another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, frame in first.made.items():
            frame.write_csv(out / name)
        write_atomically(out / STUDY, first.study.encode())
        write_atomically(out / RECORDS, first.records.encode())
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror})") from error
    return files


def usual_folder(path: Path) -> Path:
    """Return the folder into which the files of a path go unless another is named."""
    return Path(f"{site_name(path.resolve().name.split('.')[0]) or 'own'}-study")


def _tables_in(folder: Path) -> list[Path]:
    found = sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name.lower().endswith(ENDINGS) and file.name[0] != "."
    )
    if not found:
        raise DataError(
            f"{folder}: holds no table (CSV or Parquet), FHIR export or MEDS dataset; recordings "
            "and images are described in docs/data.md"
        )
    if len(found) > MOST_TABLES:
        raise SettingsError(
            f"{folder}: has {len(found)} tables, more than {MOST_TABLES}; name one, or a folder "
            "with those that matter"
        )
    return found
