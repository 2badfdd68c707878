"""Running a study across many simulated hospitals in this process."""

import os
from collections.abc import Callable
from os import PathLike
from typing import Any

from consilium.shared.errors import SettingsError
from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.api.folders import Folder
from consilium.simulations.api.records import RecordsGiven, cohorts_of
from consilium.simulations.api.results import SimulationResult, result_in
from consilium.simulations.api.rounds import RoundFigures, round_figures
from consilium.simulations.api.study import a_study
from consilium.simulations.federation.run import Show
from consilium.simulations.federation.threads import one_thread_each
from consilium.simulations.runs.simulate import simulate as run

Progress = Callable[[RoundFigures], object]


def simulate(
    study: Study,
    records: RecordsGiven = None,
    *,
    out: str | PathLike[str] | None = None,
    workers: int | None = None,
    seed: int | None = None,
    protocol: bool = False,
    alone: bool = False,
    external: bool = False,
    progress: Progress | None = None,
) -> SimulationResult:
    """Run a study across its sites and judge the model on test patients.

    It does what ``consilium-simulate run`` does. Without privacy, the same study, records and seed
    give the same weights bit for bit, however many sites train at the same time. With privacy, the
    noise is new in every run.

    Args:
        study: what to run.
        records: None for a study with synthetic patients; the folder of its public collection; or
            :class:`consilium.Records`. Where its settings or frames name the sites, and the study
            names none of them, theirs take the place of the study's.
        out: folder for the files of the run. A run that was interrupted there goes on; a finished
            one is not trained again. None takes a temporary folder, which is removed when the
            result is garbage-collected or closed.
        workers: sites that train at the same time; all processor cores unless given.
        seed: another seed than the study's.
        protocol: send every message of the secure sum; otherwise the same numbers are added in the
            clear, which is faster and gives the same result.
        alone: also train each hospital's own model, to say what it gained by joining.
        external: also run the study without each hospital in turn, and test on its patients.
        progress: called with each round when it is finished (not with those of ``external``);
            nothing is printed in any case.

    Returns:
        The finished run.

    Raises:
        StudyError: what was given is no study, or the study cannot be simulated.
        SettingsError: records or folder are missing or wrong. If the sentence names an option of
            the command, such as ``--out``, it means the argument of that name.
        DataError: the records cannot be read, or do not fit the study.
        PrivacyError: the privacy that the study promises cannot be kept.
        ProtocolError: the sites could not sum what the study needs.
    """
    study = a_study(study)
    if seed is not None:
        study = with_changes(study, study={"seed": seed})
    number = workers_of(workers)
    study, cohorts = cohorts_of(study, records, by_site=external)
    folder = Folder(out)
    with one_thread_each():
        run(
            study,
            cohorts,
            folder.path,
            workers=number,
            show=shown_to(progress),
            protocol=protocol,
            alone=alone,
            outside=_quiet if external else None,
        )
    return result_in(folder)


def workers_of(given: int | None) -> int:
    """Return how many sites train at the same time.

    Raises:
        SettingsError: a number below 1.
    """
    if given is None:
        return len(os.sched_getaffinity(0))
    if given < 1:
        raise SettingsError(f"workers {given}: must be at least 1; leave it out to use all cores")
    return given


def shown_to(progress: Progress | None) -> Show:
    """Return a function that passes each round's record to ``progress``, if given, as an object."""

    def show(record: dict[str, Any]) -> None:
        if progress is not None:
            progress(round_figures(record))

    return show


def _quiet(setting: str, study: Study) -> Show:
    del setting, study
    return shown_to(None)
