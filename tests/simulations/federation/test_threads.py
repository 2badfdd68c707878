"""Inside the block libraries compute in one thread; after it in as many as before."""

import numpy as np
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from consilium.simulations.federation.threads import one_thread_each


def blas() -> list[int]:
    np.ones(2) @ np.ones(2)
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def test_one_thread_inside_and_as_many_as_before_after_it() -> None:
    torch_before = torch.get_num_threads()
    try:
        with threadpool_limits(limits=2, user_api="blas"):
            torch.set_num_threads(2)
            before = blas()
            assert before
            with one_thread_each():
                assert set(blas()) == {1}
                assert torch.get_num_threads() == 1
            assert blas() == before
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(torch_before)
