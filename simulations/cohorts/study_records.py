"""Where a study's own records settings lie: in the folder ``records`` beside it, or the package's.

``records/NAME.toml`` has the study's name, or, for all studies of one kind, that of its source.
"""

from importlib.resources import files
from pathlib import Path

from consilium.client.sources.registry import SOURCES, read_data_settings
from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.records_file import About, RecordsFile, read_records_file
from consilium.simulations.cohorts.records_plan import Collection

FOLDER = "records"


def records_of(study: Study, beside: Path | None = None) -> Path | None:
    """Return the file of settings that belongs to a study, None if there is none.

    Args:
        study: its name, or its source, is the file's.
        beside: the study's file; only the package's own files are looked at unless given.
    """
    own = Path(str(files("consilium.studies"))) / FOLDER
    for folder in ([beside.resolve().parent / FOLDER] if beside is not None else []) + [own]:
        for name in (study.name, study.data.source):
            if (path := folder / f"{name}.toml").is_file():
                return path
    return None


def folder_for(study: Study, data: Path, beside: Path) -> Path | None:
    """Return ``data`` if the study's settings of records take their files from there.

    Raises:
        SettingsError: the settings cannot be read.
    """
    about = _about(study, beside)
    return None if about is None or about.folder is None else data


def missing_folder(study: Study, data: Path, beside: Path) -> str | None:
    """Return the usual name of the study's folder of records if it is not in ``data``.

    Raises:
        SettingsError: the settings cannot be read.
    """
    about = _about(study, beside)
    name = None if about is None else about.folder
    return name if name is not None and not (data / name).exists() else None


def _about(study: Study, beside: Path) -> About | None:
    path = records_of(study, beside)
    return None if path is None else read_records_file(path).records


def collection_of(study: Study, data: Path | None, beside: Path | None = None) -> Collection:
    """Return the records of a study by its own settings, or by the one path that its source needs.

    Args:
        study: the study.
        data: the folder, or the file, with the records.
        beside: the study's file, if there is one.

    Raises:
        SettingsError: nothing says where the records are, or they are not there.
    """
    path = records_of(study, beside)
    if path is not None:
        try:
            return Collection.read(path, data)
        except SettingsError as error:
            raise SettingsError(f"study {study.name}: {error}") from error
    kind = study.data.source
    if data is None or kind not in SOURCES:
        raise SettingsError(
            f"study {study.name}: nothing says where its records are; give the settings of each "
            "site (--settings FILE, three times or more), or those of one collection "
            "(--records FILE), which 'consilium-simulate init' can write; in Python, give "
            "consilium.Records"
        )
    if not data.exists():
        raise SettingsError(f"study {study.name}: --data {data} does not exist; correct the path")
    table = {"source": kind, "path": str(data.resolve())}
    try:
        read_data_settings(table, where="--data", folder=data.parent)
    except SettingsError as error:
        raise SettingsError(
            f"study {study.name}: source {kind!r} needs more than a path ({error}); write it down "
            "in a file of settings and give it as --records FILE"
        ) from error
    return Collection(file=RecordsFile(data=table), where=str(data), base=data.parent)
