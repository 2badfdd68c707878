"""The notebook in examples/ runs from its first cell to its last, as it is committed."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[3] / "examples" / "first_study.ipynb"


@pytest.fixture(scope="module")
def notebook() -> dict:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def test_it_has_the_form_of_a_notebook_and_no_output_of_anybodys_machine(notebook: dict) -> None:
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.slow
def test_every_cell_runs_in_order(
    notebook: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            code = compile("".join(cell["source"]), f"cell {cell['id']}", "exec")
            exec(code, names)  # noqa: S102 - as a kernel does
    assert names["mine"].test.auroc.value > 0.7  # it has learned what was planted
    assert names["result"].epsilon <= names["study"].privacy.epsilon
    printed = capsys.readouterr().out
    assert "study heart-rate: nothing says where its records are" in printed
    assert list(tmp_path.iterdir()) == []
