"""Reads the record in a folder and writes its report."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consilium.shared.errors import SettingsError
from consilium.shared.files.atomic_file import write_atomically
from consilium.shared.study.definition import Study, parse_canonical
from consilium.simulations.report.groups import read_groups
from consilium.simulations.report.model_card import model_card
from consilium.simulations.report.model_card_file import FILE_NAME as CARD
from consilium.simulations.report.model_card_file import model_card_file
from consilium.simulations.report.records import (
    COMPARE,
    REPORT,
    RUN,
    SCHEMA,
    STRATEGIES,
    TUNE,
)
from consilium.simulations.report.run_page import report_page
from consilium.simulations.report.strategies_page import strategies_page

_OF_RUN = (
    "schema", "study", "study_digest", "study_declared", "test", "rounds", "other_rounds",
    "software", "synthetic", "test_cohort", "privacy", "seconds", "bytes_up_per_site_per_round",
)  # fmt: skip
_OF_COMPARISON = ("schema", "study_digest", "settings")
_OF_SEARCH = (
    "schema", "study", "study_digest", "study_declared", "tried", "chosen", "why", "price",
)  # fmt: skip
_REPORTED = ("federated-private", "federated")  # a comparison's report is of the first it has


def write_report(folder: Path, out: Path | None = None, compare: Path | None = None) -> Path:
    """Write the report of a run, of a comparison's private federated setting, or of strategies.

    Beside that of a run or setting goes its model card, ``model-card.json``.

    Args:
        folder: holds ``run.json``, ``compare.json`` or ``strategies.json``.
        out: the file to write; ``report.html`` in the folder unless given.
        compare: a ``compare.json`` of the same study, or its folder; unless given, the one in
            ``folder``, if any.

    Returns:
        The file written.

    Raises:
        SettingsError: there is no record, or one is damaged, too old, or of another study.
    """
    if not (folder / RUN).exists() and (folder / STRATEGIES).exists():
        strategies = _read(folder / STRATEGIES, (*_OF_COMPARISON, "refused"))
        study = _study(next(iter(strategies["settings"].values())), folder)
        page = strategies_page(study, strategies["settings"], strategies["refused"])
        return _write(out or folder / REPORT, page)
    compared = compare / COMPARE if compare and compare.is_dir() else compare or folder / COMPARE
    settings = _read(compared, _OF_COMPARISON) if compare or compared.exists() else None
    if settings is None or (folder / RUN).exists():
        record = _read(folder / RUN, _OF_RUN)
        if settings is not None and settings["study_digest"] != record["study_digest"]:
            raise SettingsError(
                f"{compared}: compares study {settings['study_digest'][:12]}, and the run is of "
                f"{record['study_digest'][:12]}; give the comparison of the same study"
            )
    else:
        found = [settings["settings"][s] for s in _REPORTED if s in settings["settings"]]
        if not found:
            raise SettingsError(f"{compared}: has no federated setting yet; let the comparison end")
        record = found[0]
    study, compared_with = _study(record, folder), settings["settings"] if settings else None
    written = _write(out or folder / REPORT, report_page(study, record, compared_with))
    items = model_card(study, record, read_groups(record), compared_with)
    card = CARD if written.name == REPORT else f"{written.stem}.{CARD}"
    _write(written.with_name(card), model_card_file(study, record, items))
    return written


def read_run(folder: Path) -> tuple[Study, dict[str, Any]]:
    """Return the study of a finished run and the content of its ``run.json``.

    Raises:
        SettingsError: the folder holds no finished run, or a damaged one, or one that is too old.
    """
    record = _read(folder / RUN, _OF_RUN)
    return _study(record, folder), record


def read_comparison(folder: Path) -> tuple[Study, dict[str, dict[str, Any]]]:
    """Return the study of a comparison, and a record for each setting, in the table's order.

    If no setting has exactly the compared study, the study is the first setting's, which differs
    from it only in privacy.

    Raises:
        SettingsError: the folder holds no comparison, or a damaged one, or one that is too old.
    """
    content = _read(folder / COMPARE, _OF_COMPARISON)
    if not content["settings"]:
        raise SettingsError(f"{folder / COMPARE}: has no setting yet; let the comparison end")
    settings: dict[str, dict[str, Any]] = content["settings"]
    records = list(settings.values())
    own = [one for one in records if one.get("study_digest") == content["study_digest"]]
    return _study((own or records)[0], folder), settings


def read_search(folder: Path) -> tuple[Study, dict[str, Any]]:
    """Return the study of a finished search and the content of its ``tune.json``.

    Raises:
        SettingsError: the folder holds no finished search, or a damaged one, or one that is too
            old.
    """
    record = _read(folder / TUNE, _OF_SEARCH)
    return _study(record, folder), record


def _write(target: Path, page: str | bytes) -> Path:
    try:
        write_atomically(target, page.encode() if isinstance(page, str) else page)
    except OSError as error:
        raise SettingsError(
            f"report {target}: cannot be written ({error.strerror}); name another file"
        ) from error
    return target


def _read(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of a JSON file, which must have this schema and these keys."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); name the folder that "
            "'consilium-simulate run', 'compare' or 'tune' was given as --out"
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"{path}: is not JSON ({error}); give the command that made it again, which writes it "
            "anew from its checkpoint"
        ) from error
    missing = [key for key in needed if key not in record] if isinstance(record, dict) else needed
    if missing or record["schema"] != SCHEMA:
        why = f"lacks {missing[0]!r}" if missing else f"has schema {record['schema']!r}"
        raise SettingsError(
            f"{path}: {why} and was made by another version, schema {SCHEMA} is needed; give the "
            "command that made it again, which writes it anew from its checkpoint"
        )
    return dict(record)


def _study(record: Mapping[str, Any], folder: Path) -> Study:
    """Return the study that the record declares, checked against the record's digest."""
    declared = record["study_declared"]
    if hashlib.sha256(declared.encode()).hexdigest() != record["study_digest"]:
        raise SettingsError(
            f"{folder}: the study in the record does not have the record's digest "
            f"{record['study_digest'][:12]}; the file was changed, make it again"
        )
    return parse_canonical(declared.encode(), where=record["study"])
