"""Files with which an operating system runs the coordinator or a site: systemd, and a container.

They are written by ``init`` for the operator to read, copy and change.
"""

import sys
from pathlib import Path

UNIT = """\
# Copy to /etc/systemd/system/consilium-coordinator.service, then:
#   systemctl daemon-reload && systemctl enable --now consilium-coordinator
[Unit]
Description=Consilium coordinator
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={python} -P -m server start --folder {folder}
User={user}
Restart=always
RestartSec=2
KillMode=mixed
TimeoutStopSec=30
UMask=0077
Environment=OMP_NUM_THREADS=1
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={folder}
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
LimitNOFILE=16384

[Install]
WantedBy=multi-user.target
"""

CONTAINERFILE = """\
# Build beside a checkout of Consilium:  podman build -f Containerfile -t consilium .
# Run:  podman run --volume {folder}:/state:Z --publish {port}:{port} consilium
FROM docker.io/library/python:3.11-slim
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \\
 && pip install --no-cache-dir -r requirements.lock && pip install --no-cache-dir --no-deps . \\
 && useradd --create-home --uid 10001 consilium && rm -rf /src
WORKDIR /
USER consilium
ENV OMP_NUM_THREADS=1
EXPOSE {port}
VOLUME /state
ENTRYPOINT ["consilium-coordinator", "start", "--folder", "/state"]
"""


def write_service_files(folder: Path, *, port: int, user: str) -> tuple[Path, Path]:
    """Write both into ``folder/service``; return where they are."""
    place = folder / "service"
    place.mkdir(mode=0o700, exist_ok=True)
    unit, container = place / "consilium-coordinator.service", place / "Containerfile"
    whole = folder.resolve()
    unit.write_text(UNIT.format(python=sys.executable, folder=whole, user=user))
    container.write_text(CONTAINERFILE.format(folder=whole, port=port))
    return unit, container
