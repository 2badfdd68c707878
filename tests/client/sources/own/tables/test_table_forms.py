"""The forms of a table's file: whatever packed or wrote it, the same values or one sentence."""

import gzip
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from consilium.client.sources.own.settings.tables import FileSettings
from consilium.client.sources.own.tables import table_forms
from consilium.client.sources.own.tables.table_files import read_pieces
from consilium.shared.errors import DataError, SettingsError

FRAME = pl.DataFrame(
    {
        "id": ["7", "8", "9"],
        "name": ["Müller", "Søren", "Ömer"],
        "value": [1.5, None, 17.0],
        "time": pl.Series(["2020-01-01 01:02:03", "2020-02-29 23:59:59", None]).str.to_datetime(),
    }
)
CSV = FRAME.write_csv(datetime_format="%Y-%m-%d %H:%M:%S")


def read(path: Path, *columns: str, **settings: object) -> pl.DataFrame:
    chosen = FileSettings(file=path, **settings)
    pieces = [piece.frame for piece in read_pieces(chosen, columns or FRAME.columns)]
    return pl.concat(pieces, how="vertical_relaxed").drop("\0row")


def plain(frame: pl.DataFrame) -> list[tuple]:
    """Cells as texts, a whole number without its .0, a time without fractions."""
    rows = frame.with_columns(pl.all().cast(pl.String)).rows()
    return [tuple(None if c is None else re.sub(r"\.0+$", "", c) for c in row) for row in rows]


def write_xlsx(path: Path, frame: pl.DataFrame = FRAME, sheet: str = "Tabelle1") -> None:
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("fastexcel")
    book = openpyxl.Workbook()
    book.active.title = sheet
    book.active.append(frame.columns)
    for row in frame.iter_rows():
        book.active.append(row)
    book.save(path)


def packed_zst(content: bytes) -> bytes:
    pytest.importorskip("backports.zstd")
    from backports import zstd

    half = len(content) // 2
    return zstd.compress(content[:half]) + zstd.compress(content[half:])  # two frames


FORMS: dict[str, Callable[[Path], object]] = {
    "a.csv": lambda path: path.write_text(CSV, "utf-8"),
    "a.CSV": lambda path: path.write_text(CSV, "utf-8"),
    "bom.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + CSV.encode()),
    "a.Csv.GZ": lambda path: path.write_bytes(gzip.compress(CSV.encode())),
    "a.csv.zst": lambda path: path.write_bytes(packed_zst(CSV.encode())),
    "a.parquet": FRAME.write_parquet,
    "a.Parquet": FRAME.write_parquet,
    "a.pq": FRAME.write_parquet,
    "a.arrow": FRAME.write_ipc,
    "stream.arrow": FRAME.write_ipc_stream,
    "a.feather": FRAME.write_ipc,
    "a.xlsx": write_xlsx,
    "a.XLSX": write_xlsx,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_cells(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name)
    got = read(tmp_path / name).with_columns(pl.col(pl.String).replace("", None))
    assert plain(got) == plain(FRAME)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "mac-roman"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst"])
def test_a_text_in_another_encoding_is_read_if_it_is_named(
    encoding: str, name: str, tmp_path: Path
) -> None:
    content = CSV.encode(encoding)
    pack = {".gz": gzip.compress, ".zst": packed_zst}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(content))
    got = read(tmp_path / name, encoding=encoding)
    assert plain(got.with_columns(pl.col(pl.String).replace("", None))) == plain(FRAME)


@pytest.mark.parametrize(
    ("encoding", "told"),
    [("latin-1", "cp1252"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16")],
)
def test_a_text_that_is_no_utf8_is_refused_with_the_key_to_write(
    encoding: str, told: str, tmp_path: Path
) -> None:
    for content in (CSV.replace("name", "näme"), CSV):  # in the header, and below it
        (tmp_path / "a.csv").write_bytes(content.encode(encoding))
        with pytest.raises(
            DataError, match=rf'a\.csv is not UTF-8 text; .* encoding = "{told}"$'
        ) as caught:
            read(tmp_path / "a.csv", "id", "value", "name")
        assert "ller" not in str(caught.value)


def test_a_wrong_or_unknown_encoding_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV, "utf-8")
    with pytest.raises(DataError, match=r"is not text in ascii; correct \[data\] encoding"):
        read(tmp_path / "a.csv", encoding="ascii")
    for name in ("klingon", "zlib", ""):
        with pytest.raises(ValueError, match="is no encoding of texts"):
            FileSettings(file=tmp_path, encoding=name)


def test_a_folder_is_its_files_and_hive_names_are_columns(tmp_path: Path) -> None:
    for year, ward, rows in (("2023", "ICU%20A", FRAME[:1]), ("2024", "IMC", FRAME[1:])):
        folder = tmp_path / "lab" / f"year={year}" / f"ward={ward}"
        folder.mkdir(parents=True)
        rows.write_parquet(folder / "part-0.parquet")
        (folder / "_SUCCESS").write_text("")
    got = read(tmp_path / "lab", "id", "year", "ward")
    assert got.rows() == [("7", "2023", "ICU A"), ("8", "2024", "IMC"), ("9", "2024", "IMC")]
    pattern = read(tmp_path / "lab" / "**" / "*.parquet", "id", "year")
    assert pattern["year"].to_list() == ["2023", "2024", "2024"]
    (tmp_path / "lab" / "notes.doc").write_text("x")
    with pytest.raises(DataError, match=r"notes\.doc is neither CSV"):
        read(tmp_path / "lab", "id")
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nowhere", tmp_path / "*.csv"):
        with pytest.raises(DataError, match=r"holds no file|does not exist"):
            read(place, "id")


def test_a_sheet_is_chosen_by_name_and_its_names_must_be_clear(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    write_xlsx(path, sheet="Labor")
    assert len(read(path, sheet="Labor")) == 3
    with pytest.raises(DataError, match=r"has no sheet 'labor', and 1 others; correct"):
        read(path, sheet="labor")
    with pytest.raises(DataError, match="has no column 'ID'"):
        read(path, "ID")
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["id", "id"])
    book.active.append([1, 2])
    book.save(path)
    with pytest.raises(DataError, match="has more than one column 'id'"):
        read(path, "id")


def test_excel_cells_of_several_kinds_come_as_they_are_shown(tmp_path: Path) -> None:
    mixed = pl.DataFrame({"a": ["<5", "17", "0.1"]})
    write_xlsx(tmp_path / "a.xlsx", mixed)
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.load_workbook(tmp_path / "a.xlsx")
    book.active["A3"], book.active["A4"] = 17, 0.1
    book.save(tmp_path / "a.xlsx")
    assert read(tmp_path / "a.xlsx", "a")["a"].to_list() == ["<5", "17", "0.1"]


def test_what_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastexcel")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", bytes(3 << 20))
    monkeypatch.setattr(table_forms, "LARGEST_XLSX_BYTES", 2 << 20)
    with pytest.raises(DataError, match="unpacks to more than 2097152 bytes; write it as CSV"):
        read(tmp_path / "a.xlsx")
    (tmp_path / "a.csv.zst").write_bytes(packed_zst(bytes(80 << 20)))
    with pytest.raises(DataError, match=r"a\.csv\.zst: its first line is longer than"):
        read(tmp_path / "a.csv.zst")


def test_feather_of_the_first_version_and_large_streams_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(64))
    with pytest.raises(DataError, match="is Feather version 1; write it as version 2"):
        read(tmp_path / "a.feather")
    FRAME.write_ipc_stream(tmp_path / "a.arrow")
    monkeypatch.setattr(table_forms, "LARGEST_STREAM_BYTES", 10)
    with pytest.raises(DataError, match="is an Arrow stream of more than 10 bytes"):
        read(tmp_path / "a.arrow")


def test_a_file_cut_short_is_refused_in_every_form(tmp_path: Path) -> None:
    for name, write in FORMS.items():
        if name.lower().endswith((".csv",)):
            continue  # a text may end at any line
        write(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(DataError, match=f"{re.escape(name)} is"):
            read(tmp_path / name)


def test_a_missing_library_ends_in_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, extra in (("a.xlsx", "xlsx"), ("a.csv.zst", "zst")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(SettingsError, match=rf"pip install 'consilium-fl\[{extra}\]'"):
            read(tmp_path / name)
