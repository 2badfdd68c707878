"""One cohort, five formats, the same tensors."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from client.features import PatientTensors, to_grid, to_tensors
from client.sources.registry import open_source, read_data_settings
from shared.normalisation import Normalisation
from shared.study import with_changes
from tests.client.sources import cohort_formats as formats

STUDY = with_changes(formats.STUDY, data={"source": "hospital"})


def tensors(text: str, folder: Path) -> tuple[PatientTensors, tuple[str, ...]]:
    settings = read_data_settings(tomllib.loads(text), where="site.toml", folder=folder)
    grid = to_grid(open_source(settings, STUDY).read_patients(STUDY), STUDY)
    return to_tensors(grid, Normalisation.reference(STUDY), STUDY), grid.patient_ids


def csv(cohort: formats.Written, folder: Path) -> str:
    return formats.write_tables(cohort, folder, "csv")


def parquet(cohort: formats.Written, folder: Path) -> str:
    return formats.write_tables(cohort, folder, "parquet", key="patient")


@pytest.mark.parametrize("write", [parquet, formats.write_meds])
def test_the_same_cohort_gives_identical_tensors(
    write: Callable[[formats.Written, Path], str], tmp_path: Path
) -> None:
    cohort = formats.written()
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one, people = tensors(csv(cohort, tmp_path / "one"), tmp_path / "one")
    other, same_people = tensors(write(cohort, tmp_path / "other"), tmp_path / "other")
    assert people == same_people
    for name in ("x_NTF", "mask_NT", "y_N", "patient_N"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert np.isfinite(one.x_NTF.numpy()).all()
    assert float(one.x_NTF.abs().max()) > 1
