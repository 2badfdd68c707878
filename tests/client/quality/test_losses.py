"""``check`` explains loss: a small cohort in dialects, each with the right values or a sentence."""

import datetime as dt
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from consilium.client.commands.check import report_json, run_check
from consilium.client.quality.finding import Finding
from consilium.client.quality.findings import judge, verdict
from consilium.client.quality.funnel import HEADINGS, Funnel, funnels
from consilium.client.quality.measure import Quality, check_quality
from consilium.client.quality.page import quality_page
from consilium.client.sources.common.reasons import LOSSES
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.errors import DataError
from consilium.shared.study.definition import parse_study

pytest.importorskip("polars")

STUDY = parse_study("""
name = "dialects"
title = "Dialects"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "hospital"
label = "died"
window_h = 40
minimum_patients = 5
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
Na = { unit = "mmol/L", low = 80, high = 200, center = 139, spread = 5 }
""")
START = dt.datetime(2024, 3, 29, 8, 0)
STAYS, HOURS = 24, 40
SETTINGS = """
source = "tables"
[stays]
file = "stays.csv"
patient = "person"
stay = "admission"
start = "admitted"
end = "discharged"
label = "died"
[[events]]
file = "events.csv"
stay = "admission"
{when}
variable = "item"
value = "result"
unit = "unit"
"""
TIME = 'time = "taken"'


@dataclass
class Cohort:
    """Rows as text; each stay has a heart rate every 4 hours and a sodium every 8."""

    stays: list[dict[str, str]] = field(default_factory=list)
    events: list[dict[str, str]] = field(default_factory=list)
    when: str = TIME

    def change(
        self, table: str, column: str, how: Callable[[str], str], every: int = 1
    ) -> "Cohort":
        """Change every n-th cell of a column."""
        for number, row in enumerate(getattr(self, table)):
            if number % every == 0:
                row[column] = how(row[column])
        return self


def cohort() -> Cohort:
    stream, found = np.random.default_rng(7), Cohort()
    for number in range(STAYS):
        begin, own = START + dt.timedelta(hours=5 * number), stream.normal(size=2)
        found.stays.append({
            "person": f"{1000 + number}", "admission": f"{5000 + number}",
            "admitted": f"{begin}", "discharged": f"{begin + dt.timedelta(hours=HOURS)}",
            "died": f"{int(number % 2 == 0)}",
        })  # fmt: skip  # a row
        for hour in range(0, HOURS, 4):
            for item, every, center, unit in (
                ("HR", 4, 85 + 18 * own[0], "/min"),
                ("Na", 8, 139 + 5 * own[1], "mmol/L"),
            ):
                if hour % every == 0:
                    found.events.append({
                        "admission": f"{5000 + number}",
                        "taken": f"{begin + dt.timedelta(hours=hour, minutes=10)}",
                        "hours": f"{hour + 1 / 4}",
                        "item": item,
                        "result": f"{round(center + float(stream.normal()), 1)}",
                        "unit": unit,
                    })  # fmt: skip  # a row
    return found


RATES, SODIUMS = STAYS * 10, STAYS * 5


def checked(given: Cohort, folder: Path, more: str = "") -> tuple[Quality, tuple[Finding, ...]]:
    write(given, folder)
    source = open_source(settings(given, folder, more), STUDY, counts_units=True)
    quality = check_quality(source, STUDY)
    return quality, judge(quality, STUDY)


def write(given: Cohort, folder: Path) -> None:
    for name in ("stays", "events"):
        rows = getattr(given, name)
        lines = [";".join(rows[0]), *(";".join(row.values()) for row in rows)]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def settings(given: Cohort, folder: Path, more: str = "") -> Any:
    text = SETTINGS.format(when=given.when).replace('.csv"', '.csv"\nseparator = ";"')
    return read_data_settings(tomllib.loads(more + text), where="site.toml", folder=folder)


def funnel(quality: Quality, name: str) -> Funnel:
    (one,) = (one for one in funnels(quality.read, STUDY) if one.name == name)
    assert one.found == sum(one.lost) + one.kept
    return one


def lost(quality: Quality, name: str) -> dict[str, int]:
    one = funnel(quality, name)
    return {stage: number for stage, number in zip(LOSSES, one.lost, strict=True) if number}


def told(findings: tuple[Finding, ...], about: str) -> str:
    return " | ".join(
        f"{one.level}: {one.told}; {one.remedy}" for one in findings if one.about == about
    )


def test_a_cohort_as_it_should_be_loses_nothing_and_is_ready(tmp_path: Path) -> None:
    quality, findings = checked(cohort(), tmp_path)
    assert (funnel(quality, "HR").kept, funnel(quality, "Na").kept) == (RATES, SODIUMS)
    assert lost(quality, "HR") == lost(quality, "Na") == {}
    assert verdict(findings) == "ready", findings


@pytest.mark.parametrize(
    ("column", "how", "stage"),
    [
        ("taken", lambda _: "", "no time"),
        ("result", lambda _: "", "no number"),
        ("result", lambda _: "haemolytic", "no number"),
        ("unit", lambda _: "furlong", "unknown unit"),
        ("unit", lambda _: "", "unknown unit"),
        ("unit", lambda _: "mm[Hg]", "unknown unit"),
        ("admission", lambda _: "77", "no stay"),
        ("taken", lambda cell: cell.replace("2024", "2025"), "outside its stay"),
        ("taken", lambda cell: cell.replace("2024", "2023"), "outside its stay"),
        ("result", lambda _: "1000", "out of range"),
    ],
)
@pytest.mark.parametrize("every", [5, 100])
def test_each_loss_is_counted_at_its_stage_and_above_5_percent_nobody_is_ready(
    column: str, how: Callable[[str], str], stage: str, every: int, tmp_path: Path
) -> None:
    quality, findings = checked(cohort().change("events", column, how, every), tmp_path)
    number = len([row for row in range(RATES + SODIUMS) if row % every == 0])
    both = (lost(quality, "HR"), lost(quality, "Na"))
    assert {one for found in both for one in found} == {stage}
    assert sum(found.get(stage, 0) for found in both) == number
    assert funnel(quality, "HR").kept + funnel(quality, "Na").kept == RATES + SODIUMS - number
    many = [one for one in findings if "rows were lost" in one.told]
    if every == 5:
        assert {one.about for one in many} == {"HR", "Na"}
        assert verdict(findings) == ("not ready" if stage == "unknown unit" else
                                     "ready with warnings")  # fmt: skip  # reads as one
        assert f"{number // 3 * 2} {stage}" in told(findings, "HR") or stage in many[0].told
    else:
        assert many == []


def test_all_unknown_spellings_come_at_once_with_a_line_for_the_settings(tmp_path: Path) -> None:
    odd = cohort()
    for number, row in enumerate(odd.events):
        row["unit"] = {"HR": ("Schlag", "G/L"), "Na": ("mmol pro Kanne", "mmol pro Kanne")}[
            row["item"]
        ][number % 2]
    quality, findings = checked(odd, tmp_path)
    line = 'units = { "Schlag" = "?", "G/L" = "?", "mmol pro Kanne" = "?" }'
    said = told(findings, "units")
    assert said.startswith("stops: 360 rows are in units that are not understood")
    for spelling in ("'Schlag' (HR,", "'G/L' (HR,", "'mmol pro Kanne' (Na, 120 rows)"):
        assert spelling in said
    found = tomllib.loads(said.split("; ")[-1].split(" under [data]")[0])["units"]
    assert found == tomllib.loads(line)["units"]
    page = quality_page(quality, findings, verdict(findings), STUDY)
    assert "Where rows are lost" in page
    assert "mmol pro Kanne" in page
    with pytest.raises(DataError, match=r"2 more spellings of units are not understood, so write"):
        list(open_source(settings(odd, tmp_path), STUDY).read_patients(STUDY))
    mended = 'units = { "Schlag" = "/min", "G/L" = "/min", "mmol pro Kanne" = "mmol/L" }\n'
    quality, findings = checked(odd, tmp_path, mended)
    assert verdict(findings) == "ready"


def test_a_spelling_of_few_rows_is_counted_and_not_shown(tmp_path: Path) -> None:
    quality, findings = checked(
        cohort().change("events", "unit", lambda _: "Frau Meier", 100), tmp_path
    )
    assert "1 not shown, as fewer than 10 rows" in told(findings, "units") or "2 not shown" in told(
        findings, "units"
    )
    for text in (told(findings, "units"), str(quality.read)):
        assert "Meier" not in text
    assert verdict(findings) == "ready with warnings"


@pytest.mark.parametrize(
    ("change", "sentence", "kept"),
    [
        (
            lambda one: one.change("events", "result", lambda cell: cell.replace(".", ",")),
            r"360 values written with a decimal comma .*decimal_comma = true",
            0,
        ),
        (
            lambda one: one.change("events", "result", lambda cell: "1,0" + cell[:2]),
            r"360 values written with a separator of thousands",
            0,
        ),
        (
            lambda one: one.change(
                "events", "taken", lambda cell: str(dt.datetime.fromisoformat(cell)
                                                    - dt.timedelta(hours=6))
            ),
            r"events lie at most 14 h before or after .* another time zone",
            None,
        ),
        (
            lambda one: replace(one, when='hours = "hours"').change(
                "events", "hours", lambda cell: f"{60 * float(cell)}"
            ),
            r"events that would lie in their stay if their hours were minutes; write hours_unit",
            None,
        ),
        (
            lambda one: replace(one, when='hours = "hours"').change(
                "events", "hours", lambda cell: f"{float(cell) / 24}"
            ),
            r"all 360 events with hours lie in the first 24th of their stay",
            RATES + SODIUMS,
        ),
        (
            lambda one: one.change("events", "admission", lambda cell: f"{cell}.0"),
            r"360 identifiers that fit only without their '.0'; they were read as whole numbers",
            RATES + SODIUMS,
        ),
        (
            lambda one: one.change("events", "admission", lambda cell: f" {cell} "),
            r"360 identifiers and codes that fit only without their blanks; they were read without",
            RATES + SODIUMS,
        ),
        (
            lambda one: one.change("stays", "admission", lambda cell: f"{cell}.0"),
            r"24 identifiers that fit only without their '.0'",
            RATES + SODIUMS,
        ),
        (
            lambda one: one.change("events", "item", lambda cell: f"{cell} "),
            r"360 identifiers and codes that fit only without their blanks",
            RATES + SODIUMS,
        ),
    ],
)  # fmt: skip  # a table
def test_what_it_looks_like_is_guessed_and_said_to_be_a_guess(
    change: Callable[[Cohort], Cohort], sentence: str, kept: int | None, tmp_path: Path
) -> None:
    write(change(cohort()), tmp_path)
    given = change(cohort())
    quality = check_quality(open_source(settings(given, tmp_path), STUDY, counts_units=True), STUDY)
    findings = judge(quality, STUDY)
    assert re.search(sentence, told(findings, "a guess")), findings
    if kept is not None:
        assert sum(one.kept for one in funnels(quality.read, STUDY)) == kept
    if kept != RATES + SODIUMS:
        assert verdict(findings) != "ready"


def test_nothing_is_guessed_about_a_cohort_as_it_should_be(tmp_path: Path) -> None:
    for when in (TIME, 'hours = "hours"'):
        _, findings = checked(replace(cohort(), when=when), tmp_path)
        assert told(findings, "a guess") == ""


@pytest.mark.parametrize(
    ("change", "more", "sentence"),
    [
        (lambda one: one, 'where = { person = "9" }\n', "the selection .* leaves out all 24"),
        (lambda one: one.change("stays", "admitted", lambda _: ""), "", "all 24 lack a patient"),
        (
            lambda one: one.change("stays", "discharged", lambda _: "2020-01-01 00:00:00"),
            "",
            "all 24 end before they start",
        ),
        (
            lambda one: one.change("stays", "died", lambda _: ""),
            "",
            "the label 'died' of all 24 is",
        ),
        (
            lambda one: one.change("stays", "died", lambda _: "").change(
                "stays", "person", lambda _: "", 2
            ),
            "",
            "of 24, 12 lack a patient, .*, 0 end before .* of 12 is unknown",
        ),
    ],
)
def test_each_cause_of_no_stay_has_its_own_sentence(
    change: Callable[[Cohort], Cohort], more: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"no stay is left to read: .*{sentence}") as caught:
        checked(change(cohort()), tmp_path, more)
    assert "\n" not in str(caught.value)


def test_the_command_shows_the_funnel_and_its_json_holds_it(tmp_path: Path) -> None:
    given = cohort().change("events", "unit", lambda _: "Schlag", 3)
    write(given, tmp_path)
    console = Console(record=True, width=200)
    with pytest.raises(DataError, match="not ready: units: 120 rows are in units"):
        run_check(STUDY, settings(given, tmp_path), console)
    shown = console.export_text()
    for words in (*HEADINGS, 'units = { "Schlag" = "?" }'):
        assert words in shown
    quality, findings = checked(given, tmp_path)
    plain = report_json(quality, findings, verdict(findings), STUDY)
    rates = plain["variables"]["HR"]["funnel"]
    assert rates["rows found"] == RATES
    assert rates["kept"] == RATES - rates["unknown unit"]
