"""The sources by name: the values of ``[data] source`` in ``site.toml``, and how each is opened.

To add a source, write a settings model in :mod:`consilium.client.sources.common.settings` or
:mod:`consilium.client.sources.own.settings`, a function here that opens the source and imports its
module only when called (some need large libraries), and a line in SOURCES. A hospital's own package
adds a source without a change here: see :mod:`consilium.client.sources.common.installed`.
"""

import difflib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from consilium.client.sources.common import needs as library
from consilium.client.sources.common import settings
from consilium.client.sources.common.door import behind_door
from consilium.client.sources.common.installed import NOTHING, is_installed, load, opened
from consilium.client.sources.common.settings import DataSettings, parse_settings
from consilium.client.sources.common.source import Source
from consilium.client.sources.own.settings.hospital import HospitalSettings
from consilium.client.sources.own.settings.systems import (
    FhirSettings,
    Hl7Settings,
    MedsSettings,
    OmopSettings,
    SqlSettings,
)
from consilium.client.sources.own.settings.tables import TablesSettings
from consilium.client.sources.recorded.record_settings import (
    EdfSettings,
    ImageSlicesSettings,
    MoleculesSettings,
    WaveformsSettings,
)
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.study.definition import Study

HOSPITAL = "hospital"  # source of a study that accepts any of a hospital's own systems
OWN_SYSTEMS = frozenset({"tables", "sql", "meds", "omop", "fhir", "hl7"})
RECORDINGS = frozenset({"waveforms", "edf"})  # either serves a study of the other
S = TypeVar("S", bound=DataSettings)


@dataclass(frozen=True)
class SourceKind(Generic[S]):
    """One kind of source: the model of its settings, and the function that opens it."""

    settings: type[S]
    open: Callable[[S, Study], Source]


def _physionet2012(chosen: settings.PhysioNet2012Settings, _: Study) -> Source:
    from consilium.client.sources.public.physionet2012 import PhysioNet2012

    numbers: dict[str, float] = {}
    for name, value in chosen.where.items():
        if isinstance(value, str):
            raise SettingsError(f"[data] where: {name} is a text and must be a number; correct it")
        numbers[name] = value
    return PhysioNet2012(chosen.path, which=chosen.set, where=numbers)


def _tables(chosen: TablesSettings, _: Study) -> Source:
    needs("polars", chosen.source)
    from consilium.client.sources.own.tables.tables import Tables

    return Tables(chosen)


def _meds(chosen: MedsSettings, _: Study) -> Source:
    needs("polars", chosen.source)
    from consilium.client.sources.own.meds.meds import Meds

    return Meds(chosen)


def _omop(chosen: OmopSettings, _: Study) -> Source:
    needs("polars", chosen.source)
    from consilium.client.sources.own.databases.omop import Omop

    return Omop(chosen)


def _sql(chosen: SqlSettings, _: Study) -> Source:
    needs("polars", chosen.source, "sql")
    from consilium.client.sources.own.databases.sql_tables import Sql

    return Sql(chosen)


def _fhir(chosen: FhirSettings, _: Study) -> Source:
    needs("polars", chosen.source)
    from consilium.client.sources.own.fhir.fhir import Fhir

    return Fhir(chosen)


def _hl7(chosen: Hl7Settings, _: Study) -> Source:
    needs("polars", chosen.source)
    from consilium.client.sources.own.hl7.hl7 import Hl7

    return Hl7(chosen)


def _waveforms(chosen: WaveformsSettings, _: Study) -> Source:
    needs("wfdb", chosen.source)
    from consilium.client.sources.recorded.waveforms import Waveforms

    return Waveforms(chosen)


def _edf(chosen: EdfSettings, _: Study) -> Source:
    needs("edfio", chosen.source)
    from consilium.client.sources.recorded.edf import Edf

    return Edf(chosen)


def _image_slices(chosen: ImageSlicesSettings, _: Study) -> Source:
    from consilium.client.sources.recorded.image_slices import ImageSlices

    return ImageSlices(chosen)


def _molecules(chosen: MoleculesSettings, _: Study) -> Source:
    from consilium.client.sources.recorded.molecules import Molecules

    return Molecules(chosen.path, column=chosen.column, compound=chosen.compound)


def _physionet2019(chosen: settings.FileOrFolderSettings, _: Study) -> Source:
    from consilium.client.sources.public.physionet2019 import PhysioNet2019

    return PhysioNet2019(chosen.path)


def _heart_disease(chosen: settings.HeartDiseaseSettings, _: Study) -> Source:
    from consilium.client.sources.public.heart_disease import HeartDisease

    return HeartDisease(chosen.path, hospital=chosen.hospital)


def _diagnosis_codes(chosen: settings.DiagnosisCodesSettings, _: Study) -> Source:
    from consilium.client.sources.public.diagnosis_codes import DiagnosisCodes

    where = {name: str(value) for name, value in chosen.where.items()}
    return DiagnosisCodes(chosen.path, where=where, fewest_visits=chosen.fewest_visits)


def _eicu_demo(chosen: settings.RecordsSettings, _: Study) -> Source:
    needs("polars", chosen.source)
    from consilium.client.sources.public.eicu_demo import EicuDemo

    return EicuDemo(chosen.path, where=chosen.where)


def _parkinsons(chosen: settings.FileOrFolderSettings, _: Study) -> Source:
    from consilium.client.sources.public.parkinsons import Parkinsons

    return Parkinsons(chosen.path)


def needs(module: str, source: str, extra: str = "hospital") -> None:
    """Refuse a source whose optional library is not installed.

    Raises:
        SettingsError: the library is missing; the sentence says how to install it.
    """
    library.needs(module, extra=extra, what=f"source {source!r}")


SOURCES: Mapping[str, SourceKind[Any]] = MappingProxyType(
    {
        "physionet2012": SourceKind(settings.PhysioNet2012Settings, _physionet2012),
        "physionet2019": SourceKind(settings.FileOrFolderSettings, _physionet2019),
        "tables": SourceKind(TablesSettings, _tables),
        "sql": SourceKind(SqlSettings, _sql),
        "meds": SourceKind(MedsSettings, _meds),
        "omop": SourceKind(OmopSettings, _omop),
        "fhir": SourceKind(FhirSettings, _fhir),
        "hl7": SourceKind(Hl7Settings, _hl7),
        "waveforms": SourceKind(WaveformsSettings, _waveforms),
        "edf": SourceKind(EdfSettings, _edf),
        "diagnosis-codes": SourceKind(settings.DiagnosisCodesSettings, _diagnosis_codes),
        "molecules": SourceKind(MoleculesSettings, _molecules),
        "image-slices": SourceKind(ImageSlicesSettings, _image_slices),
        "heart-disease": SourceKind(settings.HeartDiseaseSettings, _heart_disease),
        "eicu-demo": SourceKind(settings.RecordsSettings, _eicu_demo),
        "parkinsons": SourceKind(settings.FileOrFolderSettings, _parkinsons),
    }
)


def read_data_settings(
    table: Mapping[str, Any],
    *,
    where: str,
    folder: Path,
    installed: Set[str] = NOTHING,
) -> DataSettings:
    """Check the ``[data]`` table of a ``site.toml``.

    Args:
        table: the table as read from TOML.
        where: the file's name, for errors.
        folder: the file's folder, where relative paths start.
        installed: the sources of installed packages that the site's policy allows.

    Raises:
        SettingsError: an unknown source, an unknown key, or a key with a wrong value; or a source
            of an installed package that is not allowed, of which nothing is loaded.
    """
    source = table.get("source")
    if isinstance(source, str) and source not in SOURCES and is_installed(source):
        loaded = load(source, installed)
        chosen = parse_settings(loaded.settings, table, where=where, folder=folder)
        chosen._installed = loaded
        return chosen
    if not isinstance(source, str) or source not in SOURCES:
        near = difflib.get_close_matches(str(source), SOURCES, n=1, cutoff=0.0)[0]
        problem = "is missing" if source is None else f"= {source!r} is not a known source"
        raise SettingsError(f"{where}: [data] source {problem}; did you mean {near!r}?")
    return parse_settings(SOURCES[source].settings, table, where=where, folder=folder)


def open_source(chosen: DataSettings, study: Study, *, counts_units: bool = False) -> Source:
    """Open the records that the settings name, for one study, behind the one door of records.

    Args:
        chosen: the ``[data]`` table.
        study: the study for which they are read.
        counts_units: whether rows in units that are not understood are counted, not refused.

    Raises:
        DataError: the records are not there, or the study wants another source.
        SettingsError: something that the settings name cannot be used.
    """
    check_serves(chosen, study)
    source: Source
    if chosen.installed is not None:
        source = opened(chosen.installed, chosen, study)
    else:
        source = SOURCES[chosen.source].open(chosen, study)
        if chosen.opted_out is None and not isinstance(chosen, HospitalSettings):
            return source
    return behind_door(source, opted_out=chosen.opted_out, counts_units=counts_units)


def check_serves(chosen: DataSettings, study: Study) -> None:
    """Refuse records of another kind than a study wants.

    Raises:
        DataError: they are.
    """
    wanted = study.data.source
    own = chosen.source in OWN_SYSTEMS or chosen.installed is not None
    alike = (wanted == HOSPITAL and own) or {wanted, chosen.source} <= RECORDINGS
    if wanted != chosen.source and not alike:
        raise DataError(
            f"study {study.name} wants source {wanted!r}, but site.toml has {chosen.source!r}; "
            "choose the matching data or study"
        )
