"""The systemd unit that runs a hospital's site."""

from pathlib import Path

from consilium.shared.service.systemd_unit import write_systemd_unit

_NOTES = """\
# The site listens on nothing; add IPAddressDeny=any and IPAddressAllow=ADDRESS of the coordinator
# to have the system see to it that it dials nobody else.
"""


# PrivateDevices would hide a graphics card from a site whose policy allows one ([machine] gpu);
# another policy hides it from the computation itself (client/hospital/process_limits.py).
_DEVICES = """\
DevicePolicy=closed
DeviceAllow=char-nvidia rw
DeviceAllow=char-nvidia-frontend rw
DeviceAllow=char-nvidia-uvm rw
DeviceAllow=char-drm rw
DeviceAllow=char-kfd rw
"""


def write_unit(folder: Path, *, user: str) -> Path:
    """Write the unit into the site's folder; return its path."""
    return write_systemd_unit(
        folder,
        folder,
        side="site",
        package="client",
        user=user,
        notes=_NOTES,
        stopping="TimeoutStopSec=60\n",
        environment="# Environment=HTTPS_PROXY=http://proxy.example.org:3128\n",
        limits="SocketBindDeny=any\n",
        devices=_DEVICES,
    )
