"""The ``[data]`` tables of a hospital's own systems: its files, MEDS, OMOP and FHIR.

A study says which variables it wants; these settings say where the hospital keeps them, how it
writes them, and how the label is derived.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from consilium.client.sources.common.settings import (
    DataSettings,
    FilePath,
    Listed,
    Number,
    SettingsPart,
    Where,
)


class VariableSettings(SettingsPart):
    """Where the hospital keeps one of the study's variables.

    Attributes:
        codes: its codes in the records: item numbers, LOINC codes, OMOP concept ids.
        column: its column in a wide table or, for a static variable, in the table of stays.
        unit: UCUM unit of values in rows without a unit.
        values: numbers for words and codes, such as ``{ M = 1, F = 0 }``.
        present: number for rows that only say that something happened, such as a drug given.
    """

    codes: Annotated[tuple[str | int, ...], Listed] = ()
    column: str | None = None
    unit: str | None = None
    values: dict[str, Number] = Field(default_factory=dict)
    present: Number | None = None


class HospitalSettings(DataSettings):
    """Settings common to the sources that read a hospital's own system.

    Attributes:
        variables: settings by the variable's name in the study; others have the source's defaults.
        units: the UCUM unit for each of the hospital's own spellings.
    """

    variables: dict[str, VariableSettings] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)


class FileSettings(SettingsPart):
    """A CSV or Parquet file, or several by a pattern such as ``vitals/*.parquet``.

    ``separator``, ``decimal_comma`` and ``time_format`` (as for strptime) apply to CSV only.
    """

    file: FilePath
    separator: str = Field(default=",", min_length=1, max_length=1)
    decimal_comma: bool = False
    time_format: str | None = None


class StaysFile(FileSettings):
    """A table of stays, one row per stay.

    Without ``stay``, every patient has one stay; without ``start``, events must give hours, not
    times. ``label`` names the outcome's column (several for a multilabel study); by default it is
    the study's label; ``values`` are the numbers of its words, such as ``{ ja = 1, nein = 0 }``.
    ``outcome_time`` is the time of the outcome, empty if it did not happen.
    """

    patient: str
    stay: str | None = None
    start: str | None = None
    end: str | None = None
    birth: str | None = None
    label: Annotated[str | tuple[str, ...] | None, Listed] = None
    values: dict[str, Number] = Field(default_factory=dict)
    outcome_time: str | None = None


class EventsFile(FileSettings):
    """A table of measurements: long (one per row) or wide (one column per variable).

    ``stay`` or ``patient`` assigns the rows; with ``patient`` alone, a row belongs to the latest
    stay that had begun. ``time`` is a date and time, ``hours`` a number since the stay's start.
    """

    layout: Literal["long", "wide"] = "long"
    stay: str | None = None
    patient: str | None = None
    time: str | None = None
    hours: str | None = None
    variable: str | None = None
    value: str | None = None
    unit: str | None = None

    @model_validator(mode="after")
    def _says_whose_when_and_what(self) -> Self:
        if (self.stay is None) == (self.patient is None):
            raise ValueError("names neither or both of stay and patient; name one column")
        if (self.time is None) == (self.hours is None):
            raise ValueError("names neither or both of time and hours; name one column")
        if self.hours is not None and self.patient is not None:
            raise ValueError("hours count from the start of a stay; name the stay's column")
        if self.layout == "long" and (self.variable is None or self.value is None):
            raise ValueError("is long and names no variable or no value; name both columns")
        return self


class StepLabelsFile(FileSettings):
    """A table of a per-step study's label: one row per stay and hour (or time).

    ``values`` are the numbers of words, such as ``{ ja = 1, nein = 0 }``.
    """

    stay: str
    label: str
    values: dict[str, Number] = Field(default_factory=dict)
    hours: str | None = None
    time: str | None = None

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if (self.time is None) == (self.hours is None):
            raise ValueError("names neither or both of time and hours; name one column")
        return self


class TablesSettings(HospitalSettings):
    """CSV and Parquet tables; ``where`` keeps only stays whose columns have these values."""

    stays: StaysFile
    events: Annotated[tuple[EventsFile, ...], Listed] = Field(min_length=1)
    labels: StepLabelsFile | None = None
    where: Where = Field(default_factory=dict)

    @model_validator(mode="after")
    def _times_count_from_a_start(self) -> Self:
        times = [one.time for one in self.events] + [self.labels.time if self.labels else None]
        if self.stays.start is None and any(times):
            raise ValueError(
                "has a table with times, and [data.stays] names no start to count them from; name "
                "its column, or give hours"
            )
        return self


class OutcomeSettings(SettingsPart):
    """How the study's label is derived if no column holds it.

    ``death``: death during the stay. ``condition``: one of ``codes`` begins during the stay.
    ``length-of-stay``: in days, for regression. ``readmission``: the patient's next stay begins at
    most ``within_days`` after the end of this one.
    """

    kind: Literal["death", "condition", "length-of-stay", "readmission"] = "death"
    codes: Annotated[tuple[str | int, ...], Listed] = ()
    within_days: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _a_condition_has_codes(self) -> Self:
        if (self.kind == "condition") != bool(self.codes):
            raise ValueError("codes belong to kind = 'condition', and it needs them; correct one")
        return self


class MedsSettings(HospitalSettings):
    """A MEDS dataset (Medical Event Data Standard).

    Attributes:
        path: the dataset's folder, which contains ``data``.
        stay_start, stay_end: codes that begin and end a stay; ``A`` also stands for ``A//...``.
        labels: Parquet file or folder of MEDS labels; each row is then one sample that ends at its
            prediction time, and stays and outcome are not used.
        outcome: how the label is derived without ``labels``.
        unit: the column of units, if there is one.
        split: keeps only subjects of this split, such as ``train``.
    """

    path: FilePath
    stay_start: Annotated[tuple[str, ...], Listed] = ("HOSPITAL_ADMISSION",)
    stay_end: Annotated[tuple[str, ...], Listed] = ("HOSPITAL_DISCHARGE",)
    labels: FilePath | None = None
    outcome: OutcomeSettings = OutcomeSettings()
    unit: str | None = None
    split: str | None = None


class OmopSettings(HospitalSettings):
    """An OMOP CDM 5.4 database, in PostgreSQL (``url``) or an SQLite ``file``.

    Attributes:
        url: ``postgresql://user@host/database?sslmode=verify-full``, without a password.
        file: the SQLite file.
        password_env: environment variable with the password.
        password_file: file with the password, readable by its owner only (mode 0600).
        database_schema: schema of the CDM's tables.
        stays: the table of stays: visits, or their details (such as intensive care).
        stay_concepts: concept ids of visits (or details) that count; by default inpatient visits.
        descendants: whether a concept of a condition or drug includes its descendants.
        outcome: how the label is derived.
    """

    url: str | None = None
    file: FilePath | None = None
    password_env: str | None = None
    password_file: FilePath | None = None
    database_schema: str | None = None
    stays: Literal["visit_occurrence", "visit_detail"] = "visit_occurrence"
    stay_concepts: Annotated[tuple[int, ...], Listed] = Field(default=(9201, 262), min_length=1)
    descendants: bool = True
    outcome: OutcomeSettings = OutcomeSettings()

    @model_validator(mode="after")
    def _one_database_and_no_secret(self) -> Self:
        if (self.url is None) == (self.file is None):
            raise ValueError("names neither or both of url and file; name one")
        if self.url and re.search(r"//[^/@]*:[^/@]*@|[?&](password|passfile)=", self.url):
            raise ValueError(
                "url holds a password; remove it there, and name password_env or password_file"
            )
        if self.password_env is not None and self.password_file is not None:
            raise ValueError("names password_env and password_file; keep one")
        return self


class FhirSettings(HospitalSettings):
    """A FHIR R4 bulk export: a folder of NDJSON files, compressed or not.

    Attributes:
        path: the folder.
        encounter_classes: codes of Encounter.class that count as stays.
        inner_encounters: if true, stays are the encounters within another one, such as intensive
            care within a hospital stay; otherwise those that are not part of another.
        outcome: how the label is derived.
    """

    path: FilePath
    encounter_classes: Annotated[tuple[str, ...], Listed] = ("IMP", "ACUTE", "NONAC")
    inner_encounters: bool = False
    outcome: OutcomeSettings = OutcomeSettings()
