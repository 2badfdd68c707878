"""The systemd unit with which a hospital runs its site."""

import sys
from pathlib import Path

UNIT = """\
# Copy to /etc/systemd/system/consilium-site.service, then:
#   systemctl daemon-reload && systemctl enable --now consilium-site
# The site listens on nothing; add IPAddressDeny=any and IPAddressAllow=ADDRESS of the coordinator
# to have the system see to it that it dials nobody else.
[Unit]
Description=Consilium site
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={python} -P -m client start --folder {folder}
User={user}
Restart=always
RestartSec=2
TimeoutStopSec=60
UMask=0077
Environment=OMP_NUM_THREADS=1
# Environment=HTTPS_PROXY=http://proxy.example.org:3128
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={folder}
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SocketBindDeny=any

[Install]
WantedBy=multi-user.target
"""


def write_unit(folder: Path, *, user: str) -> Path:
    """Write the unit into the site's folder; return where it is."""
    file = folder / "consilium-site.service"
    file.write_text(UNIT.format(python=sys.executable, folder=folder.resolve(), user=user))
    return file
