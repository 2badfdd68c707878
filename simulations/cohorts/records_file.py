"""Settings of the records of a simulation: a hospital's ``[data]``, and how they are dealt out.

A file of this kind is a TOML file with the ``[data]`` table that a hospital writes into its
``site.toml``. Three more tables, all optional, say what only a simulation asks::

    [sites]                     # how persons are dealt to the sites; unless given, by a hash
    column = "ward"             # a site for each value of a column of the stays
    names = { north = "N" }     # the sites' names for values; else the values themselves

    [test]                      # who is kept for the test; unless given, a fifth of the persons
    fraction = 0.2              # or column and values, or from, or data, or settings

    [records]                   # what the file's own persons are, and where its files usually lie
    persons = "own"

docs/own-records.md explains every key.
"""

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from consilium.shared.errors import SettingsError
from consilium.shared.files.strict_toml import StrictTable, parse_toml, read_text, validate
from consilium.shared.study.dictionary import Finite
from consilium.shared.study.records import Name
from consilium.simulations.cohorts.partitions import TEST_SHARE

WHAT = "records"
Text = Annotated[str, Field(min_length=1, max_length=256)]


def _as_date(given: object) -> object:
    """Return ISO text as a date, as a command's option has it; TOML has dates of its own."""
    if isinstance(given, str):
        try:
            return dt.date.fromisoformat(given)
        except ValueError:
            raise ValueError(f"{given!r} is not a date such as 2024-03-31; correct it") from None
    return given


class Part(StrictTable):
    """Records that differ from the others in some keys of ``[data]``, and belong to some sites.

    Attributes:
        sites: the sites among which the part's persons are dealt, by a hash if there are several.
        data: keys that replace those of ``[data]``.
        name: the owner's, who trains alone with all of the part; the site's unless given.
    """

    sites: tuple[Name, ...] = Field(min_length=1, strict=False)
    data: dict[str, Any] = Field(default_factory=dict)
    name: Text | None = None

    @model_validator(mode="after")
    def _several_sites_have_an_owner(self) -> Self:
        if len(self.sites) > 1 and self.name is None:
            raise ValueError(
                f"deals one part to {len(self.sites)} sites and names no owner; add name"
            )
        return self


class Sites(StrictTable):
    """How persons are dealt to sites.

    Attributes:
        column: a column of the stays; a person belongs to the site of their first stay. Each
            value's site has its name from ``names``, or from ``prefix`` and the value.
        names: the value by the site's name; other values have no site.
        prefix: precedes the value in a site's name.
        parts: records by site, instead of a column.
        key: of the hash that deals persons out; another key deals them otherwise.
    """

    column: Text | None = None
    names: dict[Name, str | int] = Field(default_factory=dict)
    prefix: str = Field(default="", max_length=64)
    parts: tuple[Part, ...] = Field(default=(), strict=False)
    key: str = Field(default="", max_length=256)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.column is not None and self.parts:
            raise ValueError("has column and parts; keep one of them")
        if self.column is None and (self.names or self.prefix):
            raise ValueError("has names or prefix, which say what a column's values mean; add it")
        if self.names and self.prefix:
            raise ValueError("has names and prefix; keep one of them")
        named = [site for part in self.parts for site in part.sites]
        if len(set(named)) < len(named):
            raise ValueError("names a site in two parts; every site belongs to one")
        return self


class Test(StrictTable):
    """Who is kept for the test, so that no site trains on them.

    Attributes:
        fraction: of the persons, chosen by a hash.
        column: a column of the stays, and its ``values`` that mean the test; a person's first stay
            decides.
        from: (``from_``) the date from which on a person's first stay puts the person into the
            test; stays of the others from that date on are left out.
        data: keys that replace those of ``[data]``: the records of the test.
        settings: a further file of settings: the records of the test.
        by_site: whether test persons are told apart by site; unless given, they are if it is known
            whose they are.
        described: who they are, for tables and the report.
        constant: naive forecasts by name: the value that each predicts for everybody.
    """

    __test__ = False  # pytest takes classes of this name for its own

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    column: Text | None = None
    values: tuple[str | int, ...] = Field(default=(), strict=False)
    from_: Annotated[dt.date, BeforeValidator(_as_date)] | None = Field(default=None, alias="from")
    data: dict[str, Any] | None = None
    settings: Text | None = None
    by_site: bool | None = None
    described: str | None = Field(default=None, max_length=200)
    constant: dict[str, Finite] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = {"fraction": self.fraction, "column": self.column, "from": self.from_,
                "data": self.data, "settings": self.settings}  # fmt: skip  # reads as one
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"has {' and '.join(given)}; keep one of them")
        if (self.column is None) != (not self.values):
            raise ValueError("needs both column and values, which of them mean the test; add one")
        return self

    @property
    def share(self) -> float | None:
        """The fraction of persons, if that is how they are chosen."""
        others = (self.column, self.from_, self.data, self.settings)
        if any(value is not None for value in others):
            return None
        return TEST_SHARE if self.fraction is None else self.fraction


class About(StrictTable):
    """What the records are.

    Attributes:
        persons: whether an identifier that occurs in two parts or files is the same person
            (``same``, who counts once, where they come first) or two (``own``).
        folder: the usual name of their folder, which is looked for below ``--data``.
        files: which files these are, for the sentence if they are not there; relative paths then
            start at the folder that ``--data`` names, not at that of this file.
    """

    persons: Literal["same", "own"] | None = None
    folder: Text | None = None
    files: Text | None = None


class RecordsFile(StrictTable):
    """A whole file; ``data`` is left as written, its source's own model checks it.

    ``site`` and ``coordinator`` may be there since a hospital's ``site.toml`` has them.
    """

    data: dict[str, Any]
    sites: Sites = Sites()
    test: Test = Test()
    records: About = About()
    site: str | None = None
    coordinator: dict[str, Any] | None = None


def read_records_file(path: Path) -> RecordsFile:
    """Read a file of settings.

    Raises:
        SettingsError: it is missing, is not TOML, or a key is wrong; one sentence.
    """
    text = read_text(path, what=WHAT, raises=SettingsError)
    content = parse_toml(text, what=WHAT, where=str(path), raises=SettingsError)
    return validate(content, RecordsFile, what=WHAT, where=str(path), raises=SettingsError)


def test_given(text: str) -> Test:
    """Return the test that a command's option means.

    Args:
        text: a fraction such as ``0.2``, ``COLUMN=VALUE``, a date such as ``2024-01-01``, or a
            file of settings, ``FILE.toml``.

    Raises:
        SettingsError: it is none of these.
    """
    content: dict[str, object] = {}
    column, equals, value = text.partition("=")
    try:
        content = {"fraction": float(text)}
    except ValueError:
        if text.endswith(".toml"):
            content = {"settings": text}
        elif equals:
            content = {"column": column, "values": value.split(",")}
        else:
            content = {"from": text}
    try:
        return validate(content, Test, what="--test", where=text, raises=SettingsError)
    except SettingsError as error:
        raise SettingsError(
            f"--test {text!r} must be a fraction of the persons between 0 and 1, COLUMN=VALUE, a "
            "date such as 2024-01-31, or a file of settings, FILE.toml; correct it"
        ) from error


test_given.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test
