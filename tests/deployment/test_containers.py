"""What the images are made from and how they are run: by the files alone, without a builder.

The images themselves: test_images.py.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from consilium.client.service.systemd_unit import write_unit as write_site_unit
from consilium.server.coordinator.systemd_unit import write_unit as write_coordinator_unit
from tests.needs import PATIENCE_S, missing

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
CHART = DEPLOY / "helm" / "consilium"
SIDES = ("coordinator", "site")
KUBERNETES = ("1.27", "1.37")


def instructions(stage):
    """The instructions of one stage of the Containerfile, without comments, lines joined."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    after = re.search(rf"^FROM \S+ AS {stage}\n(.*?)(?=^FROM |\Z)", text, re.DOTALL | re.MULTILINE)
    return [line.strip() for line in after[1].splitlines() if line.strip()]


def test_a_build_is_given_named_files_only():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    first, *kept = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    assert kept == ["!requirements.lock", "!requirements-dev.lock", "!dist/*linux*.whl"]
    sources = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    assert {f"!{one}" for given in sources for one in given.split()} == set(kept)
    assert not re.search(r"^ADD", CONTAINERFILE, re.MULTILINE)


def test_the_folders_of_both_sides_are_not_committed():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    for secret in ("coordinator/identity.pem", "site/identity.pem", "sites/north/node.pem"):
        subprocess.run(["git", "check-ignore", "--quiet", secret], cwd=ROOT, check=True)
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert not re.findall(r"^.*\.(?:pem|key|whl)$", tracked.stdout, re.MULTILINE)


@pytest.mark.parametrize("side", SIDES)
def test_an_image_has_neither_root_nor_pip_nor_compiler_and_looks_after_its_health(side):
    last = instructions(side)
    assert "USER 10001:10001" in last
    assert "STOPSIGNAL SIGTERM" in last
    assert f'ENTRYPOINT ["consilium-{side}"]' in last
    assert any(line.endswith(f'CMD ["consilium-{side}", "health"]') for line in last)
    assert not [line for line in last if line.startswith("RUN")]
    assert "pip uninstall --yes pip" in " ".join(instructions(f"for-{side}"))
    installed = re.findall(r"no-install-recommends (.*?) +&&", " ".join(instructions("system")))
    assert installed == ["python3"]
    assert re.search(r"^ARG BASE=\S+:\S+@sha256:[0-9a-f]{64}$", CONTAINERFILE, re.MULTILINE)


def composed(side, **variables):
    """A compose file's services, its variables put in as Compose does."""
    text = (DEPLOY / f"compose.{side}.yaml").read_text()

    def value(found):
        name, kind, otherwise = found.groups()
        if kind == ":?":
            assert name in variables, otherwise
        return variables.get(name, otherwise)

    return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, text)


@pytest.mark.parametrize("side", SIDES)
def test_compose_lets_the_process_do_what_it_needs_and_no_more(side):
    (service,) = yaml.safe_load(composed(side, CONSILIUM_RECORDS="/data"))["services"].values()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "10001:10001"
    assert service["healthcheck"]["test"] == ["CMD", f"consilium-{side}", "health"]
    assert {"mem_limit", "pids_limit", "tmpfs"} <= set(service)
    if side == "site":
        assert "ports" not in service
        assert "/data:/records:ro" in service["volumes"]
    else:
        assert service["ports"] == ["9092:9092", "127.0.0.1:9093:9093"]


def test_the_systemd_units_are_ones_that_systemd_takes(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    for name, write in (("site", write_site_unit), ("coordinator", write_coordinator_unit)):
        folder = tmp_path / name
        folder.mkdir()
        unit = write(folder, user="root")
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip  # options beside their values
        assert unit.name not in done.stderr, done.stderr


# With the linters of requirements-deploy.lock.


@pytest.fixture(scope="module")
def linters():
    """The folder of the programs in the environment that requirements-deploy.lock makes."""
    found = shutil.which("hadolint", path=f"{sys.prefix}/deploy/bin") or shutil.which("hadolint")
    if found is None:
        missing("deploy", ".venv/.deploy", how="in the repository: make")
    return Path(found).parent


def ran(*command, said=None):
    return subprocess.run(
        [*map(str, command)],
        input=said, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip  # options beside their values


@pytest.mark.slow
def test_the_recipe_is_clean(linters):
    done = ran(linters / "hadolint", DEPLOY / "Containerfile")
    assert (done.returncode, done.stdout) == (0, "")
    bad = ran(linters / "hadolint", "--no-color", DEPLOY / "compose.site.yaml")
    assert bad.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_the_compose_files_are_ones_that_compose_takes(linters, side, tmp_path):
    script = "import compose_spec, sys; compose_spec.PyCompose.from_yaml(open(sys.argv[1]).read())"
    file = tmp_path / "compose.yaml"
    text = composed(side, CONSILIUM_RECORDS="/data")
    assert "# secrets:" in text or side == "coordinator"
    for version in (text, re.sub(r"^(\s*)# (?=secrets|  )", r"\1", text, flags=re.MULTILINE)):
        file.write_text(version)
        done = ran(linters / "python", "-c", script, file)
        assert done.returncode == 0, done.stderr
    file.write_text(text.replace("read_only", "only_read"))
    assert ran(linters / "python", "-c", script, file).returncode != 0


def example(side):
    return yaml.safe_load((CHART / "examples" / f"{side}.yaml").read_text())


WRONG = (
    {"side": "hospital"},
    {"replicas": 2},
    {"image": {"repository": ""}},
    {"side": "site"},  # without the coordinator's address
)


@pytest.fixture(scope="module")
def rendered(linters):
    """What becomes of the examples, of one that waits, and of wrong values, in one process."""
    script = Path(__file__).with_name("render_chart.py")
    values = {side: example(side) for side in SIDES}
    values["waiting"] = {**example("coordinator"), "setup": True}
    values |= {str(wrong): {**example("coordinator"), **wrong} for wrong in WRONG}
    done = ran(
        linters / "python", script, CHART, *KUBERNETES, said=json.dumps(list(values.values()))
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(values, json.loads(done.stdout), strict=True))


def by_kind(documents):
    return {one["kind"]: one for one in documents}


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_the_chart_renders_what_kubernetes_takes_and_no_more_rights_than_needed(rendered, side):
    told = rendered[side]
    assert told["lint"] == []
    kinds = by_kind(told["documents"])
    services = {"Service"} if side == "coordinator" else set()
    assert set(kinds) == {"StatefulSet", "NetworkPolicy"} | services
    pod = kinds["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    confined = container["securityContext"]
    assert confined["readOnlyRootFilesystem"] is True
    assert confined["allowPrivilegeEscalation"] is False
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert container["readinessProbe"]
    assert container["resources"]["limits"]["memory"]
    policy = kinds["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    if side == "site":
        assert policy["ingress"] == []
        assert "ports" not in container
        assert policy["egress"][0]["to"] == [{"ipBlock": {"cidr": "192.0.2.7/32"}}]
        read_only = {m["name"] for m in container["volumeMounts"] if m.get("readOnly")}
        assert read_only == {"records", "secrets"}
    else:
        assert [port["name"] for port in kinds["Service"]["spec"]["ports"]] == ["sites"]
        assert policy["egress"] == []


@pytest.mark.slow
def test_the_chart_waits_while_a_side_is_set_up(rendered):
    pod = by_kind(rendered["waiting"]["documents"])["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "sleep infinity" in container["command"][-1]
    assert "readinessProbe" not in container


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_the_chart_refuses_values_that_it_does_not_know(rendered, wrong):
    assert "schema" in rendered[str(wrong)]["refused"]
