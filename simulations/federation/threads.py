"""One thread for each site: for PyTorch, and for the linear algebra behind NumPy."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let libraries compute in one thread inside the block, and in as many as before after it.

    The sites run in parallel, and results must not depend on how a product is split. OpenBLAS
    would use all cores for a vector of ten thousand numbers, and wait for them in a loop.
    """
    import torch

    before = torch.get_num_threads()
    try:
        with one_thread_from_now_on():
            yield
    finally:
        torch.set_num_threads(before)


def one_thread_from_now_on() -> AbstractContextManager[object]:
    """Let libraries compute in one thread, as a process does that serves others to its end.

    What it returns gives NumPy's threads back when it is left as a context.
    """
    import torch  # NumPy's libraries are loaded with it
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits
