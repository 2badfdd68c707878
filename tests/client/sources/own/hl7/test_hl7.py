"""HL7 version 2 messages: read like the library reads them, and what they say of stays."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.records.features import TimeGrid, to_grid
from consilium.client.sources.common.reasons import (
    BEYOND_LIMIT,
    INCOMPLETE,
    NO_VALUE,
    NOT_A_NUMBER,
    RETRACTED,
    UNREADABLE,
)
from consilium.client.sources.common.source import ReadReport
from consilium.client.sources.own.hl7 import hl7_messages
from consilium.client.sources.own.hl7.hl7_frames import iso
from consilium.client.sources.own.hl7.hl7_messages import messages
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import with_changes
from tests.client.sources.own.tables.test_tables import HR

STUDY = with_changes(HR, data={"source": "hospital"})
SETTINGS = 'source = "hl7"\npath = "."\n'


def header(kind: str, sent: str = "20200101000000", charset: str = "") -> str:
    return f"MSH|^~\\&|HIS|H|X|Y|{sent}||{kind}|1|P|2.5||||||{charset}".rstrip("|")


def adt(
    event: str,
    person: str = "7",
    visit: str = "71",
    *,
    sent: str = "20200101000000",
    died: str = "",
    more: str = "",
    **pv1: str,
) -> str:
    """A message of ADT; ``pv1`` gives fields by number, such as ``f44``."""
    fields = {2: "I", 19: visit} | {int(key[1:]): text for key, text in pv1.items()}
    visits = "|".join(fields.get(n, "") for n in range(1, 46)).rstrip("|")
    return "\r".join(
        [header(f"ADT^{event}", sent), f"EVN|{event}|{sent}",
         f"PID|1||{person}^^^HOSP^PI||Doe^J||19500101|M{'|' * 21}{died}", f"PV1|{visits}",
         *filter(None, [more])]
    )  # fmt: skip  # a segment beside the other


def oru(*obx: str, person: str = "7", visit: str = "71", sent: str = "20200101000000") -> str:
    return "\r".join(
        [header("ORU^R01", sent), f"PID|1||{person}^^^HOSP^PI", f"PV1|1|I|{'|' * 15}|{visit}",
         "OBR|1||F1|X|||20200101013000", *obx]
    )  # fmt: skip


def obx(value: str, *, kind: str = "NM", status: str = "F", when: str = "20200101010000",
        code: str = "8867-4^Heart rate^LN", unit: str = "/min^^UCUM") -> str:  # fmt: skip
    return f"OBX|1|{kind}|{code}||{value}|{unit}|||||{status}|||{when}"


STAYS = (
    adt("A01", f44="202001010000"),
    adt("A03", f45="202001020200", sent="20200102020000"),
    adt("A01", "8", "81", f44="202001010000"),
    adt("A03", "8", "81", f45="202001050000", sent="20200105000000", died="20200104120000|Y"),
)


def read(folder: Path, *content: str, text: str = "") -> tuple[TimeGrid, ReadReport]:
    (folder / "m.hl7").write_text("\r\r".join((*STAYS, *content)), "utf-8", newline="")
    return again(folder, text)


def again(folder: Path, text: str = "") -> tuple[TimeGrid, ReadReport]:
    chosen = tomllib.loads(SETTINGS + text)
    source = open_source(read_data_settings(chosen, where="site.toml", folder=folder), STUDY)
    return to_grid(source.read_patients(STUDY), STUDY), source.report


def values(grid: TimeGrid) -> list[list[float]]:
    return [value_T[~np.isnan(value_T)].tolist() for value_T in grid.value_NTV[:, :, 0]]


def test_stays_deaths_and_results_are_read(tmp_path: Path) -> None:
    grid, report = read(tmp_path, oru(obx("80")), oru(obx("90.5", when=""), person="8", visit="81"))
    assert grid.patient_ids == ("7", "8")
    assert grid.y_N.tolist() == [0, 1]
    assert values(grid) == [[80], [90.5]]
    assert report.set_aside == {}


@pytest.mark.parametrize(
    ("result", "found", "reason"),
    [
        (obx("70", kind="ST"), [80, 70], None),
        (obx("&lt;5", kind="ST"), [80], NOT_A_NUMBER),
        (obx("<70", kind="ST"), [80, 70], BEYOND_LIMIT),
        (obx("<^70", kind="SN"), [80, 70], BEYOND_LIMIT),
        (obx("^70", kind="SN"), [80, 70], None),
        (obx("^70^-^80", kind="SN"), [80], NOT_A_NUMBER),
        (obx("^1^:^70", kind="SN"), [80], NOT_A_NUMBER),
        (obx("fast", kind="ST"), [80], NOT_A_NUMBER),
        (obx("LA1^Rapid^L", kind="CWE"), [80], NOT_A_NUMBER),
        (obx("70,5"), [80], NOT_A_NUMBER),
        (obx("70~71"), [80], NO_VALUE),
        (obx('""'), [80], NO_VALUE),
        (obx(""), [80], NO_VALUE),
        (obx("70", status="D"), [80], RETRACTED),
        (obx("70", status="W"), [80], RETRACTED),
        (obx("70", status="C"), [80, 70], None),
        (obx("70", code="HR^Heart^L^8867-4^x^LN"), [80, 70], None),
        (obx("70", code="8867-4^x^L"), [80], None),
        (obx("1.5", unit="/s"), [80, 90], None),
    ],
)
def test_every_type_of_result_is_a_number_or_is_counted(
    result: str, found: list[float], reason: str | None, tmp_path: Path
) -> None:
    later = result.replace("20200101010000", "20200101030000")
    grid, report = read(tmp_path, oru(obx("80"), later))
    assert values(grid)[0] == found
    assert report.set_aside == ({reason: 1} if reason else {})


def test_a_result_withdrawn_or_corrected_later_counts_as_it_was_last(tmp_path: Path) -> None:
    grid, report = read(
        tmp_path,
        oru(obx("80"), obx("99", when="20200101030000")),
        oru(obx("81", status="C"), obx("99", when="20200101030000", status="W")),
    )
    assert values(grid)[0] == [81]
    assert report.set_aside == {RETRACTED: 2}


def test_cancelled_admissions_and_discharges_count_as_they_were_last(tmp_path: Path) -> None:
    late = oru(obx("95", when="20200102060000"))
    assert values(read(tmp_path, late)[0])[0] == []
    kept = adt("A13", sent="20200102030000")
    assert values(read(tmp_path, late, kept)[0])[0] == [95]
    longer = adt("A08", sent="20200102030000", f45="202001021200")
    assert values(read(tmp_path, late, longer)[0])[0] == [95]
    gone = adt("A11", "8", "81", sent="20200106000000")
    assert read(tmp_path, gone)[0].patient_ids == ("7",)
    back = adt("A01", "8", "81", sent="20200107000000", f44="202001010000")
    assert read(tmp_path, gone, back)[0].patient_ids == ("7", "8")


def test_messages_out_of_order_and_merged_patients_are_put_right(tmp_path: Path) -> None:
    merge = adt("A40", "7", "", sent="20200110000000", more="MRG|8^^^HOSP^PI")
    grid, _ = read(tmp_path, merge, oru(obx("85"), person="8", visit="81"))
    assert grid.patient_ids == ("7",)
    assert len(grid.y_N) == 2
    (tmp_path / "m.hl7").unlink()
    (tmp_path / "a.hl7").write_text("\r".join(reversed(STAYS)), newline="")
    assert again(tmp_path)[0].y_N.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("died", "label"),
    [
        ("|Y", None), ("|N", 0), ("20200101|Y", 1), ("20200101", 1), ("202003|Y", 0),
        ("20200101120000|N", 0), ("", 0), ("20210101|Y", 0),
    ],
)  # fmt: skip  # the outcomes beside each other
def test_a_death_is_known_to_the_second_to_the_day_or_not_at_all(
    died: str, label: int | None, tmp_path: Path
) -> None:
    grid, _ = read(tmp_path, adt("A08", sent="20200103000000", died=died))
    labels = dict(zip(grid.patient_ids, grid.y_N.tolist(), strict=True))
    assert labels.get("7") == label
    assert labels["8"] == 1


def test_a_discharge_means_death_where_the_hospital_says_so(tmp_path: Path) -> None:
    dead = adt("A08", sent="20200103000000", f36="20")
    assert read(tmp_path, dead)[0].y_N.tolist() == [0, 1]
    assert read(tmp_path, dead, text='died_dispositions = ["20"]')[0].y_N.tolist() == [1, 1]


def test_diagnoses_are_outcomes_at_their_time_or_in_their_visit(tmp_path: Path) -> None:
    text = '[outcome]\nkind = "condition"\ncodes = ["I10|A41.9"]'
    for when, label in (("20200101", 1), ("", 1), ("20190101", 0)):
        sick = adt("A08", sent="20200103000000", more=f"DG1|1||A41.9^Sepsis^I10||{when}")
        assert read(tmp_path, sick, text=text)[0].y_N.tolist() == [label, 0]


def test_identifiers_of_several_assigners_are_refused_until_one_is_named(tmp_path: Path) -> None:
    foreign = oru(obx("85")).replace("7^^^HOSP^PI", "7^^^LAB^PI~7^^^HOSP^MR")
    with pytest.raises(DataError, match=r"are of 2 assigners, .* name the one to use as assigner"):
        read(tmp_path, foreign)
    grid, _ = read(tmp_path, foreign, text='assigner = "HOSP"')
    assert values(grid)[0] == [85]


def test_messages_without_a_patient_or_a_visit_are_counted(tmp_path: Path) -> None:
    lost = [adt("A01", visit=""), adt("A01").replace("7^^^HOSP^PI", "")]
    assert read(tmp_path, *lost)[1].set_aside == {INCOMPLETE: 2}
    with pytest.raises(DataError, match=r"none of its 2 visits is of the classes E"):
        read(tmp_path, text='patient_classes = ["E"]')


FRAMES = {
    "returns": lambda parts: "\r".join(parts),
    "lines": lambda parts: "\n".join(parts).replace("\r", "\n"),
    "windows": lambda parts: "\r\n".join(parts).replace("\r", "\r\n").replace("\n\n", "\n"),
    "mllp": lambda parts: "".join(f"\x0b{part}\r\x1c\r" for part in parts),
    "batch": lambda parts: "\r".join(
        ["FHS|^~\\&|HIS", "BHS|^~\\&|HIS", *parts, f"BTS|{len(parts)}", "FTS|1"]
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_messages_are_found_in_every_frame(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hl7_messages, "PIECE_BYTES", 7)
    content = FRAMES[name]([*STAYS, oru(obx("80"))])
    (tmp_path / "m.hl7").write_text(content, "utf-8", newline="")
    grid, report = again(tmp_path)
    assert values(grid) == [[80], []]
    assert report.set_aside == {}


@pytest.mark.parametrize(
    ("encoding", "charset", "text"),
    [
        ("latin-1", "8859/1", ""), ("utf-8", "UNICODE UTF-8", ""), ("utf-8", "", ""),
        ("cp1252", "", 'encoding = "cp1252"'), ("latin-1", "UNICODE", 'encoding = "latin-1"'),
    ],
)  # fmt: skip
def test_the_encoding_is_what_the_message_or_the_hospital_says(
    encoding: str, charset: str, text: str, tmp_path: Path
) -> None:
    result = oru(obx("schnell", kind="ST", code="Größe^x^L")).replace(
        header("ORU^R01"), header("ORU^R01", charset=charset)
    )
    (tmp_path / "m.hl7").write_bytes("\r".join([*STAYS, result]).encode(encoding))
    more = '\n[variables.HR]\ncodes = ["Größe"]\nvalues = { schnell = 120 }'
    assert values(again(tmp_path, text + more)[0])[0] == [120]


def test_one_unreadable_message_is_counted_and_many_are_refused(tmp_path: Path) -> None:
    bad = oru(obx("85", code="Größe")).encode("latin-1")
    (tmp_path / "m.hl7").write_bytes("\r".join(STAYS).encode() + b"\r" + bad)
    assert again(tmp_path)[1].set_aside == {UNREADABLE: 1}
    (tmp_path / "n.hl7").write_bytes(bad)
    with pytest.raises(DataError, match=r"n\.hl7: 1 of its 1 messages are not in the encoding"):
        again(tmp_path)
    (tmp_path / "n.hl7").write_text("person,visit\n")
    with pytest.raises(DataError, match=r"n\.hl7 holds no HL7 message, which begins with MSH"):
        again(tmp_path)
    (tmp_path / "n.hl7").write_bytes(b"MSH|^~\\&|" + bytes(9 << 20))
    with pytest.raises(DataError, match=r"n\.hl7: a message is longer than 8388608 bytes"):
        again(tmp_path)


def test_a_folder_without_messages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file of HL7 messages"):
        again(tmp_path)


@pytest.mark.parametrize(
    ("written", "zone", "expected"),
    [
        ("20200229235959.1234+0130", "", "2020-02-29T23:59:59.1234+01:30"),
        ("202002292359", "-0500", "2020-02-29T23:59:00-05:00"),
        ("2020022923", "", "2020-02-29T23:00:00"),
        ("20200229", "-0500", "2020-02-29"),
        ("202002", "", "2020-02"),
        ("2020", "", "2020"),
        ("29.02.2020", "", None),
        ("", "", None),
    ],
)
def test_times_keep_their_precision_and_their_zone(
    written: str, zone: str, expected: str | None
) -> None:
    assert iso(written, zone) == expected


cells = st.text("abcXYZ019 .\\^&~<", max_size=8)


@given(st.lists(st.lists(cells, min_size=1, max_size=4), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_segments_are_split_as_the_library_splits_them(rows: list[list[str]]) -> None:
    library = pytest.importorskip("hl7")
    import tempfile

    text = header("ORU^R01^ORU_R01") + "".join("\rOBX|" + "|".join(row) for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.hl7"
        path.write_text(text, newline="")
        (ours,) = messages(path, None)
    theirs = library.parse(text + "\r")
    assert ours is not None
    assert (ours.kind, ours.event) == ("ORU", "R01")
    assert len(ours.segments) == len(theirs)
    for one, other in zip(ours.segments[1:], theirs[1:], strict=True):
        for number in range(1, len(one)):
            assert ours.field(one, number) == str(other[number]).strip()
            parts = str(other[number]).strip().split("~")[0].split("^")
            assert [part.strip() for part in one[number].strip().split("~")[0].split("^")] == [
                part.strip() for part in parts
            ]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a\\T\\b", "a&b"), ("\\S\\\\F\\", "^|"), ("\\X41\\", "A"), ("\\E\\T\\E\\", "\\T\\"),
        ("5\\.br\\6", "5 6"), ("C:\\new", "C:\\new"), ("\\H\\bold\\N\\", "bold"), ("a\\", "a\\"),
    ],
)  # fmt: skip
def test_escapes_are_resolved_and_what_is_none_stays(
    written: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "m.hl7").write_text(oru(obx(written, kind="ST")), newline="")
    (message,) = messages(tmp_path / "m.hl7", None)
    assert message is not None
    assert message.text(message.first("OBX", 5)) == expected
