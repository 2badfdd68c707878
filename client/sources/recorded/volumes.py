"""A volume as slices in one orientation, however a scanner or program stored it.

Slices are images as a radiologist sees them: in the axial plane rows run from front to back and
columns from the patient's right to the left, slices from the feet to the head; in the coronal plane
rows run from head to feet, columns from right to left, slices from front to back; in the sagittal
plane rows run from head to feet, columns from front to back, slices from right to left.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consilium.client.sources.common.archives import BadFileError

HOUNSFIELD, PLAIN = "[hnsf'U]", "1"
LARGEST_BYTES = 1 << 30  # of a file, and of a volume in memory
ACQUIRED = "acquired"

# Slices, rows and columns as axes of LPS (0 left, 1 back, 2 head) with their signs.
PLANES = MappingProxyType(
    {
        "axial": ((2, 1), (1, 1), (0, 1)),
        "coronal": ((1, 1), (2, -1), (0, 1)),
        "sagittal": ((0, 1), (2, -1), (1, 1)),
    }
)


@dataclass(frozen=True)
class Volume:
    """One volume: shape (slices, rows, columns), unit, and a function for one slice.

    ``places`` has the slices' places along their axis, in mm, ascending; empty if they are
    not known or all at the same distance.
    """

    shape: tuple[int, ...]
    unit: str
    slice: Callable[[int], NDArray[Any]]
    places: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


def oriented(volume: Volume, axes: NDArray[np.float64], plane: str) -> Volume:
    """Return the volume with its slices in ``plane``, and no voxel changed or mixed.

    Each axis of the voxels goes to the axis of the patient that is nearest to it.

    Args:
        volume: as it was stored.
        axes: (3, 3); row n is the direction, in LPS, in which axis n (slices, rows, columns) of the
            voxels grows.
        plane: one of PLANES, or ACQUIRED: then the slices stay as they are stored.

    Raises:
        BadFileError: the volume is too large to be held while its slices are cut anew.
    """
    if plane == ACQUIRED:
        return volume
    nearest = max(
        itertools.permutations(range(3)),
        key=lambda way: sum(abs(float(axes[axis, along])) for axis, along in enumerate(way)),
    )
    order = [nearest.index(along) for along, _ in PLANES[plane]]
    flips = [
        float(axes[axis, along]) * sign < 0
        for axis, (along, sign) in zip(order, PLANES[plane], strict=True)
    ]
    slices, rows, columns = (volume.shape[axis] for axis in order)
    turn = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips[1:])
    if order[0] == 0:  # the slices are those of the file, so one at a time is enough
        swap = order[1] > order[2]
        places = -volume.places[::-1] if flips[0] else volume.places

        def one(number: int) -> NDArray[Any]:
            image = volume.slice(slices - 1 - number if flips[0] else number)
            return (image.T if swap else image)[turn]

        return Volume((slices, rows, columns), volume.unit, one, places)
    if math.prod(volume.shape) * 8 > LARGEST_BYTES:
        raise BadFileError(
            f"has {volume.shape} voxels, which its slices in the {plane} plane need in memory at "
            f"once, above {LARGEST_BYTES} bytes; set [data] plane = 'acquired'"
        )
    held: list[NDArray[Any]] = []

    def cut(number: int) -> NDArray[Any]:
        if not held:
            whole = np.stack([volume.slice(place) for place in range(volume.shape[0])])
            held.append(whole.transpose(order))
        image: NDArray[Any] = held[0][slices - 1 - number if flips[0] else number]
        return image[turn]

    return Volume((slices, rows, columns), volume.unit, cut)


def chosen_slices(volume: Volume, steps: int) -> NDArray[np.int64]:
    """Return which slices (steps,) lie at even distances along the volume."""
    slices = volume.shape[0]
    if not volume.places.size:
        return np.round(np.linspace(0, slices - 1, steps)).astype(np.int64)
    wanted = np.linspace(volume.places[0], volume.places[-1], steps)
    away = np.abs(volume.places[None, :] - wanted[:, None])
    return np.asarray(away.argmin(axis=1), dtype=np.int64)
