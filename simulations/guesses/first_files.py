"""From a file or folder that nobody has described to a study and settings of its records."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from consilium.shared.errors import DataError, SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.study.definition import parse_study
from consilium.simulations.cohorts.study_sites import site_name
from consilium.simulations.guesses.clinical import SYSTEMS
from consilium.simulations.guesses.look import look_at
from consilium.simulations.guesses.molecules import molecules_texts, smiles_column
from consilium.simulations.guesses.recorded import RECORDINGS, images_texts, signals_texts
from consilium.simulations.guesses.roles import Choices
from consilium.simulations.guesses.systems import kind_of, system_texts
from consilium.simulations.guesses.tables import guess_tables
from consilium.simulations.guesses.texts import tables_records, tables_study
from consilium.simulations.guesses.written import ENDINGS

STUDY, RECORDS = "study.toml", "records.toml"
MOST_TABLES = 50
MOST_PARTS = 100_000
REMEDIES = {
    "zip": "is packed; unpack it into a folder, and name that",
    "omop-files": "has the tables of OMOP as files, which are read from a database; put them into "
    "one file with DuckDB (create table person as from 'person.csv', and so on), and name that",
}


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
    if ":/" in str(path) or "://" in str(path):
        raise SettingsError(
            "a server is not looked at; docs/data/sql.md, omop-database.md and fhir-server.md show "
            "the settings of one, or give a file or folder that was exported from it"
        )
    if not path.exists():
        raise SettingsError(f"{path} does not exist; correct the path")
    path = path.resolve()
    name = path.name.split(".")[0] or "study"
    source = kind_of(path)
    if source is not None:
        return _of_source(path, source, name, choices)
    files = [path] if path.is_file() else _tables_in(path)
    looks = [look for file in files for look in look_at(file, choices.separator)]
    for look in looks:
        if not len(look.frame):
            raise DataError(f"{look.path}: has no row below its header; nothing can be guessed")
    if len(looks) == 1 and (smiles := smiles_column(looks[0])) is not None:
        study, records = molecules_texts(looks[0], smiles, choices, name)
        return FirstFiles(study=study, records=records, made={})
    if not looks:
        raise DataError(f"{path}: is a database that cannot be read, or has no table with a row")
    found = guess_tables(looks, choices)
    if path.is_dir() and (packed := _packed(path)):
        found.remarks.append(f"not looked at, as they are packed: {', '.join(packed[:10])}")
    if looks[0].table is not None and found.made:
        raise SettingsError(
            f"{path}: its tables cannot be read as they stand ({'; '.join(found.remarks)[:300]}); "
            "write the settings with a query that says it, as docs/data/sql.md shows, or export "
            "the tables as files"
        )
    return FirstFiles(
        study=tables_study(found, name), records=tables_records(found), made=found.made
    )


def _of_source(path: Path, source: str, name: str, choices: Choices) -> FirstFiles:
    if source in REMEDIES:
        raise DataError(f"{path}: {REMEDIES[source]}")
    if source in SYSTEMS:
        where = path if path.is_dir() or source in ("omop", "hl7") else path.parent
        study, records = system_texts(where, source, name)
        return FirstFiles(study=study, records=records, made={})
    if path.is_file() and path.suffix.lower() != ".npz":
        raise SettingsError(
            f"{path}: is one of several recordings or images; name the folder that holds them, "
            "with a table of their labels"
        )
    texts = signals_texts if source in RECORDINGS else images_texts
    study, records = texts(path, source, name, choices)
    return FirstFiles(study=study, records=records, made={})


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
        if file.name[0] not in "._"
        and (file.name.lower().endswith(ENDINGS) if file.is_file() else _is_table(file))
    )
    if (
        found
        and all("=" in file.name for file in found if file.is_dir())
        and any(file.is_dir() for file in found)
    ):
        return [folder]
    if not found and (packed := _packed(folder)):
        raise DataError(
            f"{folder}: has {', '.join(packed[:3])}; unpack archives into a folder and name that, "
            "or name a file of arrays (.npz) itself"
        )
    if not found:
        raise DataError(
            f"{folder}: holds no table (CSV, Parquet, Arrow, XLSX), FHIR export, MEDS dataset, HL7 "
            "message, recording (WFDB, EDF) or image (DICOM, NIfTI, PNG); docs/data.md has the "
            "forms that can be read"
        )
    if len(found) > MOST_TABLES:
        raise SettingsError(
            f"{folder}: has {len(found)} tables, more than {MOST_TABLES}; name one, or a folder "
            "with those that matter"
        )
    return found


def _packed(folder: Path) -> list[str]:
    """Return the names of archives in a folder: what they hold is not looked at."""
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in (".zip", ".npz"))


def _is_table(folder: Path) -> bool:
    """Return whether a folder holds files of tables and nothing else, as a data lake has them."""
    files = [
        file
        for file in islice(folder.rglob("*"), MOST_PARTS)
        if file.is_file() and not any(part[0] in "._" for part in file.relative_to(folder).parts)
    ]
    return bool(files) and all(file.name.lower().endswith(ENDINGS) for file in files)
