"""A hospital's own tables: what is read, what is refused, and how both are told."""

import gzip
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.sources.common.reasons import NO_STAY
from consilium.client.sources.common.source import MOST_SPELLINGS, Source
from consilium.client.sources.own.patients import held_events, translation
from consilium.client.sources.own.tables import table_files
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import ConsiliumError, DataError
from consilium.shared.study.definition import Study
from tests.client.sources.cohort_formats import STUDY, Written, write_tables, written


@pytest.fixture(scope="module")
def cohort() -> Written:
    return written()


def source_of(
    text: str, folder: Path, study: Study = STUDY, *, counts_units: bool = False
) -> Source:
    settings = read_data_settings(tomllib.loads(text), where="site.toml", folder=folder)
    return open_source(settings, study, counts_units=counts_units)


def grid_of(text: str, folder: Path, study: Study = STUDY) -> TimeGrid:
    return to_grid(source_of(text, folder, study).read_patients(study), study)


def same(one: TimeGrid, other: TimeGrid) -> bool:
    return (
        np.array_equal(one.value_NTV, other.value_NTV, equal_nan=True)
        and (one.mask_NT == other.mask_NT).all()
        and (one.y_N == other.y_N).all()
        and one.patient_ids == other.patient_ids
        and (one.patient_N == other.patient_N).all()
    )


def test_csv_and_parquet_by_stay_or_by_patient_give_the_same_grid(
    cohort: Written, tmp_path: Path
) -> None:
    grids = []
    for kind in ("csv", "parquet"):
        for key in ("stay", "patient"):
            folder = tmp_path / f"{kind}-{key}"
            folder.mkdir()
            grids.append(grid_of(write_tables(cohort, folder, kind, key=key), folder))
    assert all(same(grids[0], grid) for grid in grids[1:])
    assert grids[0].patients == cohort.stays["patient"].n_unique()
    assert len(grids[0].y_N) == len(cohort.stays)


def test_values_arrive_in_the_studys_units(cohort: Written, tmp_path: Path) -> None:
    source = source_of(write_tables(cohort, tmp_path, "csv"), tmp_path)
    grid = to_grid(source.read_patients(STUDY), STUDY)
    temperature = grid.value_NTV[..., list(STUDY.variables).index("Temp")]
    assert 36 < np.nanmedian(temperature) < 38
    assert source.report.repaired == {}
    assert source.report.out_of_range == {}
    lost = len(cohort.events) - source.report.events + 2 * len(cohort.stays)
    assert lost == source.report.outside_window + source.report.duplicates


def test_a_wide_table_of_hours_gives_the_same_as_a_long_one(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text("id,y,age\n1,0,60\n2,1,71\n3,0,55\n")
    (tmp_path / "long.csv").write_text(
        "id,h,what,x\n1,0.5,HR,80\n1,3,T,98.6\n2,1,HR,90\n2,1.5,HR,\n3,2,T,100.4\n9,1,HR,70\n"
    )
    (tmp_path / "wide.csv").write_text(
        "id,h,pulse,T\n1,0.5,80,\n1,3,,98.6\n2,1,90,\n2,1.5,,\n3,2,,100.4\n9,1,70,\n"
    )
    stays = '[stays]\nfile = "stays.csv"\npatient = "id"\nlabel = "y"\n'
    variables = (
        '[variables.Age]\ncolumn = "age"\nunit = "a"\n'
        '[variables.Temp]\n{t}\nunit = "[degF]"\n[variables.HR]\n{hr}\nunit = "/min"\n'
    )
    long = (
        'source = "tables"\n' + stays + '[[events]]\nfile = "long.csv"\nstay = "id"\n'
        'hours = "h"\nvariable = "what"\nvalue = "x"\n'
        + variables.format(t='codes = ["T"]', hr='codes = ["HR"]')
    )
    wide = (
        'source = "tables"\n' + stays + '[[events]]\nfile = "wide.csv"\nlayout = "wide"\n'
        'stay = "id"\nhours = "h"\n' + variables.format(t='column = "T"', hr='column = "pulse"')
    )
    study = only(STUDY, "HR", "Temp", "Age")
    one, other = grid_of(long, tmp_path, study), grid_of(wide, tmp_path, study)
    assert same(one, other)
    assert one.value_NTV[0, 3, 1] == pytest.approx(37)
    assert one.value_NTV[:, 0, 2].tolist() == [60, 71, 55]
    for text in (long, wide):
        source = source_of(text, tmp_path, study)
        list(source.read_patients(study))
        assert source.report.set_aside[NO_STAY] == 1


def test_a_long_and_a_wide_table_in_minutes_with_labels_in_words_go_together(
    tmp_path: Path,
) -> None:
    """As intensive-care collections have them: offsets in minutes, ages such as '> 89'."""
    (tmp_path / "patient.csv").write_text(
        "stay,person,age,end,status\n1,p,67,2880,Alive\n2,q,> 89,2880,Expired\n"
    )
    (tmp_path / "lab.csv").write_text(
        "stay,offset,name,result,unit\n1,90,pulse,80,/min\n2,60,pulse,90,/min\n"
    )
    (tmp_path / "vital.csv").write_text("stay,offset,temperature\n1,150,37.5\n2,30,38\n")
    grid = grid_of(
        'source = "tables"\n'
        '[stays]\nfile = "patient.csv"\npatient = "person"\nstay = "stay"\nend_hours = "end"\n'
        'hours_unit = "min"\nlabel = "status"\nvalues = { Expired = 1, Alive = 0 }\n'
        '[[events]]\nfile = "lab.csv"\nstay = "stay"\nhours = "offset"\nhours_unit = "min"\n'
        'variable = "name"\nvalue = "result"\nunit = "unit"\n'
        '[[events]]\nfile = "vital.csv"\nlayout = "wide"\nstay = "stay"\nhours = "offset"\n'
        'hours_unit = "min"\n'
        '[variables.HR]\ncodes = ["pulse"]\n'
        '[variables.Temp]\ncolumn = "temperature"\nunit = "Cel"\n'
        '[variables.Age]\ncolumn = "age"\nunit = "a"\n',
        tmp_path,
        only(STUDY, "HR", "Temp", "Age"),
    )
    assert grid.y_N.tolist() == [0.0, 1.0]
    assert grid.value_NTV[0, 1, 0] == 80
    assert grid.value_NTV[0, 2, 1] == pytest.approx(37.5)
    assert grid.value_NTV[1, 0, 1] == pytest.approx(38)
    assert grid.value_NTV[1, 1, 0] == 90
    assert grid.value_NTV[:, 0, 2].tolist() == [67, 89]


def only(study: Study, *names: str, **changes: dict[str, object]) -> Study:
    kept = {name: study.variables[name].model_dump() for name in names}
    content = study.model_dump(by_alias=True) | {"variables": kept}
    for table, change in changes.items():
        content[table].update(change)
    content["evaluation"]["subgroups"] = {}
    return Study.model_validate(content)


HR = only(STUDY, "HR")
STAYS = (
    "p,s,start,end,y\n7,71,2020-01-01 00:00,2020-01-02 00:00,0\n"
    "8,81,2020-01-01 00:00,2020-01-05 00:00,1\n"
)
EVENTS = "s,t,v,x,u\n71,2020-01-01 01:00:00,HR,80,/min\n81,2020-01-01 02:30:00,HR,90,bpm\n"
SETTINGS = """
source = "tables"
[stays]
file = "stays.csv"
patient = "p"
stay = "s"
start = "start"
end = "end"
label = "y"
[[events]]
file = "events.csv"
stay = "s"
time = "t"
variable = "v"
value = "x"
unit = "u"
"""


def small(
    folder: Path, *, stays: str | bytes = STAYS, events: str | bytes = EVENTS,
    settings: str = SETTINGS, study: Study = HR,
) -> tuple[TimeGrid, dict[str, int]]:  # fmt: skip  # one line of arguments for each file
    for name, content in (("stays.csv", stays), ("events.csv", events)):
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    source = source_of(settings, folder, study)
    grid = to_grid(source.read_patients(study), study)
    return grid, dict(source.report.set_aside)


def test_a_small_table_is_read_as_it_says(tmp_path: Path) -> None:
    grid, noted = small(tmp_path)
    assert grid.value_NTV[:, :, 0][~np.isnan(grid.value_NTV[:, :, 0])].tolist() == [80, 90]
    assert grid.mask_NT.sum(axis=1).tolist() == [24, 48]
    assert noted == {}


@pytest.mark.parametrize(
    ("row", "reason", "number"),
    [
        ("71,2020-01-01 02:00:00,HR,NaN,/min", "values that are no number", 1),
        ("71,2020-01-01 02:00:00,HR,-inf,/min", "values that are no number", 1),
        ("71,2020-01-01 02:00:00,HR,clotted,/min", "values that are no number", 1),
        ("71,2020-01-01 02:00:00,HR,,/min", "rows without a value", 1),
        ("71,2020-01-01 02:00:00,HR,>200,/min", "values beyond a laboratory's limit", 1),
        ("71,,HR,80,/min", "rows without a time", 1),
        ("99,2020-01-01 02:00:00,HR,80,/min", "events of no stay", 1),
        ("71,2199-01-01 02:00:00,HR,80,/min", "events after the end", 1),
        ("71,1899-01-01 02:00:00,HR,80,/min", "events before the start", 1),
        ("71,2020-01-01 02:00:00,unheard-of,80,/min", "", 0),
    ],
)
def test_rows_that_cannot_be_used_are_counted(
    row: str, reason: str, number: int, tmp_path: Path
) -> None:
    grid, noted = small(tmp_path, events=EVENTS + row + "\n")
    assert sum(noted.values()) == number
    assert all(told.startswith(reason) for told in noted)
    values = grid.value_NTV[~np.isnan(grid.value_NTV)]
    assert values.tolist() == ([80, 200, 90] if ">" in row else [80, 90])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"events": EVENTS.encode("utf-16")}, "is not UTF-8 text; save it as UTF-8"),
        ({"events": b"\r" + EVENTS.encode()}, "its lines end with carriage returns alone"),
        ({"events": EVENTS.replace("bpm", "µ").encode("latin-1")}, "is not UTF-8 text"),
        ({"events": EVENTS[:-30]}, r"events.csv ends in a row of 2 of its 5 fields"),
        ({"events": EVENTS + '81,2020-01-01 03:00:00,HR,"8'}, "ends inside quotes"),
        ({"events": EVENTS + '81,2020-01-01 03:00:00,6" tube,8,\n'}, "a quote that is not doubled"),
        (
            {"events": EVENTS + 3 * "81,2020-01-01 03:00:00,HR,8,9,/min\n"},
            "more fields than its first",
        ),
        ({"events": "s,t,v,x\n"}, "has no column 'u'"),
        ({"events": "s,t,v,x,u,u\n"}, "has more than one column 'u'"),
        ({"events": EVENTS.replace("bpm", "furlong")}, "HR: 1 rows have a unit that is no known"),
        (
            {"events": EVENTS + "81,2020-01-01 03:00:00,HR,8,furlong\n" * 20},
            "unit 'furlong' is not",
        ),
        ({"events": EVENTS.replace("bpm", "mmol/L")}, "'mmol/L' cannot be converted to '/min'"),
        ({"events": EVENTS.replace("bpm", "")}, r"HR: its rows say no unit"),
        ({"events": EVENTS.replace("2020-01-01 02:", "1.1.2020 02:")}, "row 2: column 't' is not"),
        ({"events": EVENTS.replace(":00,HR", ":00Z,HR")}, "do not both have a time zone"),
        ({"events": ",".join(map(str, range(20_000))) + "\n"}, "has 20000 columns, more than"),
        ({"events": ",".join(map(str, range(1_000_000))) + "\n"}, "its first line is longer than"),
        ({"stays": STAYS.replace("81,", "71,")}, "1 stays have the identifier of another"),
        ({"stays": STAYS.replace(",1\n", ",2\n")}, "1 labels are none of the task's"),
        ({"stays": STAYS.replace(",1\n", ",maybe\n")}, "row 2: the label 'y' is no number"),
        ({"stays": "p,s,start,end,y\n"}, "no stay is left to read"),
        ({"stays": STAYS.replace(",1\n", ",<1\n")}, "1 labels 'y' are a limit"),
        ({"settings": SETTINGS.replace('start = "start"\n', "")}, "names no start to count them"),
        ({"settings": SETTINGS.replace("events.csv", "other.csv")}, "does not exist"),
        ({"settings": SETTINGS.replace("events.csv", "events.xls")}, "does not exist"),
        ({"settings": SETTINGS.replace('unit = "u"', 'unti = "u"')}, "did you mean 'unit'"),
        ({"settings": SETTINGS.replace('stay = "s"\ntime', "time")}, "neither or both of stay"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConsiliumError, match=sentence) as caught:
        small(tmp_path, **changes)
    told = str(caught.value)
    assert "\n" not in told
    assert "2020-01-01" not in told


def test_a_row_with_too_many_fields_is_set_aside_and_counted(tmp_path: Path) -> None:
    whole, _ = small(tmp_path)
    odd = EVENTS.replace("81,", "81,2020-01-01 03:00:00,HR,8,9,/min\n81,", 1)
    found, noted = small(tmp_path, events=odd)
    assert same(found, whole)
    assert noted == {"lines that cannot be read": 1}


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (("N", "Y"), ""),
        (("nein", "Ja"), ""),
        (("non", " OUI "), ""),
        (("żywy", "zgon"), 'values = { Zgon = 1, "żywy" = 0 }\n'),
        (("2", "1"), "values = { 2 = 0 }\n"),
    ],
)
def test_labels_are_read_in_words_of_any_language(
    words: tuple[str, str], settings: str, tmp_path: Path
) -> None:
    stays = STAYS.replace(",0\n", f",{words[0]}\n").replace(",1\n", f",{words[1]}\n")
    text = SETTINGS.replace('end = "end"\n', f'end = "end"\n{settings}', 1)
    grid, _ = small(tmp_path, stays=stays, settings=text)
    assert grid.y_N.tolist() == [0, 1]


@pytest.mark.slow
def test_a_compressed_table_is_read_and_a_bomb_is_refused(tmp_path: Path) -> None:
    packed = SETTINGS.replace("events.csv", "events.csv.gz")
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(EVENTS.encode()))
    whole, _ = small(tmp_path, settings=packed)
    plain, _ = small(tmp_path)
    assert same(whole, plain)
    for content, sentence in (
        (gzip.compress(EVENTS.encode())[:-20], "is damaged or cut short"),
        (gzip.compress(b"s,t,v,x,u\n" + bytes(200 << 20), 1), "has a row longer than"),
        (b"no gzip", "is damaged or cut short"),
    ):
        (tmp_path / "events.csv.gz").write_bytes(content)
        with pytest.raises(DataError, match=sentence):
            small(tmp_path, settings=packed)


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    pl.read_csv(EVENTS.encode()).write_parquet(tmp_path / "events.parquet")
    whole = (tmp_path / "events.parquet").read_bytes()
    settings = SETTINGS.replace("events.csv", "events.parquet")
    small(tmp_path, settings=settings)
    for content in (whole[:-9], whole[:50], b"", b"PAR1", EVENTS.encode()):
        (tmp_path / "events.parquet").write_bytes(content)
        with pytest.raises(DataError, match="is damaged, cut short or no Parquet"):
            small(tmp_path, settings=settings)


@pytest.mark.parametrize("column", ["s", "t", "v", "x", "u"])
def test_a_parquet_column_of_lists_or_bytes_is_refused_by_its_name(
    column: str, tmp_path: Path
) -> None:
    frame = pl.read_csv(EVENTS.encode())
    settings = SETTINGS.replace("events.csv", "events.parquet")
    cells = pl.col(column).cast(pl.String)
    for changed in (pl.concat_list(column), pl.struct(column), cells.cast(pl.Binary)):
        frame.with_columns(changed.alias(column)).write_parquet(tmp_path / "events.parquet")
        with pytest.raises(
            DataError, match=f"events.parquet: column '{column}' holds (List|Str|Bin)"
        ):
            small(tmp_path, settings=settings)


def test_parquet_as_pandas_writes_it_gives_the_same_grid(tmp_path: Path) -> None:
    """Categories for repeated texts, and whole numbers as fractions where some are missing."""
    plain, _ = small(tmp_path)
    frame = pl.read_csv(EVENTS.encode()).with_columns(
        pl.col("s").cast(pl.Float64), pl.col("t", "v", "u").cast(pl.Categorical)
    )
    frame.write_parquet(tmp_path / "events.parquet")
    stays = pl.read_csv(STAYS.encode()).with_columns(pl.col("p", "s").cast(pl.Float64))
    stays.write_parquet(tmp_path / "stays.parquet")
    settings = SETTINGS.replace("events.csv", "events.parquet")
    assert same(plain, small(tmp_path, settings=settings)[0])
    assert same(plain, small(tmp_path, settings=settings.replace("s.csv", "s.parquet"))[0])
    stays.with_columns(pl.lit(None).alias("end")).write_parquet(tmp_path / "stays.parquet")
    grid, noted = small(tmp_path, settings=settings.replace("s.csv", "s.parquet"))
    assert grid.mask_NT.all()
    assert noted == {}


def test_beyond_memory_events_wait_in_files_and_nothing_changes(
    cohort: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_tables(cohort, tmp_path, "parquet")
    source = source_of(text, tmp_path)
    whole, report = to_grid(source.read_patients(STUDY), STUDY), source.report
    monkeypatch.setattr(held_events, "EVENTS_IN_MEMORY", 500)
    monkeypatch.setattr("consilium.client.sources.own.tables.table_files.PIECE_ROWS", 700)
    source = source_of(text, tmp_path)
    assert same(whole, to_grid(source.read_patients(STUDY), STUDY))
    assert source.report == report


def test_rows_of_a_piece_are_whole_even_with_line_ends_in_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = '"first\nsecond ""quoted"", third"'
    rows = EVENTS.replace("s,t", "note,s,t", 1).replace("\n71", f"\n{note},71")
    rows = rows.replace("\n81", f"\n{note},81")
    plain, _ = small(tmp_path)
    for size in (40, 64, 77, 1000):
        monkeypatch.setattr("consilium.client.sources.own.tables.table_files.PIECE_BYTES", size)
        assert same(plain, small(tmp_path, events=rows)[0])


def test_only_stays_of_the_wanted_unit_are_read(tmp_path: Path) -> None:
    grid, noted = small(tmp_path, settings=SETTINGS.replace("[stays]", "where = {s = 81}\n[stays]"))
    assert grid.patient_ids == ("8",)
    assert noted == {NO_STAY: 1}
    pl.read_csv(STAYS.encode()).write_parquet(tmp_path / "stays.parquet")
    text = SETTINGS.replace("[stays]", 'where = {s = "x"}\n[stays]').replace(
        "s.csv", "s.parquet", 1
    )
    with pytest.raises(ConsiliumError, match=r"\[data.where\] s is a text in site.toml"):
        small(tmp_path, settings=text)


def test_labels_of_every_step_come_from_their_own_table(tmp_path: Path) -> None:
    rows = "s,h,sepsis\n71,0,0\n71,5.5,1\n81,47,1\n81,48,1\n99,1,1\n"
    (tmp_path / "labels.csv").write_text(rows)
    study = only(STUDY, "HR", task={"per_step": True})
    settings = (
        SETTINGS + '[labels]\nfile = "labels.csv"\nstay = "s"\nhours = "h"\nlabel = "sepsis"\n'
    )
    grid, _ = small(tmp_path, settings=settings, study=study)
    assert grid.y_N.shape == (2, 48)
    assert np.argwhere(~np.isnan(grid.y_N)).tolist() == [[0, 0], [0, 5], [1, 47]]
    assert grid.y_N[0, 5] == grid.y_N[1, 47] == 1
    with pytest.raises(DataError, match=r"name the table that has it in \[data.labels\]"):
        small(tmp_path, study=study)
    for label, sentence in (("7", "1 labels are none of the task's"), ("x", "'sepsis' is no numb")):
        (tmp_path / "labels.csv").write_text(rows + f"71,6,{label}\n")
        with pytest.raises(DataError, match=sentence):
            small(tmp_path, settings=settings, study=study)


def test_a_hospitals_decimal_commas_semicolons_and_dates_are_read(tmp_path: Path) -> None:
    events = "s;t;v;x;u\n71;01.02.2020 03:30;Puls;80,5;/min\n"
    stays = STAYS.replace("71,2020-01-01 00:00,2020-01-02", "71,2020-02-01 00:00,2020-02-03")
    settings = SETTINGS.replace(
        "[[events]]",
        '[variables.HR]\ncodes = ["Puls"]\n[[events]]\nseparator = ";"\ndecimal_comma = true\n'
        'time_format = "%d.%m.%Y %H:%M"',
    )
    grid, noted = small(tmp_path, events=events, stays=stays, settings=settings)
    assert grid.value_NTV[0, 3, 0] == 80.5
    assert noted == {}


def test_a_decimal_comma_that_is_declared_loses_no_cell_of_a_wide_table(tmp_path: Path) -> None:
    events = "s;t;HR\n71;2020-01-01 03:30;80,5\n71;2020-01-01 05:30;clotted\n"
    settings = SETTINGS.replace('variable = "v"\nvalue = "x"\nunit = "u"\n', "").replace(
        "[[events]]",
        '[variables.HR]\nunit = "/min"\n[[events]]\nlayout = "wide"\nseparator = ";"\n'
        "decimal_comma = true\n",
    )
    grid, noted = small(tmp_path, events=events, settings=settings)
    assert grid.value_NTV[0, 3, 0] == 80.5
    assert noted == {"values that are no number": 1}


@pytest.mark.parametrize("most", [1, 1 << 20], ids=["sorted", "counted"])
def test_every_spelling_of_a_unit_is_understood_or_counted_by_itself(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation, "MOST_COUNTED", most)
    monkeypatch.setattr(translation, "MOST_UNITS_KEPT", 2)
    monkeypatch.setattr(table_files, "PIECE_BYTES", 200)  # several pieces
    units = ["/min", "bpm", "furlong", "", "barn", "/min", "furlong", "1/min", "bpm"]
    events = "s,t,v,x,u\n" + "".join(
        f"71,2020-01-01 {hour:02}:00:00,HR,{80 + hour},{unit}\n" for hour, unit in enumerate(units)
    )
    for name, content in (("stays.csv", STAYS), ("events.csv", events)):
        (tmp_path / name).write_text(content)
    source = source_of(SETTINGS, tmp_path, HR, counts_units=True)
    grid = to_grid(source.read_patients(HR), HR)
    kept = grid.value_NTV[0, :, 0]
    assert kept[~np.isnan(kept)].tolist() == [80, 81, 85, 87, 88]
    assert sorted(one.rows for one in source.report.unknown_units) == [1, 1, 2]


def test_a_column_of_something_else_than_units_takes_no_memory_for_each_row(
    tmp_path: Path,
) -> None:
    rows = 3000
    events = "s,t,v,x,u\n" + "".join(
        f"71,2020-01-01 {row % 24:02}:00:00,HR,80,remark {row}\n" for row in range(rows)
    )
    for name, content in (("stays.csv", STAYS), ("events.csv", events)):
        (tmp_path / name).write_text(content)
    source = source_of(SETTINGS, tmp_path, HR, counts_units=True)
    list(source.read_patients(HR))
    unknown = source.report.unknown_units
    assert len(unknown) == MOST_SPELLINGS + 1
    assert sum(one.rows for one in unknown) == rows
    assert unknown[-1].unit == ""
    assert "correct the column that site.toml names" in unknown[-1].told


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_to_a_table_ends_in_anything_but_a_refusal_or_believable_values(
    data: st.DataObject,
) -> None:
    content = bytearray(EVENTS.encode() * 3)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        try:
            grid, _ = small(Path(folder), events=bytes(content))
        except ConsiliumError:
            return
        values = grid.value_NTV[~np.isnan(grid.value_NTV)]
        assert ((values >= 10) & (values <= 300)).all()
