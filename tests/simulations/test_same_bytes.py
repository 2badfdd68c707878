"""The same study run twice, in two processes, writes the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = """
name = "same"
title = "Same"
rounds = 2
sites = ["hospital-1", "hospital-2", "hospital-3"]
[data]
source = "synthetic-icu"
label = "In-hospital_death"
[model]
hidden = 4
[training]
local_steps = 1
sampling_rate = 0.2
[privacy]
mode = "none"
[evaluation]
validation_fraction = 0.3
subgroups = { Gender = { cuts = [0.5], names = ["female", "male"] } }
[variables]
HR = { unit = "/min", low = 10, high = 300, center = 85, spread = 18 }
Gender = { unit = "1", low = 0, high = 1, center = 0, spread = 1, role = "static" }
"""
RUN = """
import json, sys
from pathlib import Path
from consilium.shared.study.definition import parse_study
from consilium.simulations.runs.export import export_run
from consilium.simulations.runs.simulate import simulate
from consilium.simulations.report.files import write_report
from consilium.simulations.report.records import RUN, write_json

def untimed(told):
    if isinstance(told, dict):
        return {k: untimed(v) if k not in TIMES else clock(v) for k, v in told.items()}
    return [untimed(part) for part in told] if isinstance(told, list) else told

def clock(told):
    return dict.fromkeys(told, 1.0) if isinstance(told, dict) else 1.0

TIMES = ("seconds", "phases")
out, workers = Path(sys.argv[1]), int(sys.argv[2])
study = parse_study(sys.stdin.read())
simulate(study, None, out, workers=workers, show=lambda _: None, protocol=True, alone=False)
export_run(out, out / "exported", onnx=True)
write_json(out / RUN, untimed(json.loads((out / RUN).read_text())))
write_report(out)
"""
OF_ONE_RUN = {
    "checkpoint.safetensors": "the run's random name, and how long each round took",
    "export.pem": "a key",
    "exported/manifest.json": "when it was made, and whose key signs",
    "exported/manifest.sig": "signs the manifest",
    "sites/*/identity.pem": "a key",
    "sites/*/journal.sqlite": "the run's random name and the keys of its rounds",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_equal_runs_without_privacy_write_equal_bytes_in_every_file_without_times(tmp_path):
    """Beside ``run.json``, whose times are made equal before the report is written again."""
    pytest.importorskip("onnxruntime")
    folders = [tmp_path / "first", tmp_path / "second"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, folder, str(workers)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(workers)},
            stdin=subprocess.PIPE,
            text=True,
        )
        for folder, workers in zip(folders, (1, 3), strict=True)
    ]
    for run in runs:
        run.communicate(STUDY, timeout=500)
        assert run.returncode == 0
    first, second = map(files, folders)
    assert first.keys() == second.keys()
    assert {"run.json", "report.html", "model.safetensors", "exported/model.onnx"} <= first.keys()
    different = {name for name in first if first[name] != second[name]}
    assert {n for n in different if not any(Path(n).match(p) for p in OF_ONE_RUN)} == set()


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
