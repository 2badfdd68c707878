"""Grids of cells: the names of volumes' variables, and what a branch over a grid may read."""

import re

MOST_TERMS = 1 << 16  # cells of all steps; so many terms a gradient's norm is exact for, to 1e-5
_CELL = re.compile(r"cell-(\d{1,2})-(\d{1,2})-of-(\d{1,2})")


def cell_of(name: str) -> tuple[int, int, int] | None:
    """Return row, column and size of the square grid that a name such as cell-0-3-of-4 says.

    None if it is no cell's.
    """
    found = _CELL.fullmatch(name)
    if found is None:
        return None
    row, column, size = map(int, found.groups())
    return (row, column, size) if max(row, column) < size else None


def check_grid(place: str, series: tuple[str, ...], *, rows: int, kernel: int, steps: int) -> None:
    """Refuse a grid that these series cannot be, row by row.

    Args:
        place: the branch, in words.
        series: names of the series that it reads, in the study's order.
        rows: of the grid.
        kernel: width of a filter.
        steps: of the study's window.

    Raises:
        ValueError: one sentence: what does not fit, and the remedy.
    """
    columns = len(series) // rows
    if not columns or columns * rows != len(series):
        raise ValueError(
            f'{place} has rows = {rows} and reads {len(series)} variables of role "series", '
            "which must be a multiple of it; change rows or inputs"
        )
    if kernel > max(rows, columns):
        raise ValueError(
            f"{place} has kernel = {kernel} on a grid of {rows} x {columns}; lower it to "
            f"{max(rows, columns)} or less"
        )
    if steps * len(series) > MOST_TERMS:
        raise ValueError(
            f"{place} reads {steps} steps of {len(series)} cells, together above {MOST_TERMS}; "
            "choose a coarser grid or fewer steps"
        )
    for number, name in enumerate(series):
        cell = cell_of(name)
        expected = (*divmod(number, columns), rows)
        if cell is not None and cell != expected:
            row, column = expected[:2]
            raise ValueError(
                f"{place} has rows = {rows}, so its variable number {number + 1} must be "
                f"cell-{row}-{column}-of-{rows} and is {name!r}; list a whole grid's cells row by "
                "row"
            )
