"""An update that leaves is finite and no longer than the study says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consilium.client.round.update import clip_update, weight_difference
from consilium.shared.errors import EncodingError

UPDATES = arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6))


@given(UPDATES, st.floats(1e-3, 1e3))
def test_a_clipped_update_is_never_longer_than_the_bound(update, norm) -> None:
    assert np.linalg.norm(clip_update(update, norm)) <= norm * (1 + 1e-12)


@given(UPDATES)
def test_a_short_update_is_left_as_it_is(update) -> None:
    assert clip_update(update, float(np.linalg.norm(update)) + 1) is update


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(EncodingError, match="not finite; nothing was sent"):
        clip_update(np.array([0.0, value]), 1.0)


def test_the_difference_is_taken_in_double_precision() -> None:
    trained, old = np.float32([1.0000001]), np.float32([1.0])
    assert weight_difference(trained, old)[0] == float(trained[0]) - 1.0
