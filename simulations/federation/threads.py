"""One thread for each site: for PyTorch, and for the linear algebra behind NumPy."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let libraries compute in one thread inside the block, and in as many as before after it.

    The sites run in parallel, and results must not depend on how a product is split. OpenBLAS
    would use all cores for a vector of ten thousand numbers, and wait for them in a loop.
    """
    import torch  # NumPy's libraries are loaded with it
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
