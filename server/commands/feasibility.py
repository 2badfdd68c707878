"""``consilium-coordinator feasibility``: how many persons a study's hospitals have together."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consilium.server.commands.options import DEFAULT_FOLDER, Folder, Json, StudyName
from consilium.shared.errors import SettingsError
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.service.terminal import Table, Terminal

if TYPE_CHECKING:
    from consilium.server.coordinator.register import Submitted
    from consilium.shared.study.definition import Study

console = Terminal()


def feasibility(study: StudyName, folder: Folder = DEFAULT_FOLDER, as_json: Json = False) -> None:
    """Show persons, outcomes and measured variables over a study's sites, noised, before training.

    A study with [feasibility] begins with this one count, once its hospitals have approved it, and
    rests after it: 'resume' goes on with training, 'stop' ends it.
    """
    from consilium.server.coordinator.folder import CoordinatorFolder
    from consilium.server.coordinator.round_records import rounds_file

    opened = CoordinatorFolder.open(folder)
    submitted = opened.register().study(study)
    declared = submitted.study
    found = totals(declared, submitted, rounds_file(opened, submitted.digest))
    if as_json:
        console.print_json(json.dumps(found))
        return
    for line in _lines(declared, submitted, found):
        console.print(line)


def totals(study: "Study", submitted: "Submitted", rounds: Path) -> dict[str, Any]:
    """Return what ``feasibility --json`` prints: the totals, and what is needed to read them.

    Raises:
        SettingsError: the study asks for no count, it has not been made yet, or its round was void.
    """
    if study.feasibility is None:
        raise SettingsError(
            f"study {study.name}: has no [feasibility], so no hospital approved to be counted; "
            "submit a study that has it"
        )
    record = _feasibility_round(rounds)
    if record is None:
        reason = f": {submitted.detail}" if submitted.detail else ""
        raise SettingsError(
            f"study {study.name}: its persons are not counted yet; it is {submitted.state}{reason}"
        )
    if record["void"] is not None:
        raise SettingsError(
            f"study {study.name}: the round that counted its persons is void ({record['void']}), "
            "and hospitals answer it once; 'resume' the study without it, or submit a new one"
        )
    return {
        "study": study.name,
        "study_digest": study.digest.hex(),
        "sites": record["sites"],
        "epsilon": None if study.privacy.mode == "none" else study.feasibility.epsilon,
        "smallest_cell": study.feasibility.smallest_cell,
        "totals": record["persons"],
    }


def _feasibility_round(file: Path) -> JsonRecord | None:
    """Return the record of the study's one feasibility round, which lies near the file's begin."""
    if not file.exists():
        return None
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            record: dict[str, Any] = json.loads(line)
            if record["purpose"] == "feasibility":
                return record
    return None


def _lines(study: "Study", submitted: "Submitted", found: JsonRecord) -> list[str | Table]:
    from consilium.server.coordinator.register import State
    from consilium.server.figures.feasibility import persons_in_words

    table = Table("persons", box=None, pad_edge=False)
    table.add_column(f"over {len(found['sites'])} sites", justify="right")
    table.add_column("95 % error", justify="right")
    for row in persons_in_words(study, found["totals"]):
        table.add_row(*row)
    noise = "no noise: the study has no privacy"
    if found["epsilon"] is not None:
        noise = (
            f"each site's noise is in them, for epsilon {found['epsilon']:g} of the study's "
            f"{study.privacy.epsilon:g}"
        )
    lines: list[str | Table] = [
        table,
        f"Sites: {', '.join(found['sites'])}; {noise}.",
        f"Suppressed: below {found['smallest_cell']}, noise included; that is not zero.",
    ]
    if submitted.state is State.PAUSED:
        lines.append("The study rests: 'resume' goes on, 'stop' ends it.")
    return lines
