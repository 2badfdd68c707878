"""One cohort, in every form that a hospital has, gives the same tensors."""

import gzip
import json
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from consilium.client.records.features import PatientTensors, to_grid, to_tensors
from consilium.client.sources.registry import open_source, read_data_settings
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.study.definition import with_changes
from consilium.shared.study.input_names import feature_names
from tests.client.sources import cohort_formats as formats
from tests.client.sources.fhir_server import running
from tests.client.sources.postgresql import Server

# A vasopressor given is a number in a table, and a mere event in all other formats.
GIVEN = {"unit": "1", "low": 0, "high": 1, "center": 0.5, "spread": 0.5}
STUDY = with_changes(
    formats.STUDY,
    data={"source": "hospital"},
    variables=dict.fromkeys([formats.DRUG], GIVEN),
)


Funnel = Mapping[str, Mapping[str, int]]
Found = tuple[PatientTensors, tuple[str, ...], Funnel]


def tensors(text: str, folder: Path) -> Found:
    """The tensors, the patients, and where each variable's rows ended."""
    settings = read_data_settings(tomllib.loads(text), where="site.toml", folder=folder)
    source = open_source(settings, STUDY)
    grid = to_grid(source.read_patients(STUDY), STUDY)
    made = to_tensors(grid, Normalisation.reference(STUDY), STUDY)
    return made, grid.patient_ids, source.report.funnel


def csv(cohort: formats.Written, folder: Path) -> str:
    return formats.write_tables(cohort, folder, "csv")


def parquet(cohort: formats.Written, folder: Path) -> str:
    return formats.write_tables(cohort, folder, "parquet", key="patient")


Writer = Callable[[formats.Written, Path], str]


@cache
def cohort() -> formats.Written:
    return formats.written()


@cache
def reference() -> Found:
    """The cohort as read from CSV."""
    with tempfile.TemporaryDirectory() as folder:
        return tensors(csv(cohort(), Path(folder)), Path(folder))


def agree(write: Writer, folder: Path) -> None:
    """Write the cohort in a format, read it, and compare tensors and counts with those of CSV."""
    one, people, funnel = reference()
    other, same_people, same_funnel = tensors(write(cohort(), folder), folder)
    assert people == same_people
    assert funnel == same_funnel
    for name in ("x_NTF", "mask_NT", "y_N", "patient_N"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert np.isfinite(one.x_NTF.numpy()).all()
    assert one.x_NTF[..., feature_names(STUDY).index(formats.DRUG)].any()
    assert float(one.x_NTF.abs().max()) > 1


NEEDED = {
    formats.write_xlsx: ("openpyxl", "fastexcel"),
    formats.write_sql_duckdb: ("duckdb", "duckdb_engine"),
}
WRITERS = [
    parquet,
    formats.write_arrow,
    formats.write_xlsx,
    formats.write_latin_csv,
    formats.write_sql_sqlite,
    formats.write_sql_duckdb,
    formats.write_meds,
    formats.write_sqlite,
    formats.write_fhir,
    pytest.param(formats.write_bundles, marks=pytest.mark.slow),
    formats.write_hl7,
]


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITERS)
def test_the_same_cohort_gives_identical_tensors(write: Writer, tmp_path: Path) -> None:
    for library in NEEDED.get(write, ()):
        pytest.importorskip(library)
    agree(write, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fetch", ["export", pytest.param("search", marks=pytest.mark.slow)])
def test_the_same_cohort_from_a_server_gives_identical_tensors(fetch: str, tmp_path: Path) -> None:
    with ExitStack() as stack:

        def served(cohort: formats.Written, folder: Path) -> str:
            text = formats.write_fhir(cohort, folder)
            resources = []
            for path in sorted((folder / "export").iterdir()):
                content = path.read_bytes()
                content = gzip.decompress(content) if path.suffix == ".gz" else content
                resources += [json.loads(line) for line in content.splitlines()]
            server = stack.enter_context(running(folder, resources))
            server.page, server.polls = 500, 0
            where = f'server = "{server.address}/fhir"\nca_file = "{server.ca}"\nfetch = "{fetch}"'
            return text.replace('path = "export"', where)

        agree(served, tmp_path)


@pytest.mark.parametrize("write", [formats.write_postgresql, formats.write_sql_postgresql])
def test_the_same_cohort_in_postgresql_gives_identical_tensors(
    write: Callable[[formats.Written, Path, Server], str], postgresql: Server, tmp_path: Path
) -> None:
    agree(lambda cohort, folder: write(cohort, folder, postgresql), tmp_path)
