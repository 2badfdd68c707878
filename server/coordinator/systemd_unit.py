"""The systemd unit that runs the coordinator."""

from pathlib import Path

from consilium.shared.files.permissions import PRIVATE_FOLDER
from consilium.shared.service.systemd_unit import write_systemd_unit


def write_unit(folder: Path, *, user: str) -> Path:
    """Write the unit into ``folder/service``; return its path."""
    place = folder / "service"
    place.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    return write_systemd_unit(
        place,
        folder,
        side="coordinator",
        package="server",
        user=user,
        stopping="KillMode=mixed\nTimeoutStopSec=30\n",
        limits="LimitNOFILE=16384\n",
    )
