"""Commands that train: the demo, one run, a sweep, comparisons, a search for settings."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.shared.errors import SettingsError
from consilium.simulations.commands.options import (
    CORES,
    By,
    Data,
    Engine,
    EngineAddress,
    Key,
    OnEngine,
    Persons,
    PersonsAre,
    Protocol,
    RecordsSettings,
    Seed,
    Sites,
    SiteSettings,
    StudyFile,
    TestPersons,
    Workers,
)

if TYPE_CHECKING:
    from consilium.shared.study.definition import Study
    from consilium.simulations.cohorts.cohorts import Cohorts
    from consilium.simulations.cohorts.given_records import Given
    from consilium.simulations.federation.ray_cluster import Cluster
    from consilium.simulations.federation.run import Show
    from consilium.simulations.runs.compare import Compared


class PrivateMode(StrEnum):
    """The privacy modes that keep anything private."""

    SITE = "site"
    DISTRIBUTED = "distributed"


def demo(
    out: Annotated[Path | None, typer.Option(help="Folder for results; runs/demo-N.")] = None,
    workers: Workers = CORES,
) -> None:
    """Eight synthetic hospitals, an LSTM, privacy and secure sum on; about a minute, offline."""
    from consilium.simulations.cohorts.given_records import Given
    from consilium.simulations.runs.examples import example_study

    study, folder = example_study("demo"), out or _unused(Path("runs"), "demo")
    _run(study, Given(), folder, workers, protocol=True)


def run(
    study: StudyFile,
    out: Annotated[Path, typer.Option(help="Folder for results; an unfinished run goes on.")],
    data: Data = None,
    settings: SiteSettings = None,
    records: RecordsSettings = None,
    sites: Sites = None,
    by: By = None,
    test: TestPersons = None,
    persons: Persons = None,
    key: Key = None,
    workers: Workers = CORES,
    seed: Seed = None,
    protocol: Protocol = False,
    alone: Annotated[
        bool, typer.Option(help="Also train each hospital's own model: what did joining bring?")
    ] = True,
    external: Annotated[
        bool, typer.Option("--external", help="Also run it without each hospital, to test there.")
    ] = False,
    engine: OnEngine = Engine.LOCAL,
    engine_address: EngineAddress = None,
) -> None:
    """Run a study across its sites and judge the model on test patients."""
    given = _given(study, data, settings, records, sites, by, test, persons, key, external)
    cluster = _cluster(engine, engine_address)
    loaded = _load(study, seed)
    _run(
        loaded, given, out, workers, protocol=protocol, alone=alone, external=external,
        cluster=cluster,
    )  # fmt: skip


def sweep(
    study: StudyFile,
    out: Annotated[Path, typer.Option(help="Folder for results; finished settings are kept.")],
    seed: Annotated[list[int] | None, typer.Option(min=0, help="A seed; repeat.")] = None,
    epsilon: Annotated[list[float] | None, typer.Option(help="A budget; repeat.")] = None,
    data: Data = None,
    settings: SiteSettings = None,
    records: RecordsSettings = None,
    sites: Sites = None,
    by: By = None,
    test: TestPersons = None,
    persons: Persons = None,
    key: Key = None,
    workers: Workers = CORES,
    protocol: Protocol = False,
    engine: OnEngine = Engine.LOCAL,
    engine_address: EngineAddress = None,
) -> None:
    """Run a study once with each seed and budget; the same command runs only what is missing.

    With --engine flower each setting is a task of Ray on one core, and OUT must be a folder that
    every machine of the cluster sees under this name.
    """
    from consilium.simulations.commands.console import show_sweep
    from consilium.simulations.runs.sweep import sweep as run_sweep

    given = _given(study, data, settings, records, sites, by, test, persons, key)
    loaded, cohorts = _dealt(_load(study, None), given, protocol=protocol)
    cluster = _cluster(engine, engine_address)
    rows = run_sweep(
        loaded, cohorts, out, seeds=seed, epsilons=epsilon, workers=workers, watch=_watch,
        protocol=protocol, cluster=cluster,
    )  # fmt: skip
    show_sweep(loaded, rows, out)


def compare(
    study: StudyFile,
    out: Annotated[Path, typer.Option(help="Folder for results; finished settings are kept.")],
    data: Data = None,
    settings: SiteSettings = None,
    records: RecordsSettings = None,
    sites: Sites = None,
    by: By = None,
    test: TestPersons = None,
    persons: Persons = None,
    key: Key = None,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="Budgets to compare; the study's, 3 and 1.")
    ] = None,
    mode: Annotated[
        list[PrivateMode] | None, typer.Option(help="Privacy modes to compare; the study's own.")
    ] = None,
    strategies: Annotated[
        str,
        typer.Option(
            help="Compare these instead, e.g. fedavg,fedprox,head: how hospitals share a model and "
            "what each keeps; 'all' for all, + joins two."
        ),
    ] = "",
    seeds: Annotated[
        int, typer.Option(min=1, help="Repeat with so many seeds and print the means.")
    ] = 1,
    workers: Workers = CORES,
    seed: Seed = None,
    protocol: Protocol = False,
) -> None:
    """Compare local, pooled, federated, and federated private training in one table."""
    from consilium.simulations.commands.console import (
        show_comparison,
        show_seeds,
        show_strategies,
    )
    from consilium.simulations.commands.strategies import STRATEGIES, compare_strategies
    from consilium.simulations.runs.compare import compare_settings
    from consilium.simulations.runs.seeds import compare_over_seeds

    if strategies and epsilon:
        raise SettingsError(
            "--epsilon does not go with --strategies, which keep the study's; leave one out"
        )
    modes = [one.value for one in mode or ()]
    given = _given(study, data, settings, records, sites, by, test, persons, key)
    loaded, cohorts = _dealt(_load(study, seed), given, protocol=protocol)

    def all_settings(one: "Study", folder: Path) -> "Compared":
        return compare_settings(
            one,
            cohorts,
            folder,
            epsilons=epsilon,
            workers=workers,
            watch=_watch,
            modes=modes,
            protocol=protocol,
        )

    def chosen(one: "Study", folder: Path) -> "Compared":
        own = [one.privacy.mode] if one.privacy.mode != "none" else []
        compared, refused = compare_strategies(
            one,
            cohorts,
            folder,
            strategies=list(STRATEGIES) if strategies == "all" else strategies.split(","),
            modes=["none", *(modes or own)],
            workers=workers,
            watch=_watch,
            protocol=protocol,
        )
        show_strategies(one, compared, refused, folder)
        return compared

    run_one = chosen if strategies else all_settings
    if seeds > 1:
        show_seeds(loaded, compare_over_seeds(loaded, out, seeds=seeds, compare=run_one), out)
        return
    table = run_one(loaded, out)
    if not strategies:
        show_comparison(loaded, table, out)


def tune(
    study: StudyFile,
    runs: Annotated[int, typer.Option(min=1, help="Federated runs; a setting takes one a fold.")],
    out: Annotated[Path, typer.Option(help="Folder for results; finished runs are kept.")],
    data: Data = None,
    settings: SiteSettings = None,
    records: RecordsSettings = None,
    sites: Sites = None,
    by: By = None,
    test: TestPersons = None,
    persons: Persons = None,
    key: Key = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the training patients.")] = 3,
    by_site: Annotated[
        bool, typer.Option("--by-site", help="Leave out whole sites, not persons of every site.")
    ] = False,
    space: Annotated[
        Path | None, typer.Option(help="What is searched, a TOML file; the usual unless given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the folds and of what is drawn.")
    ] = None,
    workers: Workers = CORES,
) -> None:
    """Choose a study's settings on folds of its training patients; test patients are never read.

    The study's own settings stay unless others are better by more than a standard error.
    """
    from consilium.shared.study.definition import load_study
    from consilium.simulations.cohorts.given_records import simulated
    from consilium.simulations.commands.console import announce
    from consilium.simulations.commands.tune_table import show_begun, show_run, show_tuned
    from consilium.simulations.experiments.search_space import read_space, usual_space
    from consilium.simulations.runs.tune import tune as search_settings
    from consilium.simulations.runs.tune_record import Search

    loaded = load_study(study)
    given = _given(study, data, settings, records, sites, by, test, persons, key)
    loaded, cohorts = simulated(loaded, given)
    search = Search(
        space=usual_space(loaded) if space is None else read_space(space),
        runs=runs,
        folds=folds,
        by_site=by_site,
        seed=loaded.seed if seed is None else seed,
    )
    announce(loaded)
    show_begun(loaded, search)
    record = search_settings(
        loaded,
        cohorts,
        out,
        search,
        workers=workers,
        done=show_run,
        text=study.read_text(encoding="utf-8"),
    )
    show_tuned(record, out)


def studies(
    data: Annotated[Path, typer.Option(help="Folder with a folder of each collection.")],
    out: Annotated[Path, typer.Option(help="Folder for results; finished studies are kept.")],
    folder: Annotated[Path, typer.Option(help="Folder of the studies.")] = Path("studies"),
    workers: Workers = CORES,
) -> None:
    """Compare the settings of every study in a folder, and print one table of all."""
    from consilium.simulations.commands.all_studies import compare_all
    from consilium.simulations.commands.console import announce, show_comparison, show_studies

    rows = compare_all(
        folder, data, out, workers=workers, watch=_watch, begin=announce, end=show_comparison
    )
    show_studies(rows, out)


def _load(path: Path, seed: int | None) -> "Study":
    from consilium.shared.study.definition import load_study, with_changes

    study = load_study(path)
    return study if seed is None else with_changes(study, study={"seed": seed})


def _given(
    study: Path,
    data: Path | None,
    settings: list[str] | None,
    records: Path | None,
    sites: int | None,
    by: str | None,
    test: str | None,
    persons: PersonsAre | None,
    key: str | None,
    external: bool = False,
) -> "Given":
    from consilium.simulations.cohorts.given_records import Given
    from consilium.simulations.cohorts.records_file import test_given
    from consilium.simulations.cohorts.records_plan import Choice

    choice = Choice(
        sites=sites,
        column=by,
        test=None if test is None else test_given(test),
        persons=None if persons is None else persons.value,
        key=key,
        by_site=external,
    )
    return Given(
        beside=study, data=data, settings=tuple(settings or ()), records=records, choice=choice
    )


def _dealt(study: "Study", given: "Given", *, protocol: bool) -> "tuple[Study, Cohorts | None]":
    """Print what the study is and who is dealt where; return it and its cohorts.

    The cohorts are None if patients are synthetic: they depend on the seed, so each run makes them.
    """
    from consilium.simulations.cohorts.given_records import dealt_sentences, simulated
    from consilium.simulations.commands.console import announce, console

    study, cohorts = simulated(study, given)
    announce(study, protocol=protocol)
    if cohorts.dealing is None:
        return study, None
    for sentence in dealt_sentences(cohorts.dealing, study):
        console.print(sentence, markup=False, soft_wrap=True)
    return study, cohorts


def _run(
    study: "Study",
    given: "Given",
    out: Path,
    workers: int,
    *,
    protocol: bool,
    alone: bool = True,
    external: bool = False,
    cluster: "Cluster | None" = None,
) -> None:
    from consilium.simulations.commands.console import Progress, show_engine, show_result
    from consilium.simulations.runs.simulate import simulate

    study, cohorts = _dealt(study, given, protocol=protocol)
    engine = None
    if cluster is not None:
        from consilium.simulations.federation.flower_engine import FlowerEngine

        engine = FlowerEngine(cluster, workers=workers)
    record = simulate(
        study,
        cohorts,
        out,
        workers=workers,
        show=Progress(study).round,
        protocol=protocol,
        alone=alone,
        outside=_watch if external else None,
        engine=engine,
    )
    show_result(study, record, out)
    if engine is not None:
        show_engine(engine.computed)


def _cluster(engine: Engine, address: str | None) -> "Cluster | None":
    """Return which Ray is meant, None if none is."""
    if engine is Engine.FLOWER:
        from consilium.simulations.federation.ray_cluster import Cluster

        return Cluster(address)
    if address is not None:
        raise SettingsError(
            f"--engine-address {address}: goes with --engine flower; give both, or neither"
        )
    return None


def _watch(setting: str, study: "Study") -> "Show":
    from consilium.simulations.commands.console import Progress, console

    console.heading(setting)
    return Progress(study).round


def _unused(folder: Path, name: str) -> Path:
    """Return the first of name, name-2, name-3 ... that does not exist."""
    number = 1
    path = folder / name
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}"
    return path
