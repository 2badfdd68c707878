"""Orientation: one volume gives one sequence, however it was stored, in DICOM and NIfTI alike."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consilium.client.sources.recorded.volumes import PLAIN, PLANES, Volume, chosen_slices, oriented
from tests.client.sources.recorded.dicom_maker import write_slice, write_table
from tests.client.sources.recorded.test_scans import read, study

BODY = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # [head, back, left], as the axial plane is seen
WAYS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def stored(order: tuple[int, ...], signs: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the body as a scanner may store it, and the direction of each axis in LPS."""
    axes = np.eye(3)[[2, 1, 0]][list(order)] * np.array(signs)[:, None]
    turns = tuple(slice(None, None, sign) for sign in signs)
    return BODY.transpose(order)[turns], axes


def slices_of(volume: Volume) -> np.ndarray:
    return np.stack([volume.slice(number) for number in range(volume.shape[0])])


@given(st.sampled_from(WAYS), st.sampled_from(sorted(PLANES)))
@settings(deadline=None)
def test_every_way_to_store_a_volume_gives_the_same_slices(way: tuple, plane: str) -> None:
    voxels, axes = stored(*way)
    tilted = axes + 0.1 * np.roll(axes, 1, axis=1)  # a gantry that is not quite straight
    volume = oriented(Volume(voxels.shape, PLAIN, lambda n: voxels[n]), tilted, plane)
    right = {
        "axial": BODY,
        "coronal": BODY.transpose(1, 0, 2)[:, ::-1],
        "sagittal": BODY.transpose(2, 0, 1)[:, ::-1],
    }[plane]
    assert volume.shape == right.shape
    assert np.array_equal(slices_of(volume), right)


def test_slices_as_acquired_are_left_alone() -> None:
    voxels, axes = stored((1, 0, 2), (-1, 1, 1))
    volume = oriented(Volume(voxels.shape, PLAIN, lambda n: voxels[n]), axes, "acquired")
    assert np.array_equal(slices_of(volume), voxels)


@given(st.integers(1, 40), st.integers(1, 40))
def test_slices_at_even_distances_begin_and_end_with_the_volume(slices: int, steps: int) -> None:
    volume = Volume((slices, 1, 1), PLAIN, lambda n: BODY[0])
    known = Volume((slices, 1, 1), PLAIN, lambda n: BODY[0], np.arange(slices) * 2.0)
    for one in (volume, known):
        places = chosen_slices(one, steps)
        assert len(places) == steps
        assert places[0] == 0
        assert (np.diff(places) >= 0).all()
        assert steps == 1 or places[-1] == slices - 1


@pytest.mark.parametrize("way", [WAYS[0], WAYS[11], WAYS[21], WAYS[38], WAYS[47]])
def test_dicom_and_nifti_of_one_volume_are_the_same_input(way: tuple, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    body = np.arange(4 * 4 * 4).reshape(4, 4, 4)
    order, signs = way
    turns = tuple(slice(None, None, sign) for sign in signs)
    voxels = body.transpose(order)[turns]
    axes = np.eye(3)[[2, 1, 0]][list(order)] * np.array(signs)[:, None]
    for z in range(4):
        orientation = (*axes[2], *axes[1])
        normal = np.cross(axes[2], axes[1])
        write_slice(
            tmp_path / "dicom" / "a" / f"{z}.dcm", voxels[z], number=z + 1,
            position=tuple(axes[0] * z), orientation=orientation,
        )  # fmt: skip
        assert abs(normal @ axes[0]) == 1
    write_table(tmp_path / "dicom", {"a": 0})
    nifti = tmp_path / "nifti"
    write_table(nifti, {"a": 0})
    affine = np.eye(4)
    affine[:3, :3] = (axes * np.array([-1, -1, 1])).T  # NIfTI is in RAS
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), affine), nifti / "a.nii.gz")
    asked = study(cells=2)
    one, other = (read(tmp_path / kind, asked)[0][0].stays[0] for kind in ("dicom", "nifti"))
    assert one.value_E.tolist() == other.value_E.tolist()
    cell = body.reshape(4, 2, 2, 2, 2).mean(axis=(2, 4)).reshape(-1)
    assert one.value_E.tolist() == cell.tolist()


def test_a_missing_voxel_is_left_out_and_an_axis_of_one_is_none(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.ones((4, 4, 4, 1), dtype=np.float32)
    voxels[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii")
    write_table(tmp_path, {"a": 0})
    assert read(tmp_path)[0][0].stays[0].value_E.tolist() == [1.0] * 4


def test_a_files_slope_is_applied_and_several_volumes_in_one_are_refused(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    from consilium.shared.errors import DataError

    image = nibabel.Nifti1Image(np.full((4, 4, 4), 3, dtype=np.int16), np.eye(4))
    image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / "a.nii")
    write_table(tmp_path, {"a": 0})
    assert read(tmp_path)[0][0].stays[0].value_E.tolist() == [7.0] * 4
    many = nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), dtype=np.int16), np.eye(4))
    nibabel.save(many, tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"volume a: has shape .* which is a series of volumes"):
        read(tmp_path)
