"""Files that run the coordinator: a systemd unit, and a recipe for a container.

They are written by ``init`` for the operator to read, copy and change.
"""

from pathlib import Path

from consilium.server.coordinator.defaults import MONITOR_PORT
from consilium.shared.files.permissions import PRIVATE_FOLDER
from consilium.shared.service.systemd_unit import write_systemd_unit

CONTAINERFILE = """\
# Build within a checkout of Consilium, whose .dockerignore keeps state and keys out of the image:
#   podman build -f {folder}/service/Containerfile -t consilium .
# Run as the account that owns the folder, which only it may enter:
#   podman run --userns=keep-id --user "$(id -u):$(id -g)" --volume {folder}:/state:Z \\
#     --publish {port}:{port} consilium
# The health page is on 127.0.0.1 within the container:
#   podman exec CONTAINER python -c "import urllib.request as u; \\
#     print(u.urlopen('http://127.0.0.1:{monitor}/health').read().decode())"
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
HEALTHCHECK CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:{monitor}/health')"
ENTRYPOINT ["consilium-coordinator", "start", "--folder", "/state"]
"""


def write_service_files(folder: Path, *, port: int, user: str) -> tuple[Path, Path]:
    """Write unit and Containerfile into ``folder/service``; return their paths."""
    place = folder / "service"
    place.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    unit = write_systemd_unit(
        place,
        folder,
        side="coordinator",
        package="server",
        user=user,
        stopping="KillMode=mixed\nTimeoutStopSec=30\n",
        limits="LimitNOFILE=16384\n",
    )
    container = place / "Containerfile"
    container.write_text(
        CONTAINERFILE.format(folder=folder.resolve(), port=port, monitor=MONITOR_PORT),
        encoding="utf-8",
        errors="surrogateescape",  # a folder's name need not be UTF-8
    )
    return unit, container
