"""Arrays in a safetensors file: read by the library, and the same bytes for the same content."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load, save

from consilium.shared.files.tensor_file import tensor_file

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.sampled_from([np.float64, np.float32, np.uint8]).flatmap(
        lambda kind: arrays.arrays(kind, SHAPES)
    ),
    max_size=5,
)
WORDS = st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=5)


def whole(tensors, metadata):
    return b"".join(tensor_file(tensors, metadata))


@given(tensors=TENSORS, metadata=WORDS)
def test_the_library_reads_every_array_and_every_word(tmp_path_factory, tensors, metadata):
    from safetensors import safe_open

    content = whole(tensors, metadata)
    found = load(content)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert found[name].tobytes() == value.tobytes()
    path = tmp_path_factory.getbasetemp() / "read.safetensors"
    path.write_bytes(content)
    with safe_open(path, "numpy") as opened:
        assert (opened.metadata() or {}) == metadata


@given(tensors=TENSORS, metadata=WORDS)
def test_the_order_in_which_content_is_given_changes_no_byte(tensors, metadata):
    turned = dict(reversed(tensors.items())), dict(reversed(metadata.items()))
    assert whole(*turned) == whole(tensors, metadata)


@given(tensors=TENSORS, word=st.text(max_size=20))
def test_with_one_word_of_metadata_the_bytes_are_the_library_s_own(tensors, word):
    assert whole(tensors, {"consilium": word}) == save(tensors, metadata={"consilium": word})


def test_an_array_that_is_no_run_of_memory_is_written_as_it_reads():
    grid = np.arange(12, dtype=">f8").reshape(3, 4).T[::2]
    assert np.array_equal(load(whole({"grid": grid}, {}))["grid"], grid)


def test_numbers_of_another_type_are_refused():
    with pytest.raises(ValueError, match="not in tuple"):
        whole({"whole": np.arange(3)}, {})
