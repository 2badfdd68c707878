"""The one table at the end of `make bench`: what each script measured, in rows.

    python benchmarks/parts/table.py ROWS        print the table of the rows in a file

A script calls :func:`add_row` for each comparison it makes. The row is written, as a line of JSON,
to the file named by ``BENCH_ROWS``; without that variable, as when a script is run by itself,
nothing is written.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

ROWS = "BENCH_ROWS"
NAMES = ("measure", "ours", "rival", "ratio", "floor", "beside")


def add_row(
    measure: str,
    ours: float,
    *,
    unit: str,
    rival: float | None = None,
    beside: str = "",
    floor: float | None = None,
) -> None:
    """Note one comparison of a script.

    Args:
        measure: what was measured, of which shape.
        ours: our figure; less is better.
        unit: of all figures of the row.
        rival: the rival's figure in the same run; None where there is no rival.
        beside: who the rival is and how it is set, or what bound ``rival`` stands for.
        floor: the least that any program could reach, where that was measured.
    """
    if place := os.environ.get(ROWS):
        row = {"measure": f"{measure}, {unit}", "ours": ours, "rival": rival, "floor": floor}
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | {"beside": beside}) + "\n")


def as_text(lines: Iterable[str]) -> str:
    """Return the table of rows that :func:`add_row` wrote, one a line."""
    table = [NAMES]
    for row in map(json.loads, lines):
        ratio = "" if row["rival"] is None else f"{row['ours'] / row['rival']:.2g}x"
        figures = (_figure(row["ours"]), _figure(row["rival"]), ratio, _figure(row["floor"]))
        table.append((row["measure"], *figures, row["beside"]))
    widths = [max(len(line[column]) for line in table) for column in range(len(NAMES))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 1 <= column <= 4 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    print(as_text(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()))
