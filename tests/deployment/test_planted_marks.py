"""A hospital marks its records, paths, settings and environment: the coordinator has none of it."""

import json
import os
import urllib.request
from datetime import datetime
from pathlib import Path

import pytest

from consilium.client.hospital.working_hours import DAYS
from tests.deployment.federation import (
    Federation,
    free_port,
    tiny_study,
    write_records,
)

MARK = "Kennmarke4711"
RECORDER = """
import httpx
_stream = httpx.Client.stream
def stream(self, method, url, **options):
    with open({file!r}, "ab") as file:
        for part in (method, url, options.get("content"), dict(options.get("headers") or {{}}),
                     dict(self.headers)):
            file.write(part if isinstance(part, bytes) else repr(part).encode())
    return _stream(self, method, url, **options)
httpx.Client.stream = stream
"""


def everything(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_nothing_marked_leaves_a_site_in_success_and_in_each_kind_of_failure(
    tmp_path: Path,
) -> None:
    records = tmp_path / f"{MARK}-records"
    write_records(records, patients=30, seed=1)
    outcomes = records / "Outcomes-a.txt"
    whole = {path: path.read_text() for path in (records / "set-a").iterdir()}
    for path, text in whole.items():
        path.write_text(text + f"11:00,{MARK},1\n11:30,HR,{MARK}\n")
    federation = Federation(tmp_path / "federation", records)
    sent, site, port = tmp_path / "sent", federation.site("north"), free_port()
    patch = tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(RECORDER.format(file=str(sent)))
    path = os.pathsep.join((str(patch), os.environ.get("PYTHONPATH", "")))
    federation.environments["north"] = {"PYTHONPATH": path, "CONSILIUM_NOTE": MARK}
    try:
        federation.prepare(tiny_study(rounds=1), tiny_study(rounds=2).replace('"tiny"', '"second"'))
        federation.operator("pause", "second")
        federation.start("coordinator", "--monitor-port", str(port), "--patience", "600")
        federation.wait_for(federation.is_serving, "the coordinator to serve", 30)
        for name in federation.sites:
            federation.start(name)
        federation.finish(study="tiny")
        never = DAYS[(datetime.now().astimezone().weekday() + 3) % 7]
        hours = f'[hours]\ndays = ["{never}"]\nstart = "08:00"\nend = "09:00"\n# {MARK}\n'
        kinds = {
            "UnableError": outcomes.unlink,
            "PolicyError.hours": lambda: (site / "policy.toml").write_text(
                federation.policy + hours
            ),
        }
        for code, fail in kinds.items():
            federation.kill("north")
            fail()
            federation.start("north")
            if code == "UnableError":
                federation.operator("resume", "second")

            def told(code: str = code) -> bool:
                return code in json.dumps(federation.overview())

            federation.wait_for(told, code, 60)
        seen = [federation.operator(*words) for words in (("watch",), ("status", "--json"))]
        for page in ("", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}") as reply:
                seen.append(reply.read().decode())
        assert MARK not in "".join(seen)
        assert MARK.encode() not in sent.read_bytes()
        assert sent.stat().st_size > 1000
        assert MARK.encode() not in everything(federation.coordinator)
        assert MARK not in federation.said("coordinator")
        assert MARK in json.dumps(federation.said("north"))  # its own people are told the file
        told = federation.hospital("north", "support", str(tmp_path / "bundle.json"), "--yes")
        assert "preflight" in told
        bundle = (tmp_path / "bundle.json").read_text()
        assert MARK not in bundle
        assert json.loads(bundle)["last_refusal"]["code"] == "PolicyError.hours"
        assert (tmp_path / "bundle.json").stat().st_mode & 0o777 == 0o600
    finally:
        federation.close()
