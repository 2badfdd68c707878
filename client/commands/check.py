"""``consilium-site check``: reports whether this hospital's data are ready for a study."""

import json
import tomllib
from collections.abc import Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from consilium.client.hospital.folder import SiteFolder
from consilium.client.hospital.policy_file import allowed_sources
from consilium.client.quality.finding import Finding
from consilium.client.quality.findings import Verdict, judge, verdict
from consilium.client.quality.funnel import HEADINGS, KEPT_ROWS, funnels
from consilium.client.quality.measure import Quality, check_quality, quantiles
from consilium.client.sources.common.door import units_line
from consilium.client.sources.common.installed import NOTHING
from consilium.client.sources.common.settings import DataSettings
from consilium.client.sources.registry import HOSPITAL, open_source, read_data_settings
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.export.manifest import output_names
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.files.strict_toml import fault_in_words
from consilium.shared.service.terminal import Table, styled
from consilium.shared.study.definition import Study

_STYLES = {"stops": "red", "warns": "yellow", "tells": "dim"}
_WORDS = {"stops": "stops", "warns": "warning", "tells": "note"}
_COLOURS = {"ready": "green", "ready with warnings": "yellow", "not ready": "red"}


def run_check(
    study: Study,
    chosen: DataSettings,
    console: Console,
    *,
    as_json: bool = False,
    page: Path | None = None,
) -> None:
    """Read, measure and judge the data; print the report, and write the page if asked.

    Raises:
        DataError: the records cannot be read, or the verdict is *not ready*.
    """
    quality = check_quality(open_source(chosen, study, counts_units=True), study)
    findings = judge(quality, study)
    ruling = verdict(findings)
    if page is not None:
        from consilium.client.quality.page import (
            quality_page,  # matplotlib takes a second to import
        )

        try:
            write_atomically(page, quality_page(quality, findings, ruling, study).encode())
        except OSError as error:
            raise SettingsError(
                f"--page {page}: cannot be written ({error.strerror}); name another file"
            ) from error
    if as_json:
        report = report_json(quality, findings, ruling, study)
        if chosen.installed is not None:
            of = chosen.installed
            report["installed_source"] = {
                "name": of.name,
                "distribution": of.distribution,
                "version": of.version,
            }
        console.print_json(json.dumps(report))
    else:
        if chosen.installed is not None:
            console.print(f"read by {chosen.installed}", markup=False)
        _print(quality, findings, ruling, study, console)
        if page is not None:
            console.print(f"page  {page}", markup=False)
    if ruling == "not ready":
        first = next(finding for finding in findings if finding.level == "stops")
        raise DataError(f"not ready: {first.about}: {first.told}; {first.remedy}")


def records_named(
    study: Study, folder: Path, settings: Path | None, data: Path | None, where: list[str]
) -> DataSettings:
    """Return the records named on the command line, or else those of the site's own settings.

    Args:
        study: the study for which they are read.
        folder: the site's folder.
        settings: another ``site.toml``.
        data: folder or file of the study's kind of records.
        where: selects stays in ``data``, NAME=VALUE each.

    Raises:
        SettingsError: both ``settings`` and ``data`` are given, or one of them is wrong.
    """
    if settings is not None and data is not None:
        raise SettingsError("--settings and --data both name the records; give one of them")
    if data is None and where:
        raise SettingsError(
            "--where selects among the records of --data, which is not given; name them there, or "
            "select in site.toml"
        )
    if data is not None:
        return settings_for(study, data, _selection(where))
    if settings is not None:
        return settings_from(settings, allowed_sources(folder))
    if not folder.exists():
        raise SettingsError(
            f"no records are named, and there is no site's folder {folder}; name a file with the "
            "table [data] by --settings FILE, which needs no enrolment, or run 'consilium-site "
            "init' first"
        )
    return SiteFolder.open(folder).settings().records(folder)


def settings_from(file: Path, installed: Set[str] = NOTHING) -> DataSettings:
    """Read the ``[data]`` table of a ``site.toml``.

    Args:
        file: the file.
        installed: the sources of installed packages that the site's policy allows.

    Raises:
        SettingsError: the file cannot be read, or its table is wrong.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read as UTF-8 text; check the path") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {fault_in_words(error)}") from error
    table = content.get("data")
    if not isinstance(table, dict):
        raise SettingsError(f"{file} has no table [data]; say there where the records are")
    return read_data_settings(
        table, where=str(file), folder=file.resolve().parent, installed=installed
    )


def settings_for(study: Study, data: Path, where: dict[str, float | str]) -> DataSettings:
    """Return settings for the study's source, for a source that needs no more than a folder.

    Raises:
        SettingsError: the study's source needs more than a folder.
    """
    if study.data.source == HOSPITAL:
        raise SettingsError(
            f"study {study.name} reads a hospital's own records, of which a folder does not say "
            "enough for --data; say in a site.toml what they are, and name it with --settings"
        )
    table: dict[str, Any] = {"source": study.data.source, "path": str(data)}
    if where:
        table["where"] = where
    return read_data_settings(table, where="--data", folder=Path.cwd())


def _selection(pairs: list[str]) -> dict[str, float | str]:
    """Parse NAME=VALUE options; a value that looks like a number becomes one."""
    selection: dict[str, float | str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--where {pair}: must be NAME=VALUE, such as ICUType=1")
        try:
            selection[name] = float(value)
        except ValueError:
            selection[name] = value
    return selection


def report_json(
    quality: Quality, findings: tuple[Finding, ...], ruling: Verdict, study: Study
) -> dict[str, Any]:
    """Return the report as plain data for JSON: counts, shares and findings."""
    variables: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(study.variables):
        found = quantiles(quality.histogram_VB[index], (0.05, 0.5, 0.95))
        variables[name] = {
            "present": _number(quality.present_V[index]),
            "measured_by_step": [_number(share) for share in quality.measured_VT[index]],
            "score_mean": _number(quality.score_mean_V[index]),
            "score_deviation": _number(quality.score_deviation_V[index]),
            "score_5_50_95": [_number(score) for score in found],
            "tells_alone": _number(quality.alone_V[index]),
        }
    for funnel in funnels(quality.read, study):
        counts = dict(zip(HEADINGS, funnel.row, strict=True))
        counts = counts if quality.read.counts_rows else {KEPT_ROWS: funnel.kept}
        variables.setdefault(funnel.name, {})["funnel"] = counts
    return {
        "schema": 1,
        "study": study.name,
        "study_digest": study.digest.hex(),
        "verdict": ruling,
        "patients": quality.patients,
        "stays": quality.stays,
        "stays_without_window": quality.windowless,
        "label_mean": _number(quality.label_mean),
        "outcome_patients": [int(number) for number in quality.outcome_patients],
        "codes": quality.codes,
        "unknown_codes": quality.unknown_codes,
        "stays_by_step": [int(number) for number in quality.observed_T],
        "read": asdict(quality.read),
        "variables": variables,
        "findings": [asdict(finding) for finding in findings],
    }


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _print(
    quality: Quality, findings: tuple[Finding, ...], ruling: Verdict, study: Study, console: Console
) -> None:
    read = quality.read
    console.print(f"{study.title}", markup=False, style="bold")
    console.print(
        f"{quality.patients} patients, {_stays(quality, study)}, {read.events} measurements; "
        f"{_outcome(quality, study)}",
        markup=False,
    )
    if read.person_key:
        console.print(f"persons by {read.person_key}", markup=False)
    for what, number in read.notes.items():
        console.print(f"{number} {what}", markup=False)
    table = Table("variable", "unit", box=None, pad_edge=False)
    for heading in ("in stays", "in steps", "center off by", "spread", "out of range"):
        table.add_column(heading, justify="right")
    for index, (name, variable) in enumerate(study.variables.items()):
        out = read.out_of_range.get(name, 0)
        kept = int(quality.histogram_VB[index].sum())
        table.add_row(
            name,
            variable.unit,
            f"{100 * quality.present_V[index]:.0f} %",
            f"{100 * quality.measured_VT[index].mean():.0f} %",
            _signed(quality.score_mean_V[index]),
            _plain(quality.score_deviation_V[index]),
            f"{100 * out / max(1, kept + out):.1f} %",
        )
    console.print(table, markup=False)
    if study.tokens is not None:
        known = 1 - quality.unknown_codes / max(1, quality.codes)
        console.print(
            f"{', '.join(study.tokens.names)}: {quality.codes} codes, {100 * known:.1f} % of them "
            f"in the study's vocabulary of {len(study.tokens.vocabulary)}",
            markup=False,
        )
    console.print("center and spread in the study's reference deviations", style="dim")
    _print_funnels(quality, study, console)
    for finding in findings:
        console.print(styled(f"{_WORDS[finding.level]:>7}", _STYLES[finding.level]), end="  ")
        console.print(f"{finding.about}: {finding.told}; {finding.remedy}", markup=False)
    if line := units_line(read.unknown_units):
        console.print("for [data] of site.toml, each ? replaced by what it means:", markup=False)
        console.print(line, markup=False)
    console.print(f"verdict: {ruling}", style=_COLOURS[ruling], markup=False)


def _print_funnels(quality: Quality, study: Study, console: Console) -> None:
    """Print where the rows of each variable stayed, if the source counts them."""
    found = [funnel for funnel in funnels(quality.read, study) if funnel.found]
    if not found or not quality.read.counts_rows:  # then a finding tells of the rows
        return
    table = Table("variable", box=None, pad_edge=False)
    for heading in (*HEADINGS, "lost"):
        table.add_column(heading, justify="right")
    for funnel in found:
        lost = f"{100 * funnel.lost_share:.1f} %"
        table.add_row(funnel.name, *map(str, funnel.row), lost)
    console.print(table, markup=False)
    console.print(
        "rows not kept and not lost lie outside the study's window or are repeated", style="dim"
    )


def _stays(quality: Quality, study: Study) -> str:
    if study.data.fixed:
        return f"{quality.stays} stays"
    return f"{quality.stays} windows of {quality.read.stays - quality.windowless} stays"


def _outcome(quality: Quality, study: Study) -> str:
    label = study.data.label
    if study.task.kind == "multiclass":
        return f"patients with {label}: {', '.join(map(str, quality.outcome_patients))}"
    if study.task.kind == "regression":
        return f"mean {label} {quality.label_mean:.3g}"
    rows = "of the hours" if study.task.per_step and study.data.clock == "hour" else ""
    rows = "of the places" if study.task.per_step and not rows else rows
    if study.task.kind in ("multilabel", "survival"):
        patients = zip(output_names(study), quality.outcome_patients, strict=True)
        return "patients with " + ", ".join(f"{name} {number}" for name, number in patients)
    return " ".join(filter(None, (f"{100 * quality.label_mean:.1f} %", rows, f"with {label}")))


def _signed(score: float) -> str:
    return f"{score:+.2f}" if np.isfinite(score) else "-"


def _plain(score: float) -> str:
    return f"{score:.2f}" if np.isfinite(score) else "-"
