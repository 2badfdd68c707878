"""What our Flower grids have in common: the one run that their messages belong to."""

from abc import ABC

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run


class RunGrid(Grid, ABC):
    """A grid with its run; subclasses say how messages travel."""

    _run: Run

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """Return the run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message from the coordinator to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)
