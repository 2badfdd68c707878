"""A Flower ServerApp that connects the sites and passes them to our own code; no logic here."""

from collections.abc import Callable, Collection

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from consilium.server.flower.sites import FlowerSites
from consilium.server.secure_sum.sites import Sites


def make_server_app(
    coordinate: Callable[[Sites], None], expected: Collection[str], *, timeout_s: float
) -> ServerApp:
    """Return a ServerApp that waits for the expected sites and then coordinates them.

    Args:
        coordinate: called once with the connected sites.
        expected: names of the sites in the study.
        timeout_s: how long to wait for all of them before going on with those that came.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        coordinate(FlowerSites.connect(grid, expected, timeout_s=timeout_s))

    return app
