"""Reads volumes of NIfTI files, in the patient's orientation."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from consilium.client.sources.common.archives import BadFileError
from consilium.client.sources.recorded.volumes import LARGEST_BYTES, PLAIN, Volume, oriented
from consilium.shared.errors import DataError

SUFFIXES = (".nii", ".nii.gz")
_RAS = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # its slices, rows, columns, in LPS


def nifti_volume(path: Path, plane: str) -> Volume:
    """Return the volume of one file; ``plane`` as of :func:`volumes.oriented`.

    Raises:
        DataError: the package nibabel is missing.
        BadFileError: the file cannot be read, or is no single grey volume.
    """
    try:
        import nibabel  # needed for NIfTI only
    except ImportError as error:
        raise DataError(
            "NIfTI volumes need the package nibabel, which is not installed; "
            "install 'consilium-fl[hospital]'"
        ) from error
    try:
        return _volume(nibabel, path, plane)
    except BadFileError:
        raise
    except Exception as error:  # nibabel's parsing may raise anything
        raise BadFileError("cannot be read as NIfTI; replace the file") from error


def _volume(nibabel: Any, path: Path, plane: str) -> Volume:
    image = nibabel.load(path)
    shape = tuple(int(size) for size in image.shape)
    if len(shape) < 3 or not 0 < math.prod(shape) * 8 <= LARGEST_BYTES or min(shape) < 1:
        raise BadFileError(
            f"has shape {shape}, and needs three axes and at most {LARGEST_BYTES} bytes in all"
        )
    if math.prod(shape[3:]) != 1:
        raise BadFileError(
            f"has shape {shape}, which is a series of volumes in time and not one; write each as a "
            "file of its own (nibabel.four_to_three, fslsplit), or their mean over time as one"
        )
    if image.get_data_dtype().kind not in "iuf":
        raise BadFileError("has voxels that are no real numbers; export a grey volume")
    if len(shape) > 3:
        image = nibabel.Nifti1Image(
            np.asarray(image.dataobj, dtype=np.float64).reshape(shape[:3]), image.affine
        )
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
        raise BadFileError("has an orientation that is no rotation; mend its header")
    voxels = np.asarray(nibabel.as_closest_canonical(image).dataobj, dtype=np.float64)
    right, front, head = voxels.shape
    stored = Volume((head, right, front), PLAIN, lambda number: voxels[:, :, number])
    return oriented(stored, _RAS, "axial" if plane == "acquired" else plane)
