"""What starts fast stays so: no heavy library is imported before something needs it."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = (
    "torch", "sklearn", "scipy", "flwr", "matplotlib", "polars", "opacus", "numpy", "pydantic",
    "sqlalchemy", "ray",
)  # fmt: skip
LOADED = "import json, sys; print(json.dumps([name for name in {names!r} if name in sys.modules]))"
HELP = """
import contextlib, io, sys
from {module} import {name}
with contextlib.redirect_stdout(io.StringIO()) as said:
    try:
        {call}
    except SystemExit as ended:
        assert ended.code == 0, ended.code
assert "Usage" in said.getvalue()
"""
EVERY = """
import typer
def walk(path, command):
    with contextlib.suppress(SystemExit):
        app([*path, "--help"], prog_name="x")
    for name, one in getattr(command, "commands", {}).items():
        walk([*path, name], one)
with contextlib.redirect_stdout(io.StringIO()) as said:
    walk([], typer.main.get_command(app))
assert said.getvalue().count("Usage") > 9
"""
COMMANDS = ("consilium.client.cli", "consilium.server.cli", "consilium.simulations.cli")


def loaded_after(code, names=HEAVY, **environment):
    """Which of these modules a fresh process has imported after this code."""
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{LOADED.format(names=names)}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_the_probe_sees_a_heavy_import():
    assert "numpy" in loaded_after("import consilium, numpy")


def test_importing_consilium_imports_no_other_library():
    assert loaded_after("import consilium", (*HEAVY, "typer", "cryptography", "httpx")) == []


@pytest.mark.parametrize("module", COMMANDS)
def test_help_imports_no_heavy_library(module):
    call = "sys.argv = ['x', '--help']; main()"
    assert loaded_after(HELP.format(module=module, name="main", call=call)) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("module", COMMANDS)
def test_the_help_of_every_subcommand_imports_no_heavy_library(module):
    code = HELP.format(module=module, name="app", call="app(['--help'], prog_name='x')") + EVERY
    assert loaded_after(code) == []


def test_the_process_of_a_site_without_a_study_imports_nothing_that_trains_or_reads_records():
    code = """
import contextlib, pathlib
import consilium.client.service.process
from consilium.client.cli import start
from consilium.shared.errors import SettingsError
with contextlib.suppress(SettingsError):
    start(pathlib.Path("nowhere"))
"""
    heavy = ("flwr", "torch", "sklearn", "matplotlib", "polars", "opacus", "sqlalchemy",
             "scipy.optimize", "scipy.stats")  # fmt: skip
    assert loaded_after(code, heavy) == ["flwr"]


@pytest.mark.slow
def test_a_simulation_computes_on_one_thread_whatever_the_environment_says():
    code = """
import contextlib, io, sys
import torch
from threadpoolctl import threadpool_info
from consilium.simulations.cli import main
from consilium.simulations.commands import doctor
inside = []

def look(*given, **named):
    blas = [one["num_threads"] for one in threadpool_info() if "numpy.libs" in one["filepath"]]
    inside.append((torch.get_num_threads(), set(blas)))
    raise SystemExit

doctor.checkup = look
sys.argv = ["consilium-simulate", "doctor"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
assert inside == [(1, {1})], inside
"""
    assert "torch" in loaded_after(code, OMP_NUM_THREADS="2")


@pytest.mark.slow
def test_the_modules_of_a_running_site_do_not_import_opacus():
    code = """
import consilium.client.round.session
import consilium.client.service.process
import consilium.simulations.federation.run
from consilium.shared.model.module_check import check_modules
from consilium.shared.model.study_model import study_model
from tests.study_text import small_study
check_modules(small_study())
study_model(small_study())
"""
    assert loaded_after(code, ("torch", "flwr", "opacus")) == ["torch", "flwr"]


@pytest.mark.slow
def test_whoever_counts_persons_or_goes_on_with_a_study_does_without_what_trains():
    """Approving and preflight read records; a study's process that is started again only sums."""
    code = """
import consilium.client.commands.decisions
import consilium.client.service.preflight
import consilium.client.service.site_cohort
import consilium.server.service.study_process
"""
    assert loaded_after(code, ("torch", "scipy")) == []
