"""What every test may rely on: one thread, no chance in Hypothesis but its examples, no traces.

Set here and not in the Makefile, so that one test run by itself behaves as in the whole suite.
"""

import logging
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Before torch or numpy is imported, and inherited by every process that a test starts.
os.environ.update(
    OMP_NUM_THREADS="1",
    FLWR_TELEMETRY_ENABLED="0",
    FLWR_DISABLE_UPDATE_CHECK="1",
    no_proxy="127.0.0.1,localhost",
)
for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "CONSILIUM_JSON_LOGS"):
    os.environ.pop(name, None)  # they change what commands print

# A busy machine is no defect: no deadlines, and no complaint that examples are slow to draw or were
# filtered out. Examples are drawn anew each time and none is kept; a failure prints how to draw it
# again ("@reproduce_failure").
settings.register_profile(
    "consilium",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=(
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ),
)
settings.load_profile("consilium")

# Tests start hundreds of processes; where compiled modules are not kept, each compiles them anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked ``sampled(n)``, all but n of its cases are slow tests; the longest go first.

    The n lie evenly among its cases by name, so they are the same in any order and selection. The
    longest are those of processes: one that began last would keep the whole suite waiting.
    """
    items.sort(key=lambda item: "deployment" not in item.path.parts)
    cases = defaultdict(list)
    for item in items:
        if mark := item.get_closest_marker("sampled"):
            cases[item.nodeid.partition("[")[0], *mark.args].append(item)
    for (_, kept), found in cases.items():
        found.sort(key=lambda item: item.nodeid)
        fast = {found[len(found) * number // kept] for number in range(kept)}
        for item in found:
            if item not in fast:
                item.add_marker("slow")


@pytest.fixture(autouse=True)
def _logs_as_found() -> Iterator[None]:
    """Commands set up a process's logs; the next test must not inherit that."""
    loggers = [logging.getLogger(), *map(logging.getLogger, tuple(logging.root.manager.loggerDict))]
    levels = [logger.level for logger in loggers]
    handlers, show = list(logging.root.handlers), warnings.showwarning
    yield
    logging.captureWarnings(capture=False)
    warnings.showwarning = show
    logging.root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
