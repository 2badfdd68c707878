"""A time until an event, or until nobody looked any more, as labels of a study's intervals.

The label of an interval is 1 if the event came in it, 0 if the patient lived through it without,
and NaN if that is not known: after the event, and from where the patient was lost. One who was lost
in the second half of an interval counts as having lived through it, one lost in the first half is
left out of it (Gensheimer and Narasimhan 2019, PeerJ 7:e6257, section 2), so that hazards are
right on average where losses are spread evenly over an interval.
"""

import numpy as np
from numpy.typing import NDArray

from consilium.shared.errors import DataError
from consilium.shared.study.training import Task


def interval_labels(
    time_N: NDArray[np.float64], event_N: NDArray[np.float64], task: Task, where: str
) -> NDArray[np.float32]:
    """Return the labels (N, K) of the study's K intervals.

    An event at the very end of an interval belongs to it; one at time 0 to the first. All labels
    are NaN where time and event are both unknown, or the time ended by the task's ``start``.

    Args:
        time_N: from where the study counts, in its ``time_unit``; NaN if unknown.
        event_N: 1 if the event ended the time, 0 if the patient was lost then; NaN if unknown.
        task: of kind "survival".
        where: what was read, for errors.

    Raises:
        DataError: a time is negative or infinite with an event, an event is neither 0 nor 1, or
            one of the two is missing; says how many.
    """
    nameless_N = np.isnan(time_N) != np.isnan(event_N)
    for wrong_N, what, remedy in (
        (nameless_N, "have a time or an event, and not both", "fill both, or leave both empty"),
        (
            ~np.isnan(event_N) & ~np.isin(event_N, (0.0, 1.0)),
            "have an event that is neither 0 (lost) nor 1 (it came)",
            "say what its codes mean in values",
        ),
        (time_N < 0, "have a negative time", "correct them, or leave time and event empty"),
        (
            np.isinf(time_N) & (event_N == 1),
            "have an event at no finite time",
            "correct them, or leave time and event empty",
        ),
    ):
        if wrong_N.any():
            raise DataError(f"{where}: {int(wrong_N.sum())} stays {what}; {remedy}")
    low_K = np.array([task.start, *task.cuts[:-1]])
    high_K = np.array(task.cuts)
    time_N1, event_N1 = time_N[:, None], event_N[:, None] == 1
    after_K = (time_N1 > low_K) | ((low_K == 0) & (time_N1 == 0))
    came_NK = event_N1 & after_K & (time_N1 <= high_K)
    lost_NK = ~event_N1 & (time_N1 < high_K) & (time_N1 < (low_K + high_K) / 2)
    lived_NK = (time_N1 > low_K) & ~came_NK & ~lost_NK & (~event_N1 | (time_N1 > high_K))
    label_NK = np.full(came_NK.shape, np.nan, dtype=np.float32)
    label_NK[lived_NK] = 0.0
    label_NK[came_NK] = 1.0
    began_N = (time_N > task.start) | (task.start == 0)
    label_NK[~began_N] = np.nan
    return label_NK


def by_each_cut(label_NK: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return whether the event had come by each cut (N, K): 1, 0, or NaN where it is not known."""
    came_NK = np.maximum.accumulate(np.where(label_NK == 1, 1.0, 0.0), axis=1)
    return np.where(came_NK == 1, 1.0, label_NK).astype(np.float32)


def interval_names(task: Task) -> tuple[str, ...]:
    """Return a name for the risk by each cut, such as "by 30 days"."""
    return tuple(f"by {cut:g} {task.time_unit}" for cut in task.cuts)
