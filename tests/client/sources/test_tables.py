"""A hospital's own tables: what is read, what is refused, and how both are told."""

import gzip
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client.features import Grid, to_grid
from client.sources import Source, assembly
from client.sources.registry import open_source, read_data_settings
from shared.errors import ConsiliumError, DataError
from shared.study import Study
from tests.client.sources.cohort_formats import STUDY, Written, write_tables, written


@pytest.fixture(scope="module")
def cohort() -> Written:
    return written()


def source_of(text: str, folder: Path, study: Study = STUDY) -> Source:
    settings = read_data_settings(tomllib.loads(text), where="site.toml", folder=folder)
    return open_source(settings, study)


def grid_of(text: str, folder: Path, study: Study = STUDY) -> Grid:
    return to_grid(source_of(text, folder, study).read_patients(study), study)


def same(one: Grid, other: Grid) -> bool:
    return (
        np.array_equal(one.value_NTV, other.value_NTV, equal_nan=True)
        and (one.mask_NT == other.mask_NT).all()
        and (one.y_N == other.y_N).all()
        and one.patient_ids == other.patient_ids
        and (one.patient_N == other.patient_N).all()
    )


def test_csv_and_parquet_by_stay_or_by_patient_give_the_same_grid(
    cohort: Written, tmp_path: Path
) -> None:
    grids = []
    for kind in ("csv", "parquet"):
        for key in ("stay", "patient"):
            folder = tmp_path / f"{kind}-{key}"
            folder.mkdir()
            grids.append(grid_of(write_tables(cohort, folder, kind, key=key), folder))
    assert all(same(grids[0], grid) for grid in grids[1:])
    assert grids[0].patients == cohort.stays["patient"].n_unique()
    assert len(grids[0].y_N) == len(cohort.stays)


def test_values_arrive_in_the_studys_units(cohort: Written, tmp_path: Path) -> None:
    source = source_of(write_tables(cohort, tmp_path, "csv"), tmp_path)
    grid = to_grid(source.read_patients(STUDY), STUDY)
    temperature = grid.value_NTV[..., list(STUDY.variables).index("Temp")]
    assert 36 < np.nanmedian(temperature) < 38
    assert source.report.repaired == {}
    assert source.report.out_of_range == {}
    lost = len(cohort.events) - source.report.events + 2 * len(cohort.stays)
    assert lost == source.report.outside_window + source.report.duplicates
