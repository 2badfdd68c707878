"""The ``[data]`` tables of a hospital's own systems: its files, MEDS, OMOP and FHIR.

A study says which variables it wants; these settings say where the hospital keeps them, how it
writes them, and how the label is derived.
"""

import io
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from consilium.client.sources.common.settings import (
    DataSettings,
    FilePath,
    Listed,
    Number,
    SettingsPart,
    Where,
)

Midnight = Literal["detect", "day", "instant"]
TimeFormat = Annotated[str | tuple[str, ...] | None, Listed]
TimeColumn = Annotated[str | tuple[str, str], Listed]  # or a column of dates and one of times
HoursUnit = Literal["s", "min", "h", "d"]


def time_columns(*columns: str | tuple[str, str] | None) -> list[str]:
    """Return the names of the columns that times are read from."""
    return [
        name
        for column in columns
        if column is not None
        for name in ((column,) if isinstance(column, str) else column)
    ]


def _of_texts(name: str) -> str:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name).close()
    except (LookupError, ValueError):
        raise ValueError(
            f"{name[:40]!r} is no encoding of texts; write one such as 'latin-1', 'cp1252' or "
            "'utf-16'"
        ) from None
    return name


def _https(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an address that begins with https://, without '?' or '#'")
    if parts.username or parts.password:
        raise ValueError("holds a name or a password; remove them, and use [data.auth]")
    return url.rstrip("/")


Encoding = Annotated[str, AfterValidator(_of_texts)]
FhirType = Literal[
    "Patient", "Encounter", "Observation", "Condition", "MedicationAdministration", "Medication"
]
HttpsUrl = Annotated[str, AfterValidator(_https)]


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
        time_zone: the hospital's zone, such as ``Europe/Berlin`` or ``+10:00``: of times without an
            offset, and of days.
        midnight: whether times at exactly 00:00 stand for their day: by their share in the column
            (``detect``), always (``day``), or never (``instant``).
    """

    variables: dict[str, VariableSettings] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)
    time_zone: str | None = Field(default=None, min_length=1, max_length=64)
    midnight: Midnight = "detect"


class RowsSettings(SettingsPart):
    """How the texts of a table are written.

    ``time_format`` is one format or a list of them: as for strptime, or ``epoch`` (seconds since
    1970), ``epoch-ms``, ``excel`` (days since 1899-12-30).
    """

    decimal_comma: bool = False
    time_format: TimeFormat = None

    @property
    def place(self) -> str:
        """Where the rows are, for errors."""
        return "a table"


class FileSettings(RowsSettings):
    """A file of any form that :mod:`.tables.table_files` reads, or several.

    A pattern such as ``vitals/*.parquet`` names several files, a folder those within it, whose
    hive names (``year=2024/``) are columns. ``separator`` and ``encoding`` apply to CSV only,
    ``sheet`` to XLSX, by default the first.
    """

    file: FilePath
    separator: str = Field(default=",", min_length=1, max_length=1)
    encoding: Encoding = "utf-8"
    sheet: str | None = None

    @property
    def place(self) -> str:
        """Where the rows are, for errors."""
        return str(self.file)


class QuerySettings(RowsSettings):
    """A table or view of a database (``schema.name``), or a query that only reads."""

    table: str | None = Field(default=None, min_length=1)
    query: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _says_which_rows(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("names neither or both of table and query; name one")
        if self.query is not None and not re.match(
            r"\s*(select|with)\b", self.query, re.IGNORECASE
        ):
            raise ValueError("query begins with neither SELECT nor WITH; only reading is allowed")
        if self.query is not None and ";" in self.query.rstrip("; \n\t"):
            raise ValueError("query holds a ';'; write one statement, and no ';' within it")
        return self

    @property
    def place(self) -> str:
        """Where the rows are, for errors."""
        return f"table {self.table}" if self.table is not None else "a query of [data]"


class StaysColumns(RowsSettings):
    """The columns of a table of stays, one row per stay.

    Without ``stay``, every patient has one stay; without ``start``, events must give hours, not
    times. ``label`` names the outcome's column (several for a multilabel study); by default it is
    the study's label; ``values`` are the numbers of its words, such as ``{ ja = 1, nein = 0 }``.
    ``outcome_time`` is the time of the outcome, empty if it did not happen. A time may be two
    columns, of the date and of the time of day. ``end_hours`` and ``outcome_hours`` are numbers
    since the start, in ``hours_unit``.
    """

    patient: str
    stay: str | None = None
    start: TimeColumn | None = None
    end: TimeColumn | None = None
    birth: TimeColumn | None = None
    label: Annotated[str | tuple[str, ...] | None, Listed] = None
    values: dict[str, Number] = Field(default_factory=dict)
    outcome_time: TimeColumn | None = None
    end_hours: str | None = None
    outcome_hours: str | None = None
    hours_unit: HoursUnit = "h"

    @model_validator(mode="after")
    def _says_each_time_once(self) -> Self:
        if self.end is not None and self.end_hours is not None:
            raise ValueError("names end and end_hours; keep one")
        if self.outcome_time is not None and self.outcome_hours is not None:
            raise ValueError("names outcome_time and outcome_hours; keep one")
        return self


class StaysFile(FileSettings, StaysColumns):
    """A file of stays."""


class StaysQuery(QuerySettings, StaysColumns):
    """A database's rows of stays."""


class EventsColumns(RowsSettings):
    """The columns of a table of measurements: long (one per row) or wide (one column per variable).

    ``stay`` or ``patient`` assigns the rows; with ``patient`` alone, a row belongs to every stay
    that holds its time. ``time`` is a date and time, in one column or two; ``hours`` is a number
    since the stay's start, in ``hours_unit``. ``variables`` names those of the study's variables of
    which a wide table has a column; unless given, all of them.
    """

    layout: Literal["long", "wide"] = "long"
    stay: str | None = None
    patient: str | None = None
    time: TimeColumn | None = None
    hours: str | None = None
    hours_unit: HoursUnit = "h"
    variable: str | None = None
    value: str | None = None
    unit: str | None = None
    variables: Annotated[tuple[str, ...] | None, Listed] = None

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
        if self.layout == "long" and self.variables is not None:
            raise ValueError("is long, and variables names the columns of a wide one; remove it")
        return self


class EventsFile(FileSettings, EventsColumns):
    """A file of measurements."""


class EventsQuery(QuerySettings, EventsColumns):
    """A database's rows of measurements."""


class StepLabelsColumns(RowsSettings):
    """The columns of a table of a per-step study's label: one row per stay and hour (or time).

    ``values`` are the numbers of words, such as ``{ ja = 1, nein = 0 }``.
    """

    stay: str
    label: str
    values: dict[str, Number] = Field(default_factory=dict)
    hours: str | None = None
    hours_unit: HoursUnit = "h"
    time: TimeColumn | None = None

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if (self.time is None) == (self.hours is None):
            raise ValueError("names neither or both of time and hours; name one column")
        return self


class StepLabelsFile(FileSettings, StepLabelsColumns):
    """A file of a per-step study's label."""


class StepLabelsQuery(QuerySettings, StepLabelsColumns):
    """A database's rows of a per-step study's label."""


class MappedTables(HospitalSettings):
    """Tables of which the hospital names the columns, whatever holds them.

    ``where`` keeps only stays whose columns have these values.
    """

    stays: StaysFile | StaysQuery
    events: Annotated[tuple[EventsFile | EventsQuery, ...], Listed] = Field(min_length=1)
    labels: StepLabelsFile | StepLabelsQuery | None = None
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


class TablesSettings(MappedTables):
    """Files of tables."""

    stays: StaysFile
    events: Annotated[tuple[EventsFile, ...], Listed] = Field(min_length=1)
    labels: StepLabelsFile | None = None


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


class DatabaseSettings(HospitalSettings):
    """A database at an address, or in a file.

    Attributes:
        url: ``postgresql://user@host/database?sslmode=verify-full``, without a password;
            ``mssql://`` and ``oracle://`` are possible, and untested.
        file: an SQLite or DuckDB file.
        password_env: environment variable with the password.
        password_file: file with the password, readable by its owner only (mode 0600).
    """

    url: str | None = None
    file: FilePath | None = None
    password_env: str | None = None
    password_file: FilePath | None = None

    @model_validator(mode="after")
    def _one_database_and_no_secret(self) -> Self:
        if (self.url is None) == (self.file is None):
            raise ValueError("names neither or both of url and file; name one")
        if self.url and re.search(
            r"//[^/@]*:[^/@]*@|[?&](password|passfile|pwd)=", self.url, re.IGNORECASE
        ):
            raise ValueError(
                "url holds a password; remove it there, and name password_env or password_file"
            )
        if self.password_env is not None and self.password_file is not None:
            raise ValueError("names password_env and password_file; keep one")
        return self


class SqlSettings(DatabaseSettings, MappedTables):
    """A database of any schema: tables, views or queries with named columns."""

    stays: StaysQuery
    events: Annotated[tuple[EventsQuery, ...], Listed] = Field(min_length=1)
    labels: StepLabelsQuery | None = None


class OmopSettings(DatabaseSettings):
    """An OMOP CDM 5.3 or 5.4 database.

    Attributes:
        database_schema: schema of the CDM's tables.
        stays: the table of stays: visits, or their details (such as intensive care).
        stay_concepts: concept ids of visits (or details) that count; by default inpatient visits.
        descendants: whether a concept of a condition or drug includes its descendants.
        died_concepts: where a visit was discharged to if the patient died, for an extract without
            the table of deaths.
        outcome: how the label is derived.
        time_format: of times that the database holds as texts; by default ISO 8601.
    """

    database_schema: str | None = None
    stays: Literal["visit_occurrence", "visit_detail"] = "visit_occurrence"
    stay_concepts: Annotated[tuple[int, ...], Listed] = Field(default=(9201, 262), min_length=1)
    descendants: bool = True
    died_concepts: Annotated[tuple[int, ...], Listed] = (4216643,)  # "Patient died"
    outcome: OutcomeSettings = OutcomeSettings()
    time_format: TimeFormat = None


class FhirAuth(SettingsPart):
    """How a FHIR server knows this site: SMART backend services, or a token that it was given.

    Attributes:
        client_id: by which the server knows this site; needs ``key_file``.
        key_file: the site's private key (PEM, RSA or P-384), readable by its owner only.
        key_id: the key's identifier among those that the server has of this site.
        token_url: where access tokens are asked for; by default what the server's
            ``.well-known/smart-configuration`` says.
        scope: what the token is asked for.
        token_env, token_file: a token that is used as it is, instead of a key.
    """

    client_id: str | None = None
    key_file: FilePath | None = None
    key_id: str | None = None
    token_url: HttpsUrl | None = None
    scope: str = "system/*.read"
    token_env: str | None = None
    token_file: FilePath | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.client_id is None) != (self.key_file is None):
            raise ValueError("names only one of client_id and key_file; name both")
        ways = (self.client_id, self.token_env, self.token_file)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("must name client_id, token_env or token_file, and one of them only")
        return self


class FhirSettings(HospitalSettings):
    """FHIR R4: a folder of a bulk export or of Bundles, or a server.

    Attributes:
        path: the folder.
        server: the server's base, ``https://fhir.example.org/R4``.
        fetch: how resources come from a server: a bulk export, or searches page by page.
        group: the Group whose export is fetched, by its identifier; by default everybody.
        search: what searches ask for beyond the type, such as
            ``{ Observation = "category=vital-signs" }``.
        auth: how the server knows this site.
        ca_file: the certificate authority that vouches for the server, if it is not a public one.
        file_hosts: other hosts from which the server's export may be fetched.
        largest_gib: most that is fetched for one reading.
        longest_wait_h: how long an export may be in preparation.
        encounter_classes: codes of Encounter.class that count as stays.
        inner_encounters: if true, stays are the encounters within another one, such as intensive
            care within a hospital stay; otherwise those that are not part of another.
        outcome: how the label is derived.
    """

    path: FilePath | None = None
    server: HttpsUrl | None = None
    fetch: Literal["export", "search"] = "export"
    group: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.-]{1,64}$")
    search: dict[FhirType, str] = Field(default_factory=dict)
    auth: FhirAuth | None = None
    ca_file: FilePath | None = None
    file_hosts: Annotated[tuple[str, ...], Listed] = ()
    largest_gib: float = Field(default=64.0, gt=0, le=4096)
    longest_wait_h: float = Field(default=12.0, gt=0, le=168)
    encounter_classes: Annotated[tuple[str, ...], Listed] = ("IMP", "ACUTE", "NONAC")
    inner_encounters: bool = False
    outcome: OutcomeSettings = OutcomeSettings()

    @model_validator(mode="after")
    def _a_folder_or_a_server(self) -> Self:
        if (self.path is None) == (self.server is None):
            raise ValueError("names neither or both of path and server; name one")
        of_a_server = (self.group, self.auth, self.ca_file, *self.search, *self.file_hosts)
        if self.path is not None and any(one is not None for one in of_a_server):
            raise ValueError("names path, and a key that belongs to server; remove one of them")
        if self.search and self.fetch == "export":
            raise ValueError("search belongs to fetch = 'search'; write that, or remove search")
        if self.group is not None and self.fetch == "search":
            raise ValueError("group belongs to fetch = 'export'; write that, or remove group")
        return self


class Hl7Settings(HospitalSettings):
    """Files of HL7 version 2 messages (ADT and ORU).

    Attributes:
        path: a file, a pattern such as ``messages/*.hl7``, or a folder.
        encoding: of the messages; by default what each says in MSH-18, or else UTF-8.
        patient_classes: values of PV1-2 that count as stays.
        visit: the field that tells one visit from another.
        assigner: who gave out the identifiers of patients (the first part of PID-3.4) to be used.
        died_dispositions: values of PV1-36 that mean that the patient died.
        outcome: how the label is derived.
    """

    path: FilePath
    encoding: Encoding | None = None
    patient_classes: Annotated[tuple[str, ...], Listed] = Field(default=("I",), min_length=1)
    visit: Literal["PV1-19", "PID-18"] = "PV1-19"
    assigner: str | None = None
    died_dispositions: Annotated[tuple[str, ...], Listed] = ()
    outcome: OutcomeSettings = OutcomeSettings()
