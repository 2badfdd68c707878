"""The images of 'make images' run a federation, confined as the compose files say.

Needs Podman and the images, which take minutes and a registry to build, so CI has neither. Where
the runtime itself is in need of options, Podman's own settings name them (CONTAINERS_CONF).
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import httpx
import pytest
import yaml

from consilium.shared.version import VERSION
from tests.deployment.federation import POLICY, SITES, free_port, tiny_study, write_records
from tests.needs import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
STOP_WITHIN_S = 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def podman(*words, said="", fails=False):
    done = subprocess.run(
        ["podman", *map(str, words)],
        input=said, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip  # options beside their values
    assert (done.returncode != 0) is fails, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout + (done.stderr if fails else "")


def image(side):
    return f"localhost/consilium-{side}:{VERSION}"


def confined(side):
    """The options of 'podman run' that do what a compose file says, without names and volumes."""
    text = (ROOT / "deploy" / f"compose.{side}.yaml").read_text()
    text = re.sub(r"\$\{\w+:[-?]([^}]*)\}", r"\1", text)
    (service,) = yaml.safe_load(text)["services"].values()
    assert service["read_only"]
    return [
        "--read-only",
        *(f"--cap-drop={one}" for one in service["cap_drop"]),
        *(f"--security-opt={one.removesuffix(':true')}" for one in service["security_opt"]),
        *(f"--tmpfs={one}" for one in service["tmpfs"]),
        f"--user={service['user']}",
    ]


@pytest.fixture(scope="module")
def built():
    """Skip where there is no Podman, or no image."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed (Debian: apt-get install podman)")
    for side in ("coordinator", "site"):
        if subprocess.run(["podman", "image", "exists", image(side)], check=False).returncode:
            pytest.skip(f"{image(side)} is not built (in the repository: make images)")


@pytest.fixture
def named(built, tmp_path):
    """A name for containers and volumes of one test, removed with them at its end."""
    name = f"consilium-test-{os.getpid()}"
    yield name
    ours = ("--filter", f"name={name}", "--format")
    containers = podman("ps", "-a", *ours, "{{.Names}}").split()
    for one in reversed(containers):  # the coordinator's is the first, and sites use its network
        podman("rm", "-f", "-t", "0", one)
    for volume in podman("volume", "ls", *ours, "{{.Name}}").split():
        podman("volume", "rm", "-f", volume)


class Side:
    """A container of one side: commands of its own before and while it runs."""

    def __init__(self, name, side, *options, network=()):
        self.name, self.side = name, side
        self.options = [*confined(side), "--volume", f"{name}:/state", *options]
        self.network = network

    def once(self, *words, said="", fails=False, program=None):
        entry = [] if program is None else ["--entrypoint", program]
        return podman("run", "--rm", "-i", *self.options, *self.network, *entry, image(self.side),
                      *words, said=said, fails=fails)  # fmt: skip

    def start(self, *options):
        podman("run", "-d", "--name", self.name, *self.options, *self.network, *options,
               image(self.side))  # fmt: skip

    def command(self, *words, said="", fails=False):
        return podman("exec", "-i", self.name, f"consilium-{self.side}", *words,
                      said=said, fails=fails)  # fmt: skip

    def is_well(self):
        """What the image's own health check finds."""
        return subprocess.run(
            ["podman", "healthcheck", "run", self.name], capture_output=True, check=False
        ).returncode == 0  # fmt: skip

    def write(self, file, text, *, into=">"):
        self.once("-c", f"cat {into}/state/{file}", said=text, program="sh")

    def stop(self):
        """Ask it to end; return its exit status."""
        podman("stop", "-t", STOP_WITHIN_S, self.name)
        return int(podman("inspect", self.name, "--format", "{{.State.ExitCode}}"))


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def asked_from_the_host(port, path):
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=10)
    except httpx.HTTPError:
        return None


def test_a_build_is_not_given_keys_and_state_of_a_checkout(built, tmp_path):
    context = tmp_path / "context"
    shutil.copytree(ROOT / "deploy", context / "deploy")
    shutil.copy(ROOT / ".dockerignore", context)
    wheel = "dist/consilium_fl-1-py3-none"
    kept = ("requirements.lock", "requirements-dev.lock", f"{wheel}-manylinux_2_34_x86_64.whl")
    secret = (
        "coordinator/identity.pem", "site/split.key", "a/b/node.pem", ".git/config", ".env",
        "dist/notes", f"{wheel}-any.whl", "shared/data/set-a/1.txt", "north.tar", "identity.pem",
    )  # fmt: skip
    for file in (*kept, *secret):
        (context / file).parent.mkdir(parents=True, exist_ok=True)
        (context / file).write_text(file)
    (tmp_path / "Containerfile").write_text("FROM scratch\nCOPY . /\nCMD none\n")
    name = f"consilium-test-context-{os.getpid()}"
    podman("build", "-q", "-f", tmp_path / "Containerfile", "-t", name, context)
    try:
        podman("create", "--name", name, name)
        podman("export", "-o", tmp_path / "out.tar", name)
        with tarfile.open(tmp_path / "out.tar") as archive:
            found = {m.name for m in archive.getmembers() if m.isfile() and m.size}
        assert found == set(kept)
    finally:
        podman("rm", "-f", name)
        podman("rmi", "-f", name)


def test_the_images_have_no_root_no_compiler_no_pip_and_nothing_of_a_checkout(named):
    script = "id -u; ls /; for p in cc gcc make pip pip3 git; do command -v $p; done; echo ."
    for side in ("coordinator", "site"):
        said = Side(named, side).once("-c", script, program="sh").split()
        assert said[0] == "10001"
        assert said[-1] == "."
        assert not {"src", "build"} & set(said)
        assert not [word for word in said if word.startswith("/")]  # no program was found
    imports = "import polars, fastexcel, duckdb, psycopg, pydicom, nibabel, wfdb, edfio, jwt"
    Side(named, "site").once("-c", imports, program="python3")


def test_a_mount_that_the_account_may_not_enter_is_told_in_a_sentence(named, tmp_path):
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    other.chmod(0o700)
    mount = ["--volume", f"{other}:/mount", "--workdir", "/"]
    for side, words in (("coordinator", ["--host", "h"]), ("site", [])):
        one = Side(named, side, *mount)
        told = one.once("init", *words, "--folder", "/mount/state", fails=True)
        assert "Permission denied" in told
        assert "Traceback" not in told
        os.chown(other, 10001, 10001)
        assert "only this account can read it" in one.once("init", *words, "--folder",
                                                           f"/mount/{side}")  # fmt: skip
        os.chown(other, 0, 0)
    # As an account that the image does not know.
    os.chown(other, 12345, 12345)
    one = Side(named, "site", *mount, "--user", "12345:12345")
    assert "only this account" in one.once("init", "--folder", "/mount/third")


def test_a_study_runs_in_containers_that_may_write_their_state_alone(named, tmp_path):
    records = tmp_path / "records"
    write_records(records, patients=20, seed=1)
    subprocess.run(["chmod", "-R", "a+rX", records], check=True)
    port, monitor = free_port(), free_port()
    coordinator = Side(f"{named}-c", "coordinator")
    coordinator.once("init", "--host", "127.0.0.1")
    coordinator.start("-p", f"127.0.0.1:{port}:9092", "-p", f"127.0.0.1:{monitor}:9093")

    def healthy():
        answer = asked_from_the_host(monitor, "/health")
        return answer is not None and answer.status_code == 200

    wait_for(healthy, podman("logs", coordinator.name))
    assert asked_from_the_host(monitor, "/health").json() == {"status": "ok", "wrong": []}
    assert "consilium_healthy 1" in asked_from_the_host(monitor, "/metrics").text
    assert coordinator.is_well()

    sites = {}
    for unit, name in enumerate(SITES, 1):
        one = sites[name] = Side(
            f"{named}-{name}", "site", "--volume", f"{records}:/records:ro",
            network=["--network", f"container:{coordinator.name}"],
        )  # fmt: skip
        one.once("init", "--site", name)
        one.write("site/site.toml", f'[data]\nsource = "physionet2012"\npath = "/records"\n'
                                    f"where = {{ ICUType = {unit} }}\n", into=">>")  # fmt: skip
        one.write("site/policy.toml", POLICY)
        one.once("enroll", "-", said=coordinator.command("invite", name))
    prints = {n: json.loads(one.once("identity", "--json"))["qr"] for n, one in sites.items()}
    coordinator.command("submit", "/dev/stdin", said=tiny_study(rounds=2))
    for name, one in sites.items():
        telephoned = [f"consilium-site vouch {qr}" for n, qr in prints.items() if n != name]
        approving = [*telephoned, "consilium-site approve tiny --yes"]
        one.once("-c", " && ".join(approving), program="sh")
        one.start()
    for one in sites.values():
        wait_for(one.is_well, podman("logs", one.name))

    def finished():
        return json.loads(coordinator.command("status", "--json"))["studies"][0]["state"] == (
            "finished"
        )

    wait_for(finished, coordinator.command("watch"))
    coordinator.command("audit", "verify")
    sites["north"].command("audit", "verify")
    begun = time.monotonic()
    assert {name: one.stop() for name, one in sites.items()} == dict.fromkeys(SITES, 0)
    assert coordinator.stop() == 0
    assert time.monotonic() - begun < STOP_WITHIN_S * len(SITES)
