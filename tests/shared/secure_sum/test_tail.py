import numpy as np
import pytest

from consilium.shared.errors import RoundVoidError
from consilium.shared.secure_sum.tail import TAIL, append_tail, check_tail


def test_the_tail_is_appended_to_a_copy():
    vector = np.arange(3, dtype=np.uint32)
    tailed = append_tail(vector, 9)
    assert tailed.tolist() == [0, 1, 2, 1, 9, 0, 0, 0, 0]
    assert tailed.dtype == np.uint32
    tailed[0] = 5
    assert vector[0] == 0


def test_a_right_tail_is_accepted():
    check_tail(np.array([3, 30, 0, 0, 0, 0], np.uint32), survivors=3, weight=30)


@pytest.mark.parametrize("claimed", [0, 29, 31, 2**31])
def test_a_weight_that_is_not_the_declared_sizes_sum_voids_the_round(claimed):
    tail = np.array([3, claimed, 0, 0, 0, 0], np.uint32)
    with pytest.raises(RoundVoidError, match=f"weight is {claimed} and the survivors declared 30"):
        check_tail(tail, survivors=3, weight=30)


@pytest.mark.parametrize("place", [place for place in range(TAIL) if place != 1])
def test_each_coordinate_of_the_tail_is_checked(place):
    tail = np.array([3, 30, 0, 0, 0, 0], np.uint32)
    tail[place] += 1
    with pytest.raises(RoundVoidError, match="check coordinates are wrong"):
        check_tail(tail, survivors=3, weight=30)
