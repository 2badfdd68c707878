"""Benchmarks are run by hand; what they import must still be there when someone does."""

import runpy
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch

from consilium.client.records.cohort import read_cohort, require_suitable
from consilium.shared.model.card_check import find_card
from tests.emulated_card import emulated_card

FOLDER = Path(__file__).parents[1] / "benchmarks"
IMPORT_ALL = """
import runpy, sys

sys.path.insert(0, sys.argv[1])
for script in sys.argv[2:]:
    runpy.run_path(script, run_name="imported")
    print(script)
"""


@pytest.mark.slow
def test_every_benchmark_finds_what_it_imports() -> None:
    scripts = [str(path) for path in sorted(FOLDER.glob("*.py"))]
    assert len(scripts) >= 5
    command = [sys.executable, "-c", IMPORT_ALL, str(FOLDER), *scripts]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == scripts


def test_no_benchmark_hides_a_module_of_a_library() -> None:
    """A script's folder comes first where modules are looked for; PyTorch looks for ``cuda``."""
    libraries = {name.partition(".")[0] for name in packages_distributions()} | {"cuda"}
    own = {path.stem for path in FOLDER.iterdir()} - {"__pycache__"}
    assert own >= {"graphics_card", "parts"}
    assert own.isdisjoint(libraries | sys.stdlib_module_names)


@pytest.mark.slow
def test_without_a_graphics_card_its_benchmark_says_so_and_is_content(monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["graphics_card.py"])
    find_card.cache_clear()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / "graphics_card.py"), run_name="__main__")
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    find_card.cache_clear()
    assert ended.value.code == 0
    assert capsys.readouterr().out == (
        "PyTorch finds no graphics card here, so the processor is used; nothing was measured\n"
    )


@pytest.mark.slow
def test_the_benchmark_of_a_graphics_card_checks_and_measures_an_emulated_one(
    monkeypatch, capsys
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    benchmark = runpy.run_path(str(FOLDER / "graphics_card.py"), run_name="imported")
    found = benchmark["main"].__globals__
    monkeypatch.setitem(found, "find_card", lambda: (emulated_card(), "a card"))
    monkeypatch.setitem(found, "TURNS", 1)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    monkeypatch.setattr(sys, "argv", ["graphics_card.py", "small"])
    assert benchmark["main"]() == 0
    told = capsys.readouterr().out
    assert "1e-05 allowed" in told
    assert "fails" not in told
    assert told.count(" ms") == 6


def test_each_of_a_thousand_invented_hospitals_can_take_part(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from parts.hospitals import Hospital, study_of

    study = study_of(1000, rounds=1, mode="distributed")
    for number in (*range(0, 1000, 50), 255):  # the last had nobody with the outcome, by chance
        site = study.sites[number]
        cohort = read_cohort(Hospital(site, number), study, site=site, split_key=bytes(32))
        require_suitable(cohort, study, site=site, minimum_patients=5)


def test_the_table_of_all_benchmarks_has_a_line_for_each_comparison(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from parts.table import ROWS, add_row, as_text

    monkeypatch.delenv(ROWS, raising=False)
    add_row("not asked for", 1.0, unit="s")
    rows = tmp_path / "rows"
    monkeypatch.setenv(ROWS, str(rows))
    add_row("a round", 0.5, unit="s", rival=16.5, beside="Flower's default path", floor=0.1)
    add_row("memory", 12345.0, unit="MiB")
    assert as_text(rows.read_text().splitlines()).splitlines() == [
        "measure        ours  rival  ratio  floor  beside",
        "a round, s      0.5   16.5  0.03x    0.1  Flower's default path",
        "memory, MiB  12,345",
    ]


def test_the_benchmark_page_takes_a_finished_comparison_as_it_is(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from parts import page

    import consilium
    from consilium.simulations.report.records import write_json
    from tests.simulations.report.made_up import estimate, group, record_of

    study = consilium.example_study("demo")
    plain = consilium.with_changes(study, privacy={"mode": "none"})
    groups = [group("all", "all"), group("site", "hospital-1")]
    gains = {"gradient-boosting": {"auroc": estimate(-0.01)}}
    rival = record_of(plain)
    ours = record_of(plain, groups=groups) | {"against": gains}
    private = record_of(study, groups=groups) | {"against": gains}
    private["privacy"] |= {"epsilon": 7.9}
    settings = {"gradient-boosting": rival, "local": ours, "pooled": ours, "federated": ours,
                "federated-private": private}  # fmt: skip
    content = {"schema": 1, "study_digest": study.digest.hex(), "settings": settings}
    write_json(tmp_path / "demo" / "compare.json", content)

    made = []
    monkeypatch.setattr(consilium, "compare", lambda *_, **options: made.append(options["out"]))
    entry = page.Entry(name="demo", epsilons=(8.0,), seeds=1, published=(("XGBoost", ".8", ".5"),),
                       alarms=True)  # fmt: skip
    found = page.comparison_of(entry, None, tmp_path / "demo")
    assert made == []
    page.draw([found], tmp_path / "figure.svg")
    text = page.page([(entry, found)], "figure.svg")
    assert "| federated, private, epsilon 7.9 | 0." in text
    assert "| -0.010 (-0.030 to 0.010) |" in text
    assert "| *XGBoost, published* | .8 | .5 | | |" in text
    assert "hospital-1: with alarms in" in text
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")

    page.comparison_of(
        page.Entry(name="demo", epsilons=(8.0, 3.0), seeds=1), None, tmp_path / "demo"
    )
    del settings["federated"]["against"]
    write_json(tmp_path / "demo" / "compare.json", content)
    page.comparison_of(entry, None, tmp_path / "demo")
    page.comparison_of(entry, None, tmp_path / "nothing")
    assert made == [tmp_path / "demo", tmp_path / "demo", tmp_path / "nothing"]
