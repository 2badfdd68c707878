"""Every kind of task end to end, privately, on tiny records in the formats as distributed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consilium.shared.study.definition import Study, load_study, with_changes
from consilium.simulations.commands.all_studies import HEADINGS, compare_all
from consilium.simulations.figures.measures import FIGURES
from consilium.simulations.runs.simulate import simulate
from tests.client.sources.tiny_records import (
    parkinsons_csv,
    write_molecules,
    write_physionet2019,
    write_volumes,
)

STUDIES = Path(__file__).parents[2] / "studies"
ASSAYS = {"label": "NR-AR+SR-p53"}
SMALL: dict[str, dict[str, Any]] = {
    "data": {"minimum_patients": 5},
    "training": {"sampling_rate": 0.5},
    "evaluation": {"validation_fraction": 0.3, "every": 2},
    "aggregation": {"server_learning_rate": 0.05, "average_decay": 0.0},
}


def small(name: str, rounds: int, **tables: dict[str, Any]) -> Study:
    study = with_changes(load_study(STUDIES / f"{name}.toml"), study={"rounds": rounds}, **SMALL)
    hidden = {"hidden": 8, "dropout": 0.0, "pooling": "last"}
    return with_changes(study, **({"model": hidden} | tables))


def binary(folder: Path) -> Study:
    write_molecules(folder / "molecules", 200)
    return small("bbbp", 2, data={"window_h": 20})


def multilabel(folder: Path) -> Study:
    write_molecules(folder / "molecules", 200)
    task = {"kind": "multilabel", "outputs": 2}
    return small("tox21", 2, data=ASSAYS | {"window_h": 20}, task=task)


def per_step(folder: Path) -> Study:
    write_physionet2019(folder / "physionet2019", 60)
    return small("sepsis-2019", 2, data={"window_h": 10})


def multiclass(folder: Path) -> Study:
    (folder / "medmnist_adrenal3d").mkdir(parents=True)
    write_volumes(folder / "medmnist_adrenal3d" / "adrenalmnist3d_64.npz", classes=3, volumes=90)
    task = {"kind": "multiclass", "outputs": 3, "prevalence": None}
    return small("adrenal-slices", 2, data={"window_h": 6}, task=task)


def regression(folder: Path) -> Study:
    (folder / "parkinsons_telemonitoring").mkdir(parents=True)
    (folder / "parkinsons_telemonitoring" / "parkinsons_updrs.data").write_text(parkinsons_csv(90))
    return small("parkinsons-progression", 2)


def survival(folder: Path) -> Study:
    draw = np.random.default_rng(5)
    lines = ["id,futime,status,age,sex,day,edema,bili,albumin,alk.phos,ast,platelet,protime,stage"]
    for person in range(240):
        bili = float(np.exp(draw.normal(0.4, 1.0)))
        time = int(min(draw.exponential(9000 / bili), draw.uniform(1500, 5000))) + 200
        status = int(draw.integers(0, 3))
        values = f"0,{bili:.2f},3.5,900,,230,10.5,3"
        lines += [f"{person},{time},{status},50,f,{day},{values}" for day in (0, 190)]
    (folder / "pbc_sequential").mkdir(parents=True)
    (folder / "pbc_sequential" / "pbcseq.csv").write_text("\n".join(lines) + "\n")
    return small("pbc-survival", 2)


KINDS = {
    "binary with codes": (binary, "molecules"),
    "multilabel with unknown labels": (multilabel, "molecules"),
    "binary per step": (per_step, "physionet2019"),
    "multiclass": (multiclass, "medmnist_adrenal3d"),
    "regression per step": (regression, "parkinsons_telemonitoring"),
    "survival": (survival, "pbc_sequential"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_trains_privately_is_validated_by_secure_sums_and_judged(
    kind: str, tmp_path: Path
) -> None:
    prepare, folder = KINDS[kind]
    study = prepare(tmp_path)
    shown: list[dict[str, Any]] = []
    record = simulate(study, tmp_path / folder, tmp_path / "out", workers=2, show=shown.append)
    for figure in FIGURES[study.task.kind]:
        assert np.isfinite(
            [record["test"][figure][bound] for bound in ("value", "low", "high")]
        ).all()
    assert 0 < record["privacy"]["epsilon"] <= study.privacy.epsilon
    validation = record["other_rounds"][-1]["validation"]
    assert validation["loss"] >= 0
    assert len(validation["outputs"]) == (
        0 if study.task.kind in ("regression", "survival") else study.task.outputs
    )
    assert ("accuracy" in validation) == (study.task.kind == "multiclass")
    assert ("mae" in validation) == (study.task.kind == "regression")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["test"] == record["test"]
    page = (tmp_path / "out" / "report.html").read_text()
    shown_figures = set(re.findall(r"<figure id='([a-z0-9-]+)'", page))
    assert {"learning", "epsilon", "seconds", "traffic"} <= shown_figures
    curves = {"survival", "survival-calibration", "survival-intervals", "survival-by-0"}
    assert (curves <= shown_figures) == (study.task.kind == "survival")
    assert ("confusion" in shown_figures) == (study.task.kind == "multiclass")
    assert ("values-0" in shown_figures) == (study.task.kind == "regression")
    calibrations = ["calibration"] * study.calibration_rounds
    assert bool(calibrations) == (study.task.kind in ("binary", "multilabel", "survival"))
    purposes = ["statistics", "training", "training", *calibrations, "evaluation"]
    assert [r["purpose"] for r in shown] == purposes


@pytest.mark.slow
def test_all_studies_make_one_table_and_finished_ones_are_kept(tmp_path: Path) -> None:
    studies, data = tmp_path / "studies", tmp_path / "data"
    studies.mkdir()
    study = per_step(data)
    text = (STUDIES / "sepsis-2019.toml").read_text()
    for given, made in (
        ("rounds = 60", "rounds = 2"),
        ("window_h = 72", "window_h = 10\nminimum_patients = 5"),
        ("hidden = 32", "hidden = 4"),
    ):
        assert given in text
        text = text.replace(given, made)
    (studies / "sepsis.toml").write_text(text)
    shutil.copy(STUDIES / "heart-disease.toml", studies)
    begun: list[str] = []
    ended: list[str] = []

    def compare() -> list[tuple[str, ...]]:
        return compare_all(
            studies, data, tmp_path / "out", workers=2,
            watch=lambda setting, _: lambda _: begun.append(setting),
            begin=lambda study: None, end=lambda study, found, folder: ended.append(study.name),
        )  # fmt: skip

    rows = compare()
    missing, sepsis, at_a, at_b = (dict(zip(HEADINGS, row, strict=True)) for row in rows)
    assert missing["figure"] == "no records in heart_disease"
    assert sepsis["study"] == study.name
    assert sepsis["figure"] == "AUROC"
    for heading in ("each alone", "pooled", "federated"):
        assert 0 <= float(sepsis[heading]) <= 1
    assert sepsis["federated, private"].endswith("(ε 8.0)")
    assert "logistic" in sepsis["without recurrence"]
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == 6
    settings = json.loads((tmp_path / "out" / study.name / "compare.json").read_text())["settings"]
    assert (at_a["study"], at_b["study"]) == (f"{study.name}, at A", f"{study.name}, at B")
    of_a, of_b = (
        settings["local"]["sites"][who]["groups"]["A"]["auroc"]["value"] for who in ("A", "B")
    )
    assert at_a["each alone"] == f"{of_a:.3f} own, {of_b:.3f} the other's"
    pooled_at_b = settings["pooled"]["test_groups"]["B"]["auroc"]["value"]
    assert at_b["pooled"] == f"{pooled_at_b:.3f}"
    assert set(settings["local"]["sites"]) == {"A", "B"}
    assert set(settings["local"]["sites"]["A"]["groups"]) == {"A", "B"}
    begun.clear()
    assert compare() == rows
    assert begun == []
    assert ended == [study.name, study.name]
