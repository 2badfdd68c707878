"""This process's connection to Ray: to a cluster that is there, or to one started on this machine.

Ray's workers need Python and this package, of the versions that this process has.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from consilium.shared.errors import SettingsError


@dataclass(frozen=True)
class Cluster:
    """A cluster of Ray: HOST:PORT, ray://HOST:PORT or auto; None is one started on this machine."""

    address: str | None


@contextmanager
def connected(cluster: Cluster, *, workers: int) -> Iterator[None]:
    """Connect to Ray; at the end disconnect, and stop what was started here.

    Args:
        cluster: which one.
        workers: cores to give to Ray if it is started here.

    Raises:
        SettingsError: Ray is not installed or in use by this process, or no cluster answers.
    """
    if find_spec("ray") is None:
        raise SettingsError(
            "--engine flower: Ray is not installed; install it, on every machine of the cluster, "
            "with: pip install 'consilium-fl[ray]'"
        )
    import ray

    if ray.is_initialized():
        raise SettingsError(
            "--engine flower: this process uses Ray already; run one study at a time in it"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tells nobody outside of its use
    variables = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    address, here = cluster.address, dict[str, Any]()
    if address is None:
        variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        here = {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(
            address="local" if address is None else address,
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            logging_level="warning",
            **here,
        )
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise SettingsError(
            f"--engine-address {address}: no Ray cluster answers there ({type(error).__name__}); "
            "start one with 'ray start --head', or leave the address out"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
