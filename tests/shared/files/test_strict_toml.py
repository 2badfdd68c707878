"""Mistakes that people make when they first write TOML: the sentence says how it is written."""

import tomllib

import pytest

from consilium.shared.files.strict_toml import fault_in_words


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("values = { männlich = 1 }", 'stands in quotes: "männlich"'),
        ('units = { 1/Min = "/min" }', 'stands in quotes: "männlich"'),
        ("path = C:\\data", r"'C:\data'"),
        ('path = "C:\\data"', r"'C:\data'"),
        ('path = "C:\\Users"', r"'C:\data'"),
        ("decimal_comma = yes", "a text stands in quotes"),
        ('path = "x', "Unterminated string"),
    ],
)
def test_what_is_wrong_with_toml_is_told_with_the_remedy(text: str, remedy: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as raised:
        tomllib.loads(text)
    sentence = fault_in_words(raised.value)
    assert remedy in sentence
    assert sentence.endswith("; correct that line")
