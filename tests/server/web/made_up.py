"""A coordinator's folder with sites, a study and its rounds, nobody's."""

import json
import time
from pathlib import Path

from consilium.server.coordinator.enrolment import submit
from consilium.server.coordinator.folder import CoordinatorFolder, Settings
from consilium.server.coordinator.register import State
from consilium.server.coordinator.round_records import rounds_file
from consilium.shared.audit.own_log import open_audit
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.study.definition import parse_study

SITES = ("east", "north", "south", "west")


def make_coordinator(path: Path, text: str, *, version: str = "0.1.0") -> CoordinatorFolder:
    """Make a coordinator whose four sites have enrolled, with one study that runs."""
    settings = Settings(name="c", host="localhost", port=9092, listen="127.0.0.1")
    made = CoordinatorFolder.make(path, settings, ("localhost",))
    register, log = made.register(), open_audit(made)
    for node, site in enumerate(SITES, start=1):
        register.invite(site, b"secret", expires=time.time() + 3600)
        identity = IdentityKey.from_seed(bytes([node]) * 32).public
        register.enrol(site, identity=identity, node_key=site.encode(), node_id=node,
                       version=version, now=time.time() - 5)  # fmt: skip
        register.saw(site, version, budget_left=None, now=time.time() - 5)
    study = parse_study(text)
    submit(register, made.identity(), log, study, text.encode())
    register.note(study.digest, State.RUNNING, "")
    file = rounds_file(made, study.digest)
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(_round(number)) + "\n" for number in range(1, 13)))
    return made


def _round(number: int) -> dict[str, object]:
    trains = number > 1
    return {
        "round": number, "purpose": "training" if trains else "statistics", "void": None,
        "sites": list(SITES), "refusals": {}, "patients": 900, "update_norm": 1.0,
        "epsilon": 0.1 * number, "seconds": 1.5, "phases": {},
        "bytes_up": dict.fromkeys(SITES, 12_300), "bytes_down": dict.fromkeys(SITES, 45_600),
        "validation": {"loss": 0.3 + 1 / (5 + number), "outputs": [{"auroc": 0.7 + 0.01 * number}]}
        if trains else None,
    }  # fmt: skip
