"""Those who opted out: named in a plain file, compared in one normal form, read anew each time."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.sources.common.identifiers import normal_identifier
from consilium.client.sources.common.opt_outs import OptOuts
from consilium.shared.errors import DataError


def named(folder: Path, content: bytes) -> OptOuts:
    (folder / "opted-out.txt").write_bytes(content)
    return OptOuts.read(folder / "opted-out.txt")


def test_a_person_is_named_however_the_identifier_is_written(tmp_path: Path) -> None:
    opted = named(tmp_path, b'\xef\xbb\xbf# asked in May\r\n 1000 \n5001.0\n\n"Anna"\n')
    assert len(opted) == 3
    for person in ("1000", "1000.0", " 1000", "1000\u00a0", "5001", "5001.00", "Anna"):
        assert opted.name(person), person
    for person in ("100", "10000", "01000", "anna", "", "asked in May", "1000.5"):
        assert not opted.name(person), person
    assert "Anna" not in repr(opted)


@given(
    st.integers(0, 10**12), st.sampled_from(["", ".0", ".000"]), st.sampled_from(["", " ", "\t"])
)
def test_the_normal_form_of_a_number_is_its_digits(number: int, end: str, blank: str) -> None:
    assert normal_identifier(f"{blank}{number}{end}{blank}") == str(number)


@given(st.text(max_size=20))
def test_a_normal_form_loses_blanks_and_the_ending_of_a_number_alone(text: str) -> None:
    once = normal_identifier(text)
    assert once == once.strip()
    assert once in (text.strip(), text.strip().split(".")[0])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read as UTF-8 text; nobody's records are read until it can"),
        ("1000\n".encode("utf-16"), "cannot be read as UTF-8 text"),
        (b"person;day\n1000;2024\n", "line 1: is not one person's identifier alone"),
        (b"1000\n1001,x\n", "line 2: is not one person's identifier alone"),
        (b"1" * 300, "line 1: is not one"),
        (b"1000\n\0\0\n", "line 2: is not one"),
    ],
)
def test_a_file_that_cannot_be_read_stops_with_a_sentence(
    content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "opted-out.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        OptOuts.read(file)
    assert "1001" not in str(caught.value).replace(str(tmp_path), "")
