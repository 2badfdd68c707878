"""The operator's page: what it shows of a real folder, and that strangers' words stay text."""

import html
import http.client
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consilium.server.coordinator.enrolment import submit
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.coordinator.register import State
from consilium.server.coordinator.round_records import rounds_file
from consilium.server.service.monitor import Monitor
from consilium.server.service.operator_page import read_page
from consilium.server.service.overview import status
from consilium.shared.audit.events import Refused, Revoked, RoundClosed
from consilium.shared.audit.own_log import open_audit
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.study.definition import parse_study
from tests.needs import browse
from tests.study_text import TEXT

EVIL = "<script>document.title='broken'</script>"
STUDY = TEXT.replace("A small study", f"A small study {EVIL}") + "[privacy]\nepsilon = 4.0\n"


def one_round(number: int, purpose: str = "training", **changes: object) -> dict[str, object]:
    sites = ["a", "b", "c"]
    return {
        "round": number,
        "purpose": purpose,
        "void": None,
        "sites": sites,
        "refusals": {},
        "patients": 90,
        "update_norm": 1.0,
        "epsilon": 0.4 * number,
        "seconds": 1.0 + 0.1 * number,
        "phases": {},
        "bytes_up": dict.fromkeys(sites, 12_300),
        "bytes_down": dict.fromkeys(sites, 45_600),
        "validation": {"loss": 1 / number, "outputs": [{"auroc": 0.6 + 0.02 * number}]},
    } | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorFolder:
    path = tmp_path_factory.mktemp("page") / "coordinator"
    settings = Settings(name="c", host="localhost", port=9092, listen="127.0.0.1")
    made = CoordinatorFolder.make(path, settings, ("localhost",))
    register, log = made.register(), open_audit(made)
    for node, (site, seen) in enumerate((("a", 1), ("b", 1), ("c", 4000), ("d", 1)), start=1):
        register.invite(site, b"secret", expires=time.time() + 3600)
        identity = IdentityKey.from_seed(bytes([node]) * 32).public
        register.enrol(site, identity=identity, node_key=site.encode(), node_id=node,
                       version=f"0.1.0{EVIL}", now=time.time() - seen)  # fmt: skip
        left = 3.25 if site == "a" else None
        register.saw(site, f"0.1.0{EVIL}", budget_left=left, now=time.time() - seen)
    study = parse_study(STUDY)
    submit(register, made.identity(), log, study, STUDY.encode())
    register.note(study.digest, State.WAITING, f"waiting for c: {EVIL}")
    left_out = one_round(9, sites=["a", "b"], refusals={"c": f"no patients {EVIL}"})
    void = one_round(8, void=f"too few {EVIL}", sites=[], validation=None)
    rounds = [one_round(1, "statistics", validation=None), *map(one_round, range(2, 8)), void,
              left_out]  # fmt: skip
    file = rounds_file(made, study.digest)
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in rounds))
    log.append(Refused(peer=EVIL, asked="enrol", code="401", sentence=f"no such token {EVIL}"))
    log.append(Revoked(site="d", reason=EVIL))
    log.append(RoundClosed(study_digest=study.digest, study_hash=bytes(32), round=8,
                           purpose="training", survivors=(), model_digest=bytes(32),
                           void=f"too few {EVIL}"))  # fmt: skip
    return made


@pytest.fixture(scope="module")
def page(folder: CoordinatorFolder) -> str:
    # Seen that long before the page is read, whenever the folder was made.
    folder.register().saw("c", f"0.1.0{EVIL}", budget_left=None, now=time.time() - 4000)
    return read_page(folder, status(folder, folder.register()), [f"the disk {EVIL}"])


def text_of(page: str) -> str:
    words = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)
    return html.unescape(" ".join(words.split()))


def test_it_tells_who_is_there_how_far_a_study_is_and_what_happened(page: str) -> None:
    told = text_of(page)
    for part in (
        "last seen 67 min ago",
        "8 of 10 training rounds",
        "3.25",
        "not told",
        "3.60 spent, 0.40 left of the study's 4",
        "Sites in round 9",
        "12.3 kB",
        "in the sum",
        "not in the sum",
        "validation loss",
        "round 8 (training) is void: too few",
        "d revoked",
    ):
        assert part in told, part
    assert page.count("<polyline") == 4
    assert "http-equiv='refresh'" in page


def test_words_of_strangers_stay_text(page: str) -> None:
    assert "<script" not in page
    # version of four sites, title, detail, ailment, refusal, void twice, peer, sentence, reason
    assert page.count("&lt;script&gt;document.title=&#39;broken&#39;&lt;/script&gt;") == 13
    assert not re.search(r"\son\w+=|src=|href=", page)


def test_an_empty_folder_says_what_comes_first(tmp_path: Path) -> None:
    settings = Settings(name="c", host="localhost", port=9092, listen="127.0.0.1")
    made = CoordinatorFolder.make(tmp_path / "new", settings, ("localhost",))
    told = text_of(read_page(made, status(made, made.register()), []))
    assert "No site has enrolled yet" in told
    assert "No study was submitted yet" in told
    assert "Nothing is known to be wrong" in told


def test_a_browser_shows_it_and_runs_nothing(folder: CoordinatorFolder, tmp_path: Path) -> None:
    monitor = Monitor(
        0,
        status=lambda: status(folder, folder.register()),
        ailments=list,
        page=lambda told, wrong: read_page(folder, told, wrong),
    )
    picture = tmp_path / "page.png"
    try:
        reply = http.client.HTTPConnection("127.0.0.1", monitor.port, timeout=60)
        reply.request("GET", "/")
        headers = reply.getresponse().headers
        address = f"http://127.0.0.1:{monitor.port}/"
        drawn = ("--window-size=1000,1500", f"--screenshot={picture}", "--dump-dom")
        shown = browse(address, tmp_path, *drawn).stdout
    finally:
        monitor.close()
    assert "script" not in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "<title>Consilium coordinator</title>" in shown
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert (np.abs(pixels - (0x0A, 0x5C, 0x9E)).sum(axis=2) < 30).sum() > 500
