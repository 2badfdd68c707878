"""Running one study, from its records to the files of its result."""

import time
from pathlib import Path
from typing import Any

from consilium.server.study.checkpoints import FILE_NAME
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.cohorts.study_cohorts import cohorts_for
from consilium.simulations.experiments.external import Watch, external, leave_one_out
from consilium.simulations.experiments.joining import joining
from consilium.simulations.experiments.recalibrating import recalibrating
from consilium.simulations.federation.flower_engine import FlowerEngine
from consilium.simulations.federation.out_folder import use_folder
from consilium.simulations.federation.run import Federation, Finished, Show
from consilium.simulations.figures.held_out import HeldOut
from consilium.simulations.report.files import write_report
from consilium.simulations.report.records import RUN, run_record, write_json, write_model


def simulate(
    study: Study,
    data: Path | Cohorts | None,
    out: Path,
    *,
    workers: int,
    show: Show,
    protocol: bool = False,
    alone: bool = True,
    outside: Watch | None = None,
    engine: FlowerEngine | None = None,
) -> dict[str, Any]:
    """Run the study, or go on with it, and write its results into ``out``.

    Args:
        study: what to run.
        data: folder of real records, if the study needs one; or the cohorts themselves.
        out: gets run.json, model.safetensors, report.html, the checkpoint and the sites' folders.
        workers: sites that train at the same time.
        show: called with each round's record.
        protocol: whether the whole secure sum runs; otherwise vectors are added as they are.
        alone: whether to train each hospital's own model too, to say what it gained by joining.
        outside: if given, each hospital is left out in turn and tested on; see ``watch`` of
            :func:`consilium.simulations.experiments.external.external`.
        engine: where the study's sites compute, if not in this process.

    Returns:
        The content of ``run.json``.

    Raises:
        ConsiliumError: one sentence on what is wrong; nothing that was saved before is lost.
    """
    cohorts = data if isinstance(data, Cohorts) else cohorts_for(study, data)
    with use_folder(out, marker=FILE_NAME):
        test = HeldOut.read(cohorts.test, study)
        if outside is not None:
            leave_one_out(study, cohorts, test)  # raises before any privacy is spent
        finished, seconds = train(
            study,
            cohorts,
            test,
            out,
            workers=workers,
            show=show,
            protocol=protocol,
            engine=engine,
        )
        joined = None
        if alone:
            joined = joining(study, cohorts, test, finished.scores, finished.training)
        record = run_record(study, cohorts, finished, seconds=seconds, joined=joined) | {
            "recalibration": recalibrating(study, cohorts, test, finished),
            "external": outside
            and external(
                study,
                cohorts,
                test,
                finished.scores,
                joined,
                out,
                workers=workers,
                protocol=protocol,
                watch=outside,
            ),
        }
        write_model(out / "model.safetensors", study, finished.state)
        write_json(out / RUN, record)
        write_report(out)
    return record


def train(
    study: Study,
    cohorts: Cohorts,
    test: HeldOut,
    folder: Path,
    *,
    workers: int,
    show: Show,
    protocol: bool = False,
    engine: FlowerEngine | None = None,
) -> tuple[Finished, float]:
    """Run a federation in ``folder``; return its result and the seconds of its rounds."""
    federation = Federation(
        study, cohorts.sites, folder, workers=workers, protocol=protocol, engine=engine
    )
    began = time.monotonic()
    finished = federation.train(show, test)
    return finished, max(
        time.monotonic() - began, sum(record["seconds"] for record in finished.history)
    )
