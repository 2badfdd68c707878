"""Pools the slices of a volume: a mean for each cell of a grid."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BadFileError
from consilium.client.sources.recorded.volumes import Volume, chosen_slices
from consilium.shared.errors import DataError
from consilium.shared.study.definition import Study
from consilium.shared.study.grid import cell_of
from consilium.shared.study.input_names import series_names

MOST_SLICES, MOST_PIXELS = 4096, 1 << 24


Cell = tuple[int, int, int]


def pooled(volume: Volume, cells: Mapping[int, Cell], study: Study) -> NDArray[np.float64]:
    """Return the means over grid cells (T, V) of slices at even distances along the volume.

    A pixel that is missing (NaN) is left out of its cell's mean; a cell without any is missing.

    Args:
        volume: the slices.
        cells: row, column and size of the grid, by the index of their variable; other columns of
            the result are NaN.
        study: says how many slices are taken, and the unit.

    Raises:
        BadFileError: the volume is too large or empty, or its unit is not the study's.
    """
    slices, rows, columns = volume.shape
    largest = max(size for _, _, size in cells.values())
    if not (0 < slices <= MOST_SLICES and largest <= min(rows, columns)):
        raise BadFileError(
            f"has {slices} slices of {rows} x {columns}, and needs 1 to {MOST_SLICES} slices of at "
            f"least {largest} x {largest}"
        )
    if rows * columns > MOST_PIXELS:
        raise BadFileError(f"has slices of {rows} x {columns}, above {MOST_PIXELS} pixels")
    for name in series_names(study):
        if (wanted := study.variables[name].unit) != volume.unit:
            raise BadFileError(
                f"is in unit {volume.unit!r}, and the study wants {wanted!r} for {name}"
            )
    value_TV = np.full((study.data.steps, len(study.variables)), np.nan)
    columns_of_cells = list(cells)
    pooled_before: dict[int, NDArray[np.float64]] = {}
    for step, place in enumerate(map(int, chosen_slices(volume, study.data.steps))):
        if place not in pooled_before:
            pooled_before[place] = _means(volume, place, cells.values())
        value_TV[step, columns_of_cells] = pooled_before[place]
    return value_TV


def _means(volume: Volume, place: int, cells: Collection[Cell]) -> NDArray[np.float64]:
    _, rows, columns = volume.shape
    image = np.asarray(volume.slice(place), dtype=np.float64)
    if image.shape != (rows, columns):
        raise BadFileError(f"has a slice of another size than {rows} x {columns}")
    if np.isinf(image).any():
        raise BadFileError("has a pixel that is not finite")
    means_V = np.full(len(cells), np.nan)
    for number, (row, column, size) in enumerate(cells):
        part = image[
            row * rows // size : (row + 1) * rows // size,
            column * columns // size : (column + 1) * columns // size,
        ]
        known = part[~np.isnan(part)]
        if known.size:
            means_V[number] = known.mean()
    return means_V


def named_cell(name: str) -> Cell:
    """Return row, column and size of the grid that a variable's name says.

    Raises:
        DataError: the name is no cell's.
    """
    found = cell_of(name)
    if found is None:
        raise DataError(
            f"image-slices has no variable {name!r}; write 'cell-R-C-of-G', R and C counted from 0 "
            "and below G, as in 'cell-0-3-of-4'"
        )
    return found
