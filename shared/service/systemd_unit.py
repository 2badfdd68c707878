"""The systemd unit that runs one side, a site or the coordinator, confined to its folder."""

import sys
from pathlib import Path

_UNIT = """\
# Copy to /etc/systemd/system/consilium-{side}.service, then:
#   systemctl daemon-reload && systemctl enable --now consilium-{side}
{notes}[Unit]
Description=Consilium {side}
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={python} -P -m consilium.{package} start --folder {folder}
User={user}
Restart=always
RestartSec=2
{stopping}UMask=0077
Environment=OMP_NUM_THREADS=1
{environment}NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={folder}
CacheDirectory=consilium-{side}
CacheDirectoryMode=0700
PrivateTmp=yes
{devices}ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
{limits}
[Install]
WantedBy=multi-user.target
"""


def write_systemd_unit(
    place: Path,
    folder: Path,
    *,
    side: str,
    package: str,
    user: str,
    notes: str = "",
    stopping: str = "",
    environment: str = "",
    limits: str = "",
    devices: str = "PrivateDevices=yes\n",
) -> Path:
    """Write ``consilium-SIDE.service``, for a person to read, copy and change; return where it is.

    Args:
        place: the folder to write it into.
        folder: this side's own, the only one that the service may write.
        side: ``site`` or ``coordinator``.
        package: of ``consilium``, which ``python -m`` starts.
        user: account that runs it.
        notes: comments of this side's own, whole lines.
        stopping: directives on how it is stopped, whole lines.
        environment: directives on its environment, whole lines.
        limits: directives on what it may use, whole lines.
        devices: directives on the devices it sees, whole lines.
    """
    file = place / f"consilium-{side}.service"
    unit = _UNIT.format(
        side=side,
        package=package,
        python=sys.executable,
        folder=folder.resolve(),
        user=user,
        notes=notes,
        stopping=stopping,
        environment=environment,
        limits=limits,
        devices=devices,
    )
    file.write_text(unit, encoding="utf-8", errors="surrogateescape")
    return file
