"""One study from its records to the files of its result."""

import time
from pathlib import Path
from typing import Any

from server.checkpoints import FILE_NAME
from shared.errors import SettingsError
from shared.study import Study
from simulations.cohorts import Cohorts, cohorts_for
from simulations.curves import draw_curves
from simulations.held_out import HeldOut
from simulations.records import run_record, write_json, write_model
from simulations.run import Federation, Finished, Show


def simulate(
    study: Study, data: Path | None, out: Path, *, workers: int, show: Show
) -> dict[str, Any]:
    """Run the study, or go on with it, and write its results into ``out``.

    Args:
        study: what to run.
        data: folder of real records, if the study needs one.
        out: gets run.json, model.safetensors, curves.png, the checkpoint and the sites' folders.
        workers: sites that train at the same time.
        show: called with each round's record.

    Returns:
        The content of ``run.json``.

    Raises:
        ConsiliumError: one sentence on what is wrong; nothing that was saved before is lost.
    """
    check_folder(out)
    cohorts = cohorts_for(study, data)
    test = HeldOut.read(cohorts.test, study)
    finished, seconds = train(study, cohorts, test, out, workers=workers, show=show)
    record = run_record(study, cohorts, finished, seconds=seconds)
    write_model(out / "model.safetensors", study, finished.state)
    draw_curves(out / "curves.png", study, record, finished.risks_N, test.outcomes)
    write_json(out / "run.json", record)
    return record


def train(
    study: Study, cohorts: Cohorts, test: HeldOut, folder: Path, *, workers: int, show: Show
) -> tuple[Finished, float]:
    """Run a federation in ``folder``; return what came out and the seconds of its rounds."""
    federation = Federation(study, cohorts.sites, folder, workers=workers)
    began = time.monotonic()
    finished = federation.train(show, test)
    return finished, max(
        time.monotonic() - began, sum(record["seconds"] for record in finished.history)
    )


def check_folder(out: Path) -> None:
    """Refuse a folder that holds something else than a run.

    Raises:
        SettingsError: the folder is not empty and has no checkpoint to go on from.
    """
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out {out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / FILE_NAME).exists():
        raise SettingsError(
            f"--out {out}: is not empty and holds no {FILE_NAME} to go on from; "
            "name an empty folder, or one that a run was cut off in"
        )
