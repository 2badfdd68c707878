"""A small valid study for tests, with any table's keys replaced."""

from consilium.shared.study.definition import Study, parse_study

TEXT = """
schema = 1
name = "small"
title = "A small study"
rounds = 10
sites = ["a", "b", "c"]
[data]
source = "tables"
label = "y"
[variables.hr]
unit = "1/min"
low = 0.0
high = 300.0
center = 80.0
spread = 20.0
"""


def small_study(*, rounds: int = 10, **tables: dict[str, object]) -> Study:
    content = parse_study(TEXT).model_dump(by_alias=True)
    content["rounds"] = rounds
    for table, changes in tables.items():
        content[table] = {**(content[table] or {}), **changes}
    return Study.model_validate(content)
