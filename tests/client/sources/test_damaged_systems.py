"""Damaged files of a hospital's own systems: one sentence, or clean values."""

import tomllib
from pathlib import Path

import pytest

from consilium.client.sources.common.source import Source
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.study.definition import with_changes
from tests.client.sources.cohort_formats import STUDY, fill_omop
from tests.client.sources.own.test_fhir import SETTINGS as FHIR
from tests.client.sources.own.test_fhir import export, observation
from tests.client.sources.own.test_meds import HR, IN, person
from tests.client.sources.own.test_meds import SETTINGS as MEDS
from tests.client.sources.own.test_meds import write as write_rows
from tests.client.sources.own.test_omop import pulse, rows
from tests.client.sources.own.test_tables import only
from tests.client.sources.test_damaged_files import (
    DAMAGES,
    SECRET,
    Format,
    refusals,
)

SMALL = with_changes(
    only(STUDY, "HR", "Gender", "Age"), data={"source": "hospital", "on_bad_file": "refuse"}
)


def opened(text: str, folder: Path) -> Source:
    return open_source(
        read_data_settings(tomllib.loads(text), where="site.toml", folder=folder), SMALL
    )


def write_meds(folder: Path) -> None:
    secret = (IN, HR, SECRET, None, "/min")
    write_rows(folder, [*person(1, secret), *person(2, secret, died=True)])


def write_omop(folder: Path) -> None:
    content = rows(pulse(1, SECRET, measurement_id=7), pulse(2, SECRET, measurement_id=8))
    fill_omop(f"sqlite:///{folder / 'cdm.sqlite'}", content, schema=None)


def write_fhir(folder: Path) -> None:
    export(folder, observation("1", SECRET), observation("2", SECRET), packed=True)


FORMATS = {
    "fhir": Format(SMALL, write_fhir, lambda folder: opened(FHIR, folder)),
    "omop": Format(
        SMALL, write_omop, lambda folder: opened('source = "omop"\nfile = "cdm.sqlite"', folder)
    ),
    "meds": Format(SMALL, write_meds, lambda folder: opened(MEDS, folder)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_system_ends_in_one_sentence_or_in_values_in_range(
    name: str, tmp_path: Path
) -> None:
    assert sum(map(bool, refusals(FORMATS[name], tmp_path, name))) > DAMAGES // 10
