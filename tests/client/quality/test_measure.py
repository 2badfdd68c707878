"""The quality check measures what is there, finds what is wrong, and shows no patient."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from consilium.client.cli import app
from consilium.client.commands.check import report_json, run_check, settings_from
from consilium.client.quality.findings import RULES_OF_TIME, Finding, judge, verdict
from consilium.client.quality.measure import Quality, check_quality, quantiles
from consilium.client.quality.page import quality_page
from consilium.client.sources.common.source import Patient, ReadReport, Stay, Tally
from consilium.shared.errors import ConsiliumError, DataError, SettingsError
from consilium.shared.study.definition import Study, parse_study, with_changes
from tests.client.sources.cohort_formats import STUDY as DEMO
from tests.client.sources.cohort_formats import write_tables, written

TEXT = """
name = "tiny"
title = "A tiny study"
rounds = 1
sites = ["a", "b", "c"]
[data]
source = "hospital"
label = "died"
window_h = 6
minimum_patients = 25
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 80, spread = 20 }
Na = { unit = "mmol/L", low = 80, high = 200, center = 140, spread = 5 }
K = { unit = "mmol/L", low = 1, high = 15, center = 4, spread = 0.15, scale = "log" }
"""
STUDY = parse_study(TEXT)


class Given:
    """A source of given patients; HR and Na every hour, K once, unless told otherwise."""

    name = "given"

    def __init__(self, patients: int = 60, *, seed: int = 1, **changes: object) -> None:
        self._stream = np.random.default_rng(seed)
        self._patients, self._changes = patients, changes
        self.tally = Tally()

    @property
    def report(self) -> ReadReport:
        return self.tally.report()

    def read_patients(self, study: Study) -> Iterator[Patient]:
        for number in range(self._patients):
            label = float(number % 3 == 0)
            hours = np.repeat(np.arange(6, dtype=np.float32), 3)
            variables = np.tile(np.arange(3, dtype=np.int16), 6)
            center, spread = np.array([80, 140, 4]), np.array([20, 5, 0.5])
            own = self._stream.standard_normal(3)
            noise = 0.5 * self._stream.standard_normal(18)
            values = (center + spread * own)[variables] + spread[variables] * noise
            keep = variables != self._changes.get("never", -1)
            if self._changes.get("told_by") == "Na":
                values[variables == 1] = 150 if label else 130
            if "scale_hr" in self._changes:
                values[variables == 0] *= self._changes["scale_hr"]
            self.tally.patients += 1
            self.tally.stays += 1
            self.tally.events += int(keep.sum())
            yield Patient(
                patient_id=f"secret-{number}",
                stays=(
                    Stay(
                        stay_id=f"secret-stay-{number}",
                        hours_E=hours[keep],
                        variable_E=variables[keep],
                        value_E=np.clip(values, 0, 1000).astype(np.float32)[keep],
                        label=self._changes.get("label", label),
                        outcome_h=self._changes.get("outcome_h"),
                    ),
                ),
            )


def checked(source: Given, study: Study = STUDY) -> tuple[Quality, tuple[Finding, ...]]:
    quality = check_quality(source, study)
    return quality, judge(quality, study)


def about(findings: tuple[Finding, ...], what: str, words: str) -> Finding:
    found = [one for one in findings if one.about == what and words in one.told]
    assert len(found) == 1, findings
    return found[0]


def test_good_data_are_ready() -> None:
    quality, findings = checked(Given())
    assert findings == ()
    assert verdict(findings) == "ready"
    assert (quality.patients, quality.stays) == (60, 60)
    assert quality.outcome_patients.tolist() == [40, 20]
    assert quality.persons.tolist() == [60, 20, *[60] * len(STUDY.variables)]
    assert quality.label_mean == pytest.approx(1 / 3)
    assert (quality.present_V == 1).all()
    assert (quality.measured_VT == 1).all()
    assert quality.histogram_VB.sum() == 60 * 18


def test_measuring_in_parts_gives_the_same_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = checked(Given())
    monkeypatch.setattr("consilium.client.quality.measure.STAYS_AT_ONCE", 7)
    parts, _ = checked(Given())
    for name in ("present_V", "measured_VT", "observed_T", "histogram_VB", "alone_V"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name), equal_nan=True), name
    assert parts.score_mean_V == pytest.approx(whole.score_mean_V)
    assert parts.score_deviation_V == pytest.approx(whole.score_deviation_V)


@pytest.mark.parametrize(
    ("source", "what", "words", "level"),
    [
        (Given(20), "patients", "20 patients are below the study's minimum of 25", "stops"),
        (Given(label=0.0), "outcome 1", "no patient has it", "stops"),
        (Given(27), "outcome 1", "only 9 patients have it", "warns"),
        (Given(never=1), "Na", "it was never measured", "warns"),
        (Given(scale_hr=1 / 60), "HR", "below the study's center 80 /min", "warns"),
        (Given(told_by="Na"), "Na", "it tells the outcome by itself (AUROC 1.000)", "warns"),
        (Given(outcome_h=3.0), "labels", "in 60 stays the outcome happened before", "warns"),
    ],
)
def test_what_is_wrong_is_found_and_has_a_remedy(
    source: Given, what: str, words: str, level: str
) -> None:
    _, findings = checked(source)
    finding = about(findings, what, words)
    assert finding.level == level
    assert finding.remedy
    assert verdict(findings) == ("not ready" if level == "stops" else "ready with warnings")


@pytest.mark.parametrize("reason", RULES_OF_TIME)
def test_what_the_rules_of_time_decided_is_told_with_its_number(reason: str) -> None:
    quality, _ = checked(Given())
    read = replace(quality.read, times={reason: 17})
    finding = about(judge(replace(quality, read=read), STUDY), "times", f"17 {reason}")
    assert finding.level == RULES_OF_TIME[reason][0]
    assert finding.remedy


def test_of_several_labels_each_is_counted_and_a_rare_one_named() -> None:
    study = with_changes(
        STUDY, data={"label": "died+sepsis"}, task={"kind": "multilabel", "outputs": 2}
    )

    class Several(Given):
        def read_patients(self, study: Study) -> Iterator[Patient]:
            for number, patient in enumerate(super().read_patients(STUDY)):
                label = np.array([number % 2, number < 9], dtype=np.float32)
                yield replace(patient, stays=(replace(patient.stays[0], label=label),))

    quality, findings = checked(Several(), study)
    assert quality.outcome_patients.tolist() == [30, 9]
    assert quality.persons[:3].tolist() == [60, 30, 9]
    assert about(findings, "sepsis", "only 9 patients have it").level == "warns"
    assert "patients with sepsis</td>" in quality_page(quality, findings, "ready", study)


def test_patients_kept_for_validation_do_not_count_towards_the_minimum() -> None:
    study = with_changes(STUDY, evaluation={"validation_fraction": 0.2})
    _, findings = checked(Given(30), study)
    assert about(findings, "patients", "about 24 of 30 patients would train").level == "warns"
    _, findings = checked(Given(32), study)
    assert not [finding for finding in findings if finding.about == "patients"]


@pytest.mark.parametrize(
    ("counts", "what", "words", "level"),
    [
        ({"duplicates": 900}, "rows", "900 values stand beside another", "warns"),
        ({"duplicates": 3}, "rows", "3 values stand beside another", "tells"),
        ({"unlabelled": 30}, "labels", "30 stays have no label", "warns"),
        ({"out_of_range": {"HR": 90}}, "HR", "20.0 % of its values lie outside", "warns"),
        ({"out_of_range": {"HR": 1}}, "ranges", "1 values of 1 variables lie outside", "tells"),
        ({"repaired": {"HR": 90}}, "HR", "90 values were slips of unit", "warns"),
        ({"skipped": [("f", "why")]}, "files", "1 files could not be read", "warns"),
        ({"set_aside": {"events after the end of their stay": 90}}, "times", "90 events", "warns"),
        ({"set_aside": {"stays that start in the future": 1}}, "times", "1 stays that", "warns"),
        ({"set_aside": {"values that are no number": 2}}, "rows", "2 values that are", "tells"),
    ],
)
def test_what_the_source_counted_becomes_a_finding(
    counts: dict[str, object], what: str, words: str, level: str
) -> None:
    source = Given()
    for name, value in counts.items():
        setattr(source.tally, name, value)
    _, findings = checked(source)
    assert about(findings, what, words).level == level


def test_no_report_names_a_patient_or_a_stay(tmp_path: Path) -> None:
    quality, findings = checked(Given(20, told_by="Na"))
    page = quality_page(quality, findings, verdict(findings), STUDY)
    told = json.dumps(report_json(quality, findings, verdict(findings), STUDY))
    for text in (page, told):
        assert "secret" not in text
    assert "not ready" in page
    assert page.count("<figure>") == 3
    assert "http" not in page.replace("data:image", "")


def test_quantiles_come_from_the_histogram() -> None:
    histogram = np.zeros(100, dtype=np.int64)
    histogram[50:60] = 10
    low, median, high = quantiles(histogram, (0.05, 0.5, 0.95))
    assert (low, median, high) == pytest.approx((0.05, 0.45, 0.95), abs=0.06)
    assert np.isnan(quantiles(np.zeros(100, dtype=np.int64), (0.5,))[0])


@pytest.mark.slow
def test_the_command_reads_site_toml_and_prints_a_verdict(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(in_data_table(write_tables(written(), tmp_path, "csv")))
    console = Console(record=True, width=120)
    run_check(DEMO, settings_from(tmp_path / "site.toml"), console, page=tmp_path / "q.html")
    told = console.export_text()
    assert "verdict: ready with warnings" in told
    assert "Temp" in told
    assert "1000" not in told.replace(str(tmp_path), "")
    assert (tmp_path / "q.html").read_text().startswith("<!doctype html>")


def test_data_that_are_not_ready_end_the_command_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(in_data_table(write_tables(written(), tmp_path, "csv")))
    study = with_changes(DEMO, data={"minimum_patients": 500})
    console = Console(record=True, width=120)
    with pytest.raises(DataError, match=r"not ready: patients: .* minimum of 500"):
        run_check(study, settings_from(tmp_path / "site.toml"), console, as_json=True)
    assert json.loads(console.export_text())["verdict"] == "not ready"


@pytest.mark.slow
def test_a_page_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(in_data_table(write_tables(written(), tmp_path, "csv")))
    with pytest.raises(SettingsError, match=r"--page .* cannot be written \("):
        run_check(DEMO, settings_from(tmp_path / "site.toml"), Console(quiet=True), page=tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["no-such.toml"], "study no-such.toml: cannot be read"),
        (["tiny.toml", "--data", "."], "and name it with --settings"),
        (["tiny.toml", "--settings", "site.toml", "--where", "a=b"], "--where selects among the r"),
    ],
)
def test_a_clumsy_command_is_told_what_to_write(
    options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TEXT)
    with pytest.raises(ConsiliumError, match=sentence):
        app(["check", *options], standalone_mode=False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "cannot be read"), ("[data", "is not valid TOML"), ("[site]\n", "has no table")],
)
def test_settings_that_cannot_be_read_are_refused(
    text: str | None, sentence: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "site.toml").write_text(text)
    with pytest.raises(SettingsError, match=sentence):
        settings_from(tmp_path / "site.toml")


def in_data_table(settings: str) -> str:
    """The tables' settings as they stand in a site.toml."""
    return "[data]" + settings.replace("[[", "[[data.").replace("\n[", "\n[data.").replace(
        "[data.[data.", "[[data."
    )
