"""``init`` on every form of records that ``[data]`` reads: what it writes is read by ``check``.

The made-up records are those of docs/data, written by the scripts of its pages.
"""

import datetime as dt
import random
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from consilium.client.commands.check import settings_from
from consilium.client.quality.measure import Quality, check_quality
from consilium.client.sources.registry import open_source
from consilium.shared.errors import ConsiliumError
from consilium.shared.study.definition import Study, load_study
from consilium.simulations.commands.first_look import said
from consilium.simulations.guesses.first_files import guess, write
from tests.docs.data_page import FOLDER, pages, run_here

PAGES = {page.name: page for page in pages()}
START = dt.datetime(2024, 3, 1, 8)
PERSONS = range(60)


def first(path: Path, out: Path, *columns: str) -> tuple[Study, Quality, str]:
    """What ``init`` writes for a path, read as ``check`` reads it."""
    study_file, records, *_ = write(guess(path, said(columns, None, None, None)), out)
    study, chosen = load_study(study_file), settings_from(records)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quality = check_quality(open_source(chosen, study), study)
    return study, quality, records.read_text()


def refused(path: Path) -> str:
    with pytest.raises(ConsiliumError) as told:
        guess(path, said([], None, None, None))
    assert "\n" not in str(told.value)
    return str(told.value)


def made(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *only: str) -> None:
    """Write the records of a page of docs/data."""
    monkeypatch.chdir(folder)
    (folder / "cohort.py").write_text((FOLDER / "cohort.py").read_text())
    (folder / "records").mkdir()
    for step in PAGES[name].steps:
        if isinstance(step, tuple) and step[0].endswith(".py") and (not only or step[0] in only):
            (folder / step[0]).write_text(step[1])
            run_here(f"python {step[0]}", monkeypatch)
    (folder / "cohort.py").unlink()


SYSTEM = {"HR", "Na", "Creatinine", "Age", "Gender"}
FORMS: dict[str, tuple[str, str, int, int, float, set[str]]] = {
    # page, what is looked at, patients, stays, share with the label, variables
    "fhir": ("fhir", "export", 60, 60, 1 / 3, SYSTEM),
    "meds": ("meds", "dataset", 60, 60, 1 / 3, SYSTEM),
    "omop": ("omop", "cdm.sqlite", 60, 60, 1 / 3, SYSTEM),
    "sql": ("sql", "his.sqlite", 60, 60, 1 / 3, SYSTEM),
    "hl7": ("hl7", "messages", 60, 60, 1 / 3, SYSTEM),
    "hl7-file": ("hl7", "messages/june.hl7", 60, 60, 1 / 3, SYSTEM),
    "edf": ("edf", "nights", 24, 480, 0.5, {"EEG C3-A2"}),
    "wfdb": ("waveforms", "records", 12, 696, float("nan"), {"MLII", "rr_before_ratio"}),
    "nifti": ("images", "volumes", 30, 30, 0.5, set()),
    "arrays": ("images", "scans.npz", 30, 30, 0.5, set()),
    "molecules": ("molecules", "compounds.csv", 60, 60, float("nan"), {"branch", "ring"}),
}
SCRIPTS = {"nifti": ("make_nifti.py",), "arrays": ("make_arrays.py",)}


@pytest.mark.sampled(2)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_check_reads_what_was_guessed_without_an_edit(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, target, patients, stays, share, variables = FORMS[form]
    made(name, tmp_path, monkeypatch, *SCRIPTS.get(form, ()))
    path = tmp_path / target
    if not path.exists():
        path = next(tmp_path.glob("*.csv"))
    study, quality, text = first(path, tmp_path / "out")
    assert (quality.read.patients, quality.read.stays) == (patients, stays)
    if share == share:
        assert quality.label_mean == pytest.approx(share)
    assert set(study.variables) == variables or (not variables and len(study.variables) == 16)
    assert not quality.read.unknown_units
    assert "# guess: " in text


@pytest.mark.filterwarnings("ignore")
def test_a_tree_of_dicom_files_with_a_table_of_labels(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    maker = pytest.importorskip("tests.client.sources.recorded.dicom_maker")
    for n in range(12):
        for place in range(3):
            maker.write_slice(
                tmp_path / "pacs" / f"{n}" / f"{place}.dcm",
                np.full((4, 4), 100 + 10 * n + place), patient=f"P{n}", series=f"1.2.{n + 1}",
                study=f"1.{n + 1}", number=place, position=(0, 0, float(place)),
            )  # fmt: skip  # reads as one
    lines = [f"{n},{'yes' if n % 2 else 'no'}" for n in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["folder,outcome", *lines]) + "\n")
    study, quality, text = first(tmp_path / "pacs", tmp_path / "out")
    assert (quality.read.patients, quality.label_mean) == (12, 0.5)
    assert study.privacy.unit == "patient"  # PatientID names them
    assert study.data.window_h == 3
    assert "values = { no = 0, yes = 1 }" in text


def stays_frame(**more: list[object]) -> pl.DataFrame:
    columns: dict[str, list[object]] = {
        "patient_id": [f"00{p}" for p in PERSONS],
        "admitted": [f"{START + dt.timedelta(days=p):%Y-%m-%d %H:%M}" for p in PERSONS],
        "died": [int(p % 3 == 0) for p in PERSONS],
    }
    return pl.DataFrame(columns | more)


def events_frame(**more: list[object]) -> pl.DataFrame:
    at = [(p, h) for p in PERSONS for h in range(4)]
    columns: dict[str, list[object]] = {
        "patient_id": [f"00{p}" for p, _ in at],
        "time": [f"{START + dt.timedelta(days=p, hours=h):%Y-%m-%d %H:%M}" for p, h in at],
        "HR": [70 + (p + h) % 15 for p, h in at],
    }
    return pl.DataFrame(columns | more)


def csv_pair(folder: Path, stays: str, events: str, encoding: str = "utf-8") -> Path:
    folder.mkdir()
    (folder / "stays.CSV").write_bytes(stays.encode(encoding))
    (folder / "values.csv").write_bytes(events.encode(encoding))
    return folder


def bom_and_crlf(folder: Path) -> Path:
    return csv_pair(folder, *(f.write_csv(line_terminator="\r\n") for f in
                              (stays_frame(), events_frame())), "utf-8-sig")  # fmt: skip


def umlauts(encoding: str) -> Callable[[Path], Path]:
    def write_pair(folder: Path) -> Path:
        stays = stays_frame().rename({"admitted": "Aufnahme (übl.)"}).write_csv(separator=";")
        stays = stays.replace("Aufnahme (übl.)", "Aufnahmezeit").replace("died", "Größe;died", 1)
        head, *rows = stays.splitlines()
        rows = [";".join([*row.split(";")[:2], "groß", row.split(";")[2]]) for row in rows]
        events = events_frame().write_csv(separator=";")
        return csv_pair(folder, "\n".join([head, *rows]) + "\n", events, encoding)

    return write_pair


def workbook(folder: Path) -> Path:
    """Decimal commas in cells of text, dates as Excel keeps them, and a second sheet."""
    openpyxl = pytest.importorskip("openpyxl")
    path = folder.with_suffix(".xlsx")
    book = openpyxl.Workbook()
    stays, values = book.active, book.create_sheet("Werte")
    stays.append(["patient_id", "admitted", "died"])
    values.append(["patient_id", "time", "HR"])
    for p in PERSONS:
        start = START + dt.timedelta(days=p)
        stays.append([5000 + p, start, int(p % 3 == 0)])
        for h in range(4):
            values.append([5000 + p, start + dt.timedelta(hours=h), f"{70 + (p + h) % 15},5"])
    book.save(path)
    return path


def arrow(folder: Path) -> Path:
    folder.mkdir()
    stays_frame().write_ipc(folder / "stays.feather")
    events_frame().write_ipc_stream(folder / "values.arrow")
    return folder


def lake(folder: Path) -> Path:
    folder.mkdir()
    stays_frame().write_parquet(folder / "stays.parquet")
    for name in ("HR", "Na"):
        part = events_frame().rename({"HR": "value"})
        part = part.with_columns(pl.col("value") + (60 if name == "Na" else 0))
        part.write_parquet(folder / "results" / f"item={name}" / "0.parquet", mkdir=True)
    return folder


def serials(folder: Path) -> Path:
    days = [45352.25 + p for p in PERSONS]
    at = [45352.25 + p + h / 24 for p in PERSONS for h in range(4)]
    return csv_pair(folder, stays_frame(admitted=days).write_csv(),
                    events_frame(time=at).write_csv())  # fmt: skip  # reads as one


def epochs(folder: Path) -> Path:
    begin = 1_709_280_000
    at = [begin + 86400 * p + 3600 * h for p in PERSONS for h in range(4)]
    return csv_pair(folder, stays_frame(admitted=[begin + 86400 * p for p in PERSONS]).write_csv(),
                    events_frame(time=at).write_csv())  # fmt: skip  # reads as one


def short_years(folder: Path) -> Path:
    begin = [f"{START + dt.timedelta(days=p):%d.%m.%y %H:%M}" for p in PERSONS]
    at = [f"{START + dt.timedelta(days=p, hours=h):%d.%m.%y %H:%M}"
          for p in PERSONS for h in range(4)]  # fmt: skip  # reads as one
    return csv_pair(folder, stays_frame(admitted=begin).write_csv(),
                    events_frame(time=at).write_csv())  # fmt: skip  # reads as one


def midnights(folder: Path) -> Path:
    """The end of a day as 24:00."""
    ends = [f"{START + dt.timedelta(days=p):%d.%m.%Y} {21 + h}:{'00' if h == 3 else '30'}"
            for p in PERSONS for h in range(4)]  # fmt: skip  # reads as one
    begin = [f"{START + dt.timedelta(days=p):%d.%m.%Y} 20:15" for p in PERSONS]
    return csv_pair(folder, stays_frame(admitted=begin).write_csv(),
                    events_frame(time=ends).write_csv())  # fmt: skip  # reads as one


def mixed_zones(folder: Path) -> Path:
    begin = [f"{START + dt.timedelta(days=p):%Y-%m-%dT%H:%M:%S}Z" for p in PERSONS]
    at = [f"{START + dt.timedelta(days=p, hours=h + 1):%Y-%m-%dT%H:%M:%S}+01:00"
          for p in PERSONS for h in range(4)]  # fmt: skip  # the same instants
    return csv_pair(folder, stays_frame(admitted=begin).write_csv(),
                    events_frame(time=at).write_csv())  # fmt: skip  # reads as one


def quoted(folder: Path) -> Path:
    remarks = [f"seen; twice, and\nagain {p}" for p in PERSONS]
    return csv_pair(folder, stays_frame(remark=remarks).write_csv(separator=";"),
                    events_frame().write_csv(separator=";"))  # fmt: skip  # reads as one


def floats(folder: Path) -> Path:
    folder.mkdir()
    stays_frame(patient_id=[5000 + p for p in PERSONS]).write_csv(folder / "stays.csv")
    whose = [5000.0 + p for p in PERSONS for _ in range(4)]
    events_frame(patient_id=whose).write_parquet(folder / "values.parquet")
    return folder


def unnamed_index(folder: Path) -> Path:
    """As pandas writes a frame: a first column without a name that numbers the rows."""
    pair = [frame.write_csv().splitlines() for frame in (stays_frame(), events_frame())]
    texts = ["\n".join([f",{head}", *(f"{n},{row}" for n, row in enumerate(rows))]) + "\n"
             for head, *rows in pair]  # fmt: skip  # reads as one
    return csv_pair(folder, *texts)


FOREIGN = {
    "BOM and CRLF": bom_and_crlf,
    "cp1252": umlauts("cp1252"),
    "UTF-16": umlauts("utf-16"),
    "workbook": workbook,
    "Arrow and Feather": arrow,
    "folders of a data lake": lake,
    "Excel's serials": serials,
    "seconds since 1970": epochs,
    "years of two digits": short_years,
    "24:00": midnights,
    "offsets that differ": mixed_zones,
    "separators and ends of lines in quotes": quoted,
    "identifiers as floats": floats,
    "an index without a name": unnamed_index,
}


@pytest.mark.parametrize("form", FOREIGN)
def test_a_foreign_way_to_write_tables_is_read_whole(form: str, tmp_path: Path) -> None:
    if form == "workbook":
        pytest.importorskip("fastexcel")
    study, quality, _ = first(FOREIGN[form](tmp_path / "in"), tmp_path / "out")
    assert (quality.read.patients, quality.read.stays) == (60, 60)
    assert quality.label_mean == pytest.approx(1 / 3)
    kinds = {"HR", "Na"} if form == "folders of a data lake" else {"HR"}
    assert set(study.variables) == kinds
    assert quality.read.events == 240 * len(kinds)  # nothing is lost
    assert study.data.window_h == 4  # every event in its hour


def eicu(folder: Path) -> Path:
    """Tables whose times are minutes since the stay began, as eICU has them."""
    folder.mkdir()
    stays = ["patientunitstayid,uniquepid,gender,age,unitdischargeoffset,hospitaldischargestatus"]
    vitals = ["vitalperiodicid,patientunitstayid,observationoffset,heartrate"]
    labs = ["labid,patientunitstayid,labresultoffset,labname,labresult,labmeasurenamesystem"]
    for s in range(100, 200):
        sex, end = ("Female", "Male")[s % 2], ("Alive", "Expired")[s % 4 == 0]
        stays.append(f"{s},p{s // 2},{sex},{40 + s % 50},{2400 + s},{end}")
        vitals += [f"{10 * s + h},{s},{60 * h + 7},{70 + (s + h) % 20}" for h in range(10)]
        labs += [f"{10 * s + h},{s},{60 * h + 20},sodium,{138 + h},mmol/L" for h in range(10)]
    for name, lines in (("patient", stays), ("vitalPeriodic", vitals), ("lab", labs)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_tables_in_minutes_need_one_option(tmp_path: Path) -> None:
    folder = eicu(tmp_path / "in")
    assert "--hours-unit min, h or d" in refused(folder)
    study_file, records, *_ = write(guess(folder, said([], None, None, "min")), tmp_path / "out")
    study = load_study(study_file)
    quality = check_quality(open_source(settings_from(records), study), study)
    assert set(study.variables) == {"Age", "Gender", "HR", "Na"}
    assert (quality.read.patients, quality.read.stays, quality.label_mean) == (50, 100, 0.25)
    assert quality.read.events == 100 * (2 + 9 + 9)  # nine of ten events lie in the window
    assert study.data.window_h == 9


def test_tables_of_which_none_says_when_are_refused(tmp_path: Path) -> None:
    folder = csv_pair(tmp_path / "in", stays_frame().write_csv(),
                      events_frame().drop("time").write_csv())  # fmt: skip  # reads as one
    assert "values.csv is not read: no column says when; name its columns" in refused(folder)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("patient_id,time,HR,HR,died\n1,2024-01-01,70,71,0\n")
    assert "has more than one column 'HR'; give each its own name" in refused(path)


REFUSALS: dict[str, Callable[[Path], object]] = {
    "is packed; unpack it": lambda p: (p / "x.zip").write_bytes(b"PK\3\4" + b"\0" * 40),
    "name the folder that holds them": lambda p: (p / "x.edf").write_bytes(b"0" * 300),
    "no table says the outcome of the images": lambda p: picture(p / "x" / "a.png"),
    "which are read from a database": lambda p: [
        (p / f"{name}.csv").write_text("a,b\n1,2\n")
        for name in ("person", "visit_occurrence", "measurement")
    ],
    "has a.zip, b.npz; unpack archives": lambda p: [
        (p / name).write_bytes(b"PK") for name in ("a.zip", "b.npz")
    ],
    "holds no table": lambda p: (p / "notes.pdf").write_bytes(b"%PDF"),
}


def picture(path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True)
    image.new("L", (4, 4)).save(path)


@pytest.mark.parametrize("sentence", REFUSALS)
def test_what_cannot_be_guessed_is_told_with_its_remedy(sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    REFUSALS[sentence](folder)
    files = list(folder.iterdir())
    single = len(files) == 1 and files[0].suffix in (".zip", ".edf")
    assert sentence in refused(files[0] if single else folder)


def test_a_server_is_not_looked_at() -> None:
    assert "docs/data/sql.md" in refused(Path("postgresql://somebody@db/his"))


GARBAGE = (
    "a.csv", "a.xlsx", "a.parquet", "a.feather", "a.arrow", "a.csv.gz", "a.ndjson", "a.ndjson.gz",
    "a.json", "a.hl7", "a.sqlite", "a.duckdb", "a.npz", "d/a.edf", "d/a.bdf", "d/a.hea", "d/a.dcm",
    "d/a.nii.gz", "d/a.png", "d/data/0.parquet", "d/item=1/0.parquet",
)  # fmt: skip  # names of every form


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_under_any_name_ends_in_one_sentence(name: str, tmp_path: Path) -> None:
    stream = random.Random(name)
    heads = (b"", b"MSH|^~\\&|", b"PK\3\4", b"SQLite format 3\0", b"ARROW1\0\0", b"PAR1")
    heads += (b"\x1f\x8b", b'{"resourceType": "Patient"', b"\xef\xbb\xbfa;b\n1;", b"0       ")
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for head in heads:
        path.write_bytes(head + stream.randbytes(stream.choice((0, 3, 300, 2000))))
        refused(tmp_path / "d" if name.startswith("d/") else path)


@pytest.mark.parametrize("cut", [0, 1, 7, 100, 400])
def test_a_file_cut_short_ends_in_one_sentence_or_is_read(cut: int, tmp_path: Path) -> None:
    for name, writes in (("a.parquet", "write_parquet"), ("a.feather", "write_ipc")):
        path = tmp_path / name
        getattr(stays_frame(), writes)(path)
        path.write_bytes(path.read_bytes()[:cut])
        refused(path)


def test_the_settings_are_toml_whatever_the_columns_are_called(tmp_path: Path) -> None:
    stays = stays_frame(**{'we"ird # [x]': list(range(2, 122, 2)), "größe (cm)": [170.5] * 60})
    folder = csv_pair(tmp_path / "in", stays.write_csv(), events_frame().write_csv())
    _, quality, text = first(folder, tmp_path / "out")
    assert tomllib.loads(text)["data"]["source"] == "tables"
    assert quality.read.stays == 60
