"""One synthetic cohort, written as a hospital's tables, MEDS, OMOP and FHIR would hold it."""

import datetime as dt
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import sqlalchemy as sql

from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.shared.study.dictionary import KNOWN
from consilium.simulations.cohorts.hospitals import synthetic_hospital
from tests.client.sources.postgresql import Server

ROOT = Path(__file__).parents[3]
DEMO = load_study(ROOT / "studies" / "demo.toml")
STUDY: Study = with_changes(DEMO, data={"source": "tables", "minimum_patients": 5})
DRUG = "Vasopressor"
NOREPINEPHRINE = 1321341  # OMOP's concept
FIRST_DAY = dt.datetime(2019, 3, 1, 6, 30)
# Some rows come in another unit, as laboratories change: value * factor + offset.
OTHER_UNITS = {
    "Temp": ("[degF]", 1.8, 32.0),
    "Creatinine": ("umol/L", 88.4, 0.0),
    "Lactate": ("mg/dL", 9.008, 0.0),
    "WBC": ("10*9/L", 1.0, 0.0),
    "K": ("meq/L", 1.0, 0.0),
}


@dataclass(frozen=True)
class Written:
    """Stays (patient, stay, start, end, birth, sex, died); events (patient, stay, time, ...).

    ``drugs``: patient, stay and time of a vasopressor given, without any number.
    """

    stays: pl.DataFrame
    events: pl.DataFrame
    drugs: pl.DataFrame


def written(patients: int = 40, *, index: int = 0) -> Written:
    """The cohort in plain columns, the same every time."""
    stream = np.random.default_rng(7)
    names = list(DEMO.variables)
    source = synthetic_hospital(index, DEMO)
    stays, events, drugs = [], [], []
    for number, patient in enumerate(source.read_patients(DEMO)):
        if number == patients:
            break
        person = 1000 + number - (number % 7 == 6)  # every seventh is a second stay of the last
        (record,) = patient.stays
        start = FIRST_DAY + dt.timedelta(days=9 * number, minutes=int(stream.integers(0, 1440)))
        age = float(record.value_E[record.variable_E == names.index("Age")][0])
        male = float(record.value_E[record.variable_E == names.index("Gender")][0])
        if person == 1000 + number:
            birth = dt.datetime(start.year - int(age), 1, 1) + dt.timedelta(days=number)
            sex = "M" if male else "F"
        died = int(record.label) if number % 7 != 5 else 0  # whoever comes again has not died
        stays.append((person, 5000 + number, start, start + dt.timedelta(hours=60), birth, sex,
                      died))  # fmt: skip  # reads as one row
        for hour, variable, value in zip(
            record.hours_E, record.variable_E, record.value_E, strict=True
        ):
            name = names[variable]
            if name in ("Age", "Gender"):
                continue
            time = start + dt.timedelta(seconds=round(float(hour) * 3600))
            unit, amount = KNOWN[name].declaration.unit, round(float(value), 3)
            if name in OTHER_UNITS and stream.random() < 0.4:
                unit, factor, offset = OTHER_UNITS[name]
                amount = round(amount * factor + offset, 3)
            events.append((person, 5000 + number, time, name, amount, unit))
        if number % 3 == 0:
            drugs.append((person, 5000 + number, start + dt.timedelta(minutes=90 + 20 * number)))
    order = stream.permutation(len(events))
    return Written(
        pl.DataFrame(
            stays,
            schema=["patient", "stay", "start", "end", "birth", "sex", "died"],
            orient="row",
        ),
        pl.DataFrame(
            [events[i] for i in order],
            schema=["patient", "stay", "time", "name", "value", "unit"],
            orient="row",
        ).unique(["stay", "time", "name"], keep="first", maintain_order=True),
        pl.DataFrame(drugs, schema=["patient", "stay", "time"], orient="row"),
    )


TABLES_SETTINGS = """
source = "tables"
[stays]
file = "stays.{kind}"
patient = "patient"
stay = "stay"
start = "start"
end = "end"
birth = "birth"
label = "died"
[[events]]
file = "events.{kind}"
{key} = "{key}"
time = "time"
variable = "name"
value = "value"
unit = "unit"
[variables.Gender]
column = "sex"
values = {{ M = 1, F = 0 }}
"""


def write_tables(cohort: Written, folder: Path, kind: str, *, key: str = "stay") -> str:
    """Write stays and events; return the settings that read them."""
    given = cohort.drugs.with_columns(name=pl.lit(DRUG), value=pl.lit(1.0), unit=pl.lit("1"))
    events = pl.concat([cohort.events, given.select(cohort.events.columns)])
    for name, frame in (("stays", cohort.stays), ("events", events)):
        if kind == "parquet":
            frame.write_parquet(folder / f"{name}.parquet")
        else:
            frame.write_csv(folder / f"{name}.csv", datetime_format="%Y-%m-%d %H:%M:%S")
    return TABLES_SETTINGS.format(kind=kind, key=key)


MEDS_SETTINGS = """
source = "meds"
path = "meds"
unit = "unit"
[variables.Vasopressor]
codes = ["MEDICATION//norepinephrine"]
present = 1
"""


def write_meds(cohort: Written, folder: Path) -> str:
    """Write a MEDS dataset of two shards; return the settings that read it."""
    stays, events = cohort.stays, cohort.events
    names = {name: f"LOINC//{KNOWN[name].loinc}" for name in events["name"].unique()}
    person = stays.unique("patient", keep="first", maintain_order=True)

    def rows(frame: pl.DataFrame, code: pl.Expr, time: pl.Expr) -> pl.DataFrame:
        return frame.select(
            pl.col("patient").alias("subject_id"), time.alias("time"), code.alias("code")
        )

    died = stays.filter(pl.col("died") == 1)
    parts = [
        rows(person, pl.lit("MEDS_BIRTH"), pl.col("birth")),
        rows(person, pl.lit("GENDER//") + pl.col("sex"), pl.lit(None, dtype=pl.Datetime("us"))),
        rows(stays, pl.lit("HOSPITAL_ADMISSION//URGENT"), pl.col("start")),
        rows(stays, pl.lit("HOSPITAL_DISCHARGE"), pl.col("end")),
        rows(died, pl.lit("MEDS_DEATH"), pl.col("end") - pl.duration(hours=1)),
        rows(events, pl.col("name").replace_strict(names), pl.col("time")).with_columns(
            events["value"].cast(pl.Float32).alias("numeric_value"), events["unit"]
        ),
        rows(cohort.drugs, pl.lit("MEDICATION//norepinephrine"), pl.col("time")),
    ]
    frame = pl.concat(parts, how="diagonal_relaxed").sort("subject_id", "time", nulls_last=False)
    data = folder / "meds" / "data" / "train"
    data.mkdir(parents=True)
    middle = frame["subject_id"].median()
    for shard, part in enumerate(
        (frame.filter(pl.col("subject_id") <= middle), frame.filter(pl.col("subject_id") > middle))
    ):
        part.write_parquet(data / f"{shard}.parquet")
    return MEDS_SETTINGS


OMOP_SETTINGS = """
source = "omop"
{where}
[variables.Vasopressor]
codes = [1321341]
present = 1
"""
WHOLE, TEXT, WHEN, DAY = sql.Integer, sql.String(255), sql.DateTime, sql.Date
# The columns of CDM 5.4 that matter here, with the types that its own scripts give them.
OMOP_TABLES: dict[str, dict[str, object]] = {
    "person": {
        "person_id": WHOLE, "gender_concept_id": WHOLE, "year_of_birth": WHOLE,
        "month_of_birth": WHOLE, "day_of_birth": WHOLE, "birth_datetime": WHEN,
    },
    "visit_occurrence": {
        "visit_occurrence_id": WHOLE, "person_id": WHOLE, "visit_concept_id": WHOLE,
        "visit_start_datetime": WHEN, "visit_end_datetime": WHEN,
    },
    "visit_detail": {
        "visit_detail_id": WHOLE, "person_id": WHOLE, "visit_detail_concept_id": WHOLE,
        "visit_detail_start_datetime": WHEN, "visit_detail_end_datetime": WHEN,
    },
    "measurement": {
        "measurement_id": WHOLE, "person_id": WHOLE, "measurement_concept_id": WHOLE,
        "measurement_date": DAY, "measurement_datetime": WHEN, "operator_concept_id": WHOLE,
        "value_as_number": sql.Numeric, "value_as_concept_id": WHOLE, "unit_concept_id": WHOLE,
        "unit_source_value": TEXT,
    },
    "condition_occurrence": {
        "condition_occurrence_id": WHOLE, "person_id": WHOLE, "condition_concept_id": WHOLE,
        "condition_start_date": DAY, "condition_start_datetime": WHEN,
    },
    "drug_exposure": {
        "drug_exposure_id": WHOLE, "person_id": WHOLE, "drug_concept_id": WHOLE,
        "drug_exposure_start_datetime": WHEN, "quantity": sql.Numeric,
    },
    "observation": {
        "observation_id": WHOLE, "person_id": WHOLE, "observation_concept_id": WHOLE,
        "observation_datetime": WHEN, "value_as_number": sql.Numeric, "value_as_string": TEXT,
        "value_as_concept_id": WHOLE, "unit_concept_id": WHOLE, "unit_source_value": TEXT,
    },
    "procedure_occurrence": {
        "procedure_occurrence_id": WHOLE, "person_id": WHOLE, "procedure_concept_id": WHOLE,
        "procedure_datetime": WHEN,
    },
    "death": {"person_id": WHOLE, "death_date": DAY, "death_datetime": WHEN},
    "concept_ancestor": {"ancestor_concept_id": WHOLE, "descendant_concept_id": WHOLE},
    "concept": {"concept_id": WHOLE, "concept_code": TEXT, "vocabulary_id": TEXT},
}  # fmt: skip  # one line is a few columns
UCUM_IDS = {"/min": 8541, "mm[Hg]": 8876, "Cel": 586323, "[degF]": 9289, "mmol/L": 8753}


def fill_omop(url: str, rows: dict[str, list[dict[str, object]]], *, schema: str | None) -> None:
    """Make an OMOP database's tables and fill them."""
    metadata = sql.MetaData(schema=schema)
    for name, columns in OMOP_TABLES.items():
        sql.Table(name, metadata, *(sql.Column(key, kind) for key, kind in columns.items()))
    engine = sql.create_engine(url)
    with engine.begin() as connection:
        if schema is not None:
            connection.execute(sql.schema.CreateSchema(schema, if_not_exists=True))
        metadata.drop_all(connection)
        metadata.create_all(connection)
        for table in metadata.sorted_tables:
            short = table.name
            if rows.get(short):
                empty = dict.fromkeys(OMOP_TABLES[short])
                connection.execute(table.insert(), [empty | row for row in rows[short]])
    engine.dispose()


def omop_rows(cohort: Written) -> dict[str, list[dict[str, object]]]:
    """The cohort as rows of OMOP tables; every other unit as a concept, the rest as text.

    The coma score is an observation, all other numbers are measurements.
    """
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in OMOP_TABLES}
    for stay in cohort.stays.iter_rows(named=True):
        birth, end = stay["birth"], stay["end"]
        if stay["patient"] not in {row["person_id"] for row in rows["person"]}:
            rows["person"].append({
                "person_id": stay["patient"],
                "gender_concept_id": {"M": 8507, "F": 8532}[stay["sex"]],
                "year_of_birth": birth.year, "month_of_birth": birth.month,
                "day_of_birth": birth.day,
                "birth_datetime": birth if stay["patient"] % 2 else None,
            })  # fmt: skip
        rows["visit_occurrence"].append({
            "visit_occurrence_id": stay["stay"], "person_id": stay["patient"],
            "visit_concept_id": 9201, "visit_start_datetime": stay["start"],
            "visit_end_datetime": end,
        })  # fmt: skip
        if stay["died"]:
            death = end - dt.timedelta(hours=1)
            rows["death"].append({
                "person_id": stay["patient"], "death_date": death.date(),
                "death_datetime": death if stay["stay"] % 2 else None,
            })  # fmt: skip
    rows["concept"] = [
        {"concept_id": number, "concept_code": code, "vocabulary_id": "UCUM"}
        for code, number in UCUM_IDS.items()
    ]
    for number, event in enumerate(cohort.events.iter_rows(named=True)):
        table = "observation" if event["name"] == "GCS" else "measurement"
        row = {
            f"{table}_id": number, "person_id": event["patient"],
            f"{table}_concept_id": KNOWN[event["name"]].omop,
            f"{table}_datetime": event["time"], "value_as_number": event["value"],
            "value_as_concept_id": 0, "unit_concept_id": UCUM_IDS.get(event["unit"], 0),
            "unit_source_value": event["unit"],
        }  # fmt: skip
        if table == "measurement":
            row |= {"measurement_date": event["time"].date(), "operator_concept_id": 4172703}
        rows[table].append(row)
    rows["drug_exposure"] = [
        {
            "drug_exposure_id": number, "person_id": drug["patient"],
            "drug_concept_id": NOREPINEPHRINE, "drug_exposure_start_datetime": drug["time"],
        }
        for number, drug in enumerate(cohort.drugs.iter_rows(named=True))
    ]  # fmt: skip
    return rows


def write_sqlite(cohort: Written, folder: Path) -> str:
    """Write an OMOP database in an SQLite file; return the settings that read it."""
    fill_omop(f"sqlite:///{folder / 'cdm.sqlite'}", omop_rows(cohort), schema=None)
    where = 'file = "cdm.sqlite"'
    return OMOP_SETTINGS.format(where=where)


def write_postgresql(cohort: Written, folder: Path, server: Server) -> str:
    """Write an OMOP database in PostgreSQL, in a schema of its own; return the settings."""
    schema = f"cdm_{folder.name}"
    fill_omop(server.url(password=True), omop_rows(cohort), schema=schema)
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(server.password + "\n")
    where = (
        f'url = "{server.url(password=False)}"\npassword_file = "password"\n'
        f'database_schema = "{schema}"'
    )
    return OMOP_SETTINGS.format(where=where)


FHIR_SETTINGS = """
source = "fhir"
path = "export"
[variables.Vasopressor]
codes = ["http://www.nlm.nih.gov/research/umls/rxnorm|7512"]
present = 1
"""
NOREPINEPHRINE_FHIR = {
    "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "7512"}]
}
UCUM = "http://unitsofmeasure.org"


def write_fhir(cohort: Written, folder: Path) -> str:
    """Write a bulk export, some of it compressed; return the settings that read it."""
    export = folder / "export"
    export.mkdir()
    patients, encounters, observations = [], [], []
    for stay in cohort.stays.iter_rows(named=True):
        subject = {"reference": f"Patient/{stay['patient']}"}
        encounters.append({
            "resourceType": "Encounter", "id": str(stay["stay"]), "status": "finished",
            "class": {"code": "IMP"}, "subject": subject,
            "period": {"start": instant(stay["start"]), "end": instant(stay["end"], hours=2)},
        })  # fmt: skip
        patient = {
            "resourceType": "Patient", "id": str(stay["patient"]),
            "gender": {"M": "male", "F": "female"}[stay["sex"]],
            "birthDate": stay["birth"].date().isoformat(),
        }  # fmt: skip
        if patients and patients[-1]["id"] == patient["id"]:
            patients.pop()
        patients.append(patient)
        if stay["died"] and stay["stay"] % 2:
            patient["deceasedDateTime"] = instant(stay["end"] - dt.timedelta(hours=1))
        elif stay["died"]:
            gone = {"coding": [{"code": "exp"}]}
            encounters[-1]["hospitalization"] = {"dischargeDisposition": gone}
    for number, event in enumerate(cohort.events.iter_rows(named=True)):
        quantity = {"value": event["value"], "unit": event["unit"]}
        if number % 2:
            quantity |= {"system": UCUM, "code": event["unit"], "unit": "as printed"}
        loinc = {"system": "http://loinc.org", "code": KNOWN[event["name"]].loinc}
        observations.append({
            "resourceType": "Observation", "id": str(number), "status": "final",
            "code": {"coding": [{"system": "urn:local", "code": "x"}, loinc]},
            "subject": {"reference": f"https://fhir.example.org/Patient/{event['patient']}"},
            "effectiveDateTime": instant(event["time"], hours=number % 3),
            "valueQuantity": quantity,
        })  # fmt: skip
    given = [
        {
            "resourceType": "MedicationAdministration", "id": str(number), "status": "completed",
            "subject": {"reference": f"Patient/{drug['patient']}"},
            "effectiveDateTime": instant(drug["time"], hours=number % 3),
            "medicationCodeableConcept": NOREPINEPHRINE_FHIR,
        }
        for number, drug in enumerate(cohort.drugs.iter_rows(named=True))
    ]  # fmt: skip
    half = len(observations) // 2
    for name, resources in (
        ("Patient.ndjson", patients),
        ("Encounter.000.ndjson.gz", encounters),
        ("Observation.000.ndjson", observations[:half]),
        ("Observation.001.ndjson.gz", observations[half:]),
        ("MedicationAdministration.ndjson", given),
    ):
        content = "".join(json.dumps(one) + "\n" for one in resources).encode()
        compressed = name.endswith(".gz")
        (export / name).write_bytes(gzip.compress(content, 1) if compressed else content)
    return FHIR_SETTINGS


def instant(time: dt.datetime, *, hours: int = 0) -> str:
    """The same moment as FHIR writes it, by the clock of another zone."""
    zone = dt.timezone(dt.timedelta(hours=hours))
    there = time.replace(tzinfo=dt.UTC).astimezone(zone).isoformat()
    return there if hours else there.replace("+00:00", "Z")


def tables_of(cohort: Written) -> dict[str, pl.DataFrame]:
    """The cohort's two tables, a drug given as a row with the number 1."""
    given = cohort.drugs.with_columns(name=pl.lit(DRUG), value=pl.lit(1.0), unit=pl.lit("1"))
    return {
        "stays": cohort.stays,
        "events": pl.concat([cohort.events, given.select(cohort.events.columns)]),
    }


def write_arrow(cohort: Written, folder: Path) -> str:
    """Write stays as Feather and events as an Arrow file, a folder in Hive's manner."""
    tables = tables_of(cohort)
    tables["stays"].write_ipc(folder / "stays.Feather")
    for (name,), part in tables["events"].group_by(["name"], maintain_order=True):
        place = folder / "events" / f"name={name}"
        place.mkdir(parents=True)
        part.drop("name").write_ipc(place / "part.arrow")
    text = TABLES_SETTINGS.format(kind="Feather", key="stay")
    return text.replace("events.Feather", "events")


def write_xlsx(cohort: Written, folder: Path) -> str:
    """Write a workbook of two sheets."""
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    for name, frame in tables_of(cohort).items():
        sheet = book.create_sheet(name)
        sheet.append(frame.columns)
        for row in frame.iter_rows():
            sheet.append(row)
    book.save(folder / "cohort.xlsx")
    text = TABLES_SETTINGS.format(kind="xlsx", key="stay")
    for name in ("stays", "events"):
        text = text.replace(f'file = "{name}.xlsx"', f'file = "cohort.xlsx"\nsheet = "{name}"')
    return text


def write_latin_csv(cohort: Written, folder: Path) -> str:
    """Write CSV as a spreadsheet of Western Europe does: semicolons, commas, Latin-1, packed."""
    text = TABLES_SETTINGS.format(kind="csv", key="stay")
    for name, frame in tables_of(cohort).items():
        written = frame.rename({frame.columns[0]: "größe"}).write_csv(
            separator=";", datetime_format="%Y-%m-%d %H:%M:%S", decimal_comma=True
        )
        (folder / f"{name}.CSV.gz").write_bytes(gzip.compress(written.encode("latin-1"), 1))
        text = text.replace(
            f'"{name}.csv"',
            f'"{name}.CSV.gz"\nencoding = "latin-1"\nseparator = ";"\ndecimal_comma = true',
        )
    return text.replace('patient = "patient"', 'patient = "größe"')


def _sql_settings(where: str, schema: str = "") -> str:
    text = TABLES_SETTINGS.format(kind="x", key="stay").replace('"tables"', f'"sql"\n{where}')
    text = text.replace('file = "stays.x"', f'table = "{schema}stays"')
    query = f"select * from {schema}events"  # noqa: S608  # ours
    return text.replace('file = "events.x"', f'query = "{query}"')


def fill_tables(cohort: Written, url: str, schema: str | None) -> None:
    """Write the two tables into a database."""
    kinds = {pl.Int64: sql.BigInteger(), pl.Float64: sql.Double(), pl.String: sql.String(64)}
    engine = sql.create_engine(url)
    metadata = sql.MetaData(schema=schema)
    with engine.begin() as connection:
        if schema is not None:
            connection.execute(sql.schema.CreateSchema(schema, if_not_exists=True))
        for name, frame in tables_of(cohort).items():
            columns = [
                sql.Column(column, kinds.get(dtype, sql.DateTime()))
                for column, dtype in frame.schema.items()
            ]
            table = sql.Table(name, metadata, *columns)
            table.create(connection)
            connection.execute(table.insert(), frame.to_dicts())
    engine.dispose()


def write_sql_sqlite(cohort: Written, folder: Path) -> str:
    """Write the two tables into an SQLite file."""
    fill_tables(cohort, f"sqlite:///{folder / 'his.sqlite'}", None)
    return _sql_settings('file = "his.sqlite"')


def write_sql_duckdb(cohort: Written, folder: Path) -> str:
    """Write the two tables into a DuckDB file."""
    import duckdb

    with duckdb.connect(str(folder / "his.duckdb")) as connection:
        for name, frame in tables_of(cohort).items():
            frame.write_parquet(folder / f"{name}.parquet")
            connection.execute(f"create table {name} as from '{folder / f'{name}.parquet'}'")
    return _sql_settings('file = "his.duckdb"')


def write_sql_postgresql(cohort: Written, folder: Path, server: Server) -> str:
    """Write the two tables into PostgreSQL, in a schema of their own."""
    schema = f"his_{folder.name}"
    fill_tables(cohort, server.url(password=True), schema)
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(server.password + "\n")
    where = f'url = "{server.url(password=False)}"\npassword_file = "password"'
    return _sql_settings(where, f"{schema}.")


def write_bundles(cohort: Written, folder: Path) -> str:
    """Write the FHIR resources as Bundles of a transaction, one file for each patient's part."""
    text = write_fhir(cohort, folder)
    resources = []
    for path in sorted((folder / "export").iterdir()):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        resources += [json.loads(line) for line in content.splitlines()]
        path.unlink()
    for number in range(7):
        part = [{"fullUrl": f"urn:x:{n}", "resource": one, "request": {"method": "PUT"}}
                for n, one in enumerate(resources) if n % 7 == number]  # fmt: skip
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": part}
        (folder / "export" / f"bundle{number}.json").write_text(json.dumps(bundle, indent=1))
    return text


HL7_SETTINGS = """
source = "hl7"
path = "messages"
[variables.Vasopressor]
codes = ["RXNORM|7512"]
present = 1
"""


def write_hl7(cohort: Written, folder: Path) -> str:
    """Write admissions, discharges, results and drugs given as HL7 messages of one day's batch."""

    def header(kind: str) -> str:
        return f"MSH|^~\\&|HIS|H|X|Y|20200101000000||{kind}|1|P|2.5.1"

    def ts(time: dt.datetime) -> str:
        return f"{time:%Y%m%d%H%M%S}"

    def pid(patient: int, more: str = "") -> str:
        return f"PID|1||{patient}^^^HOSP^PI{more}"

    messages = ["FHS|^~\\&", "BHS|^~\\&"]
    for stay in cohort.stays.iter_rows(named=True):
        dies = ts(stay["end"] - dt.timedelta(hours=1)) + "|Y" if stay["died"] else ""
        person = pid(
            stay["patient"], f"||x^y||{stay['birth']:%Y%m%d}|{stay['sex']}{'|' * 21}{dies}"
        )
        visit = f"PV1|1|I|{'|' * 16}{stay['stay']}{'|' * 25}{ts(stay['start'])}"
        messages += [header("ADT^A01"), person, visit]
        messages += [header("ADT^A03"), person, f"{visit}|{ts(stay['end'])}"]
    for event in cohort.events.iter_rows(named=True):
        code = f"x^local^L^{KNOWN[event['name']].loinc}^{event['name']}^LN"
        result = f"OBX|1|NM|{code}||{event['value']}|{event['unit']}|||||F|||{ts(event['time'])}"
        messages += [header("ORU^R01"), pid(event["patient"]), "OBR|1", result]
    for drug in cohort.drugs.iter_rows(named=True):
        result = f"OBX|1|CE|7512^Norepinephrine^RXNORM||||||||F|||{ts(drug['time'])}"
        messages += [header("ORU^R01"), pid(drug["patient"]), "OBR|1", result]
    (folder / "messages").mkdir()
    content = "\r".join([*messages, "BTS|1", "FTS|1"])
    (folder / "messages" / "day.hl7").write_text(content, newline="")
    return HL7_SETTINGS
