"""A study run once with each of some seeds and budgets; what is finished is never run again.

Settings are independent of each other, so on a cluster each is a task of Ray's. Their folders must
then lie where every machine sees them under the same name; what a task had finished when its
machine was lost is there for the next, which goes on from it.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from consilium.shared.errors import ConsiliumError, SettingsError
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study, with_changes
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.experiments.external import Watch
from consilium.simulations.federation.ray_cluster import Cluster, connected
from consilium.simulations.federation.threads import one_thread_each
from consilium.simulations.report.records import RUN, SCHEMA, write_json
from consilium.simulations.runs.simulate import simulate

FILE = "sweep.json"
Failures = Iterator[tuple[str, Exception]]
TRIES = 3  # of a task of Ray's, if its machine is lost


def sweep(
    study: Study,
    cohorts: Cohorts | None,
    out: Path,
    *,
    seeds: Sequence[int] | None,
    epsilons: Sequence[float] | None,
    workers: int,
    watch: Watch,
    protocol: bool = False,
    cluster: Cluster | None = None,
) -> dict[str, JsonRecord]:
    """Run every setting that is not finished; return each setting's ``run.json`` by name.

    Args:
        study: what to run.
        cohorts: the records; None if patients are synthetic.
        out: gets a folder for each setting, and ``sweep.json``.
        seeds: the study's own unless given.
        epsilons: budgets; the study's own unless given.
        workers: sites that train at the same time; on a cluster, settings at the same time.
        watch: called when a setting begins in this process.
        protocol: whether all messages of the secure sum are sent.
        cluster: where the settings run as tasks, if not in this process.

    Raises:
        ConsiliumError: a setting failed; all others were run before, and stay finished.
    """
    settings = sweep_settings(study, seeds, epsilons)
    missing = {
        name: changed for name, changed in settings.items() if not _finished(changed, out / name)
    }
    run: Callable[..., Failures] = _here
    if cluster is not None:
        run = partial(_on_cluster, cluster=cluster)
    failed = dict(run(missing, cohorts, out, workers=workers, watch=watch, protocol=protocol))
    done = {name: _read(out / name) for name in settings if name not in failed}
    if done:
        write_json(out / FILE, _summary(study, settings, done))
    for name, error in failed.items():
        raise SettingsError(
            f"{len(failed)} of {len(settings)} settings failed, {name} first: {error}; the same "
            "command runs them again, and nothing else"
        )
    return done


def sweep_settings(
    study: Study, seeds: Sequence[int] | None, epsilons: Sequence[float] | None
) -> dict[str, Study]:
    """Return the study of each setting by its name, such as ``seed-7-epsilon-3``.

    Raises:
        SettingsError: a budget for a study without privacy.
        StudyError: a budget or seed that no study can have.
    """
    if epsilons and study.privacy.mode == "none":
        raise SettingsError(
            f"study {study.name}: --epsilon has no use without privacy; set [privacy] mode"
        )
    found: dict[str, Study] = {}
    for seed, epsilon in itertools.product(
        seeds or [study.seed], epsilons or [study.privacy.epsilon]
    ):
        name = f"seed-{seed}" + (f"-epsilon-{epsilon:g}" if epsilons else "")
        found[name] = with_changes(study, study={"seed": seed}, privacy={"epsilon": epsilon})
    return found


def _here(
    missing: Mapping[str, Study],
    cohorts: Cohorts | None,
    out: Path,
    *,
    workers: int,
    watch: Watch,
    protocol: bool,
) -> Failures:
    """Run the settings one after the other; yield those that failed."""
    for name, study in missing.items():
        try:
            show = watch(name, study)
            simulate(
                study, cohorts, out / name, workers=workers, show=show, protocol=protocol,
                alone=False,
            )  # fmt: skip
        except ConsiliumError as error:
            yield name, error


def _on_cluster(
    missing: Mapping[str, Study],
    cohorts: Cohorts | None,
    out: Path,
    *,
    workers: int,
    watch: Watch,
    protocol: bool,
    cluster: Cluster,
) -> Failures:
    """Run the settings as tasks of one core each; yield those that failed."""
    del watch  # see _quiet
    if not missing:
        return
    with connected(cluster, workers=workers):
        import ray

        held = ray.put(cohorts)
        task = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_setting)
        running = {
            name: task.remote(study, held, (out / name).absolute(), protocol)
            for name, study in missing.items()
        }
        for name, result in running.items():
            try:
                ray.get(result)
            except ray.exceptions.RayTaskError as error:
                yield name, error.cause
            except ray.exceptions.RayError as error:
                yield name, error


def _setting(study: Study, cohorts: Cohorts | None, out: Path, protocol: bool) -> None:
    """Run one setting in a worker of Ray's."""
    with one_thread_each():
        simulate(study, cohorts, out, workers=1, show=_quiet, protocol=protocol, alone=False)


def _quiet(record: JsonRecord) -> None:
    """Show nothing: nobody watches many settings at the same time."""
    del record


def _finished(study: Study, folder: Path) -> bool:
    """Return whether a setting's result is there.

    Raises:
        SettingsError: the folder holds the result of another study.
    """
    if not (folder / RUN).exists():
        return False
    if _read(folder).get("study_digest") != study.digest.hex():
        raise SettingsError(
            f"{folder}: holds a run of another study or of an earlier version of this one; choose "
            "another --out"
        )
    return True


def _read(folder: Path) -> JsonRecord:
    try:
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{folder / RUN}: cannot be read; if the sweep ran on a cluster, --out must be a "
            "folder that all its machines share; else remove the file and run the sweep again"
        ) from error
    if not isinstance(found, dict):
        raise SettingsError(f"{folder / RUN}: is no run's record; remove it and run again")
    return found


def _summary(
    study: Study, settings: Mapping[str, Study], done: Mapping[str, JsonRecord]
) -> dict[str, Any]:
    """Return the content of ``sweep.json``: each finished setting's figures."""
    return {
        "schema": SCHEMA,
        "study": study.name,
        "settings": {
            name: {
                "seed": settings[name].seed,
                "privacy": record["privacy"],
                "test": record["test"],
                "seconds": record["seconds"],
            }
            for name, record in done.items()
        },
    }
