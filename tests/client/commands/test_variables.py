import json

from typer.testing import CliRunner

from consilium.client.cli import app
from consilium.shared.study.definition import parse_study
from consilium.shared.study.dictionary import KNOWN

HEAD = """
name = "small"
title = "Small"
rounds = 1
sites = ["a", "b", "c"]
"""


def test_listed_names_are_those_that_a_study_may_give_alone() -> None:
    shown = CliRunner().invoke(app, ["variables", "--json"])
    assert shown.exit_code == 0
    listed = json.loads(shown.output)
    study = parse_study(
        f'{HEAD}variables = {json.dumps(list(listed))}\n[data]\nsource = "tables"\nlabel = "d"\n'
    )
    assert list(study.variables) == list(listed) == list(KNOWN)
    for name, declared in study.variables.items():
        assert declared.model_dump().items() <= listed[name].items()


def test_table_shows_unit_range_and_codes_of_each_variable() -> None:
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["variables"])
    assert shown.exit_code == 0
    lines = {line.split()[0]: line.split() for line in shown.output.splitlines()}
    assert lines["SysABP"][-6:] == ["mm[Hg]", "20", "to", "300", "8480-6", "3004249"]
    assert lines["Age"][-2:] == ["30525-0", "-"]
