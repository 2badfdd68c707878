"""The ``[data]`` tables of MEDS, databases, OMOP, FHIR and HL7."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from consilium.client.sources.common.settings import (
    FilePath,
    Listed,
    SettingsPart,
)
from consilium.client.sources.own.settings.hospital import HospitalSettings, OutcomeSettings
from consilium.client.sources.own.settings.tables import (
    Encoding,
    EventsQuery,
    MappedTables,
    StaysQuery,
    StepLabelsQuery,
    TimeFormat,
)


def _https(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an address that begins with https://, without '?' or '#'")
    if parts.username or parts.password:
        raise ValueError("holds a name or a password; remove them, and use [data.auth]")
    return url.rstrip("/")


FhirType = Literal[
    "Patient", "Encounter", "Observation", "Condition", "MedicationAdministration", "Medication"
]
HttpsUrl = Annotated[str, AfterValidator(_https)]


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
