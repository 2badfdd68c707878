"""``consilium-simulate``: many hospitals in one process, for researchers and newcomers.

Each command imports what it needs when it is called: ``--help`` must not wait for PyTorch.
"""

import json
import os
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from consilium.shared.errors import PrivacyError, SettingsError
from consilium.shared.service.command_line import run_command

if TYPE_CHECKING:
    from consilium.shared.study.definition import Study
    from consilium.simulations.cohorts.cohorts import Cohorts
    from consilium.simulations.cohorts.given_records import Given
    from consilium.simulations.federation.ray_cluster import Cluster
    from consilium.simulations.federation.run import Show
    from consilium.simulations.runs.compare import Compared

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train one model across many simulated hospitals, on this machine alone.",
)


class Engine(StrEnum):
    """Where the sites of a simulation compute."""

    LOCAL = "local"
    FLOWER = "flower"


class HoursIn(StrEnum):
    """What numbers of hours may count."""

    MINUTES = "min"
    HOURS = "h"
    DAYS = "d"


class PersonsAre(StrEnum):
    """What an identifier that occurs in two files is."""

    SAME = "same"
    OWN = "own"


StudyFile = Annotated[Path, typer.Argument(help="The study, a TOML file.", show_default=False)]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder or file of the records, for an example study or --records."),
]
SiteSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--settings", help="A site's records: FILE or SITE=FILE, such as a site.toml; repeat."
    ),
]
RecordsSettings = Annotated[
    Path | None, typer.Option("--records", help="Settings of one collection, dealt to the sites.")
]
Sites = Annotated[int | None, typer.Option(min=1, help="Deal persons to so many sites, by a hash.")]
By = Annotated[
    str | None, typer.Option(help="Deal persons by this column of the stays, a site a value.")
]
TestPersons = Annotated[
    str | None,
    typer.Option(
        "--test",
        help="Whom to test on: a fraction of persons (0.2), COLUMN=VALUE, a date from which on "
        "they first came, or FILE.toml.",
    ),
]
Persons = Annotated[
    PersonsAre | None,
    typer.Option(help="Is one identifier in two files the same person, or each file's own?"),
]
Key = Annotated[str | None, typer.Option(help="Another key of the hash deals persons otherwise.")]
Workers = Annotated[int, typer.Option(min=1, help="Sites that train at the same time.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Use another seed than the study's.")]
OnEngine = Annotated[
    Engine,
    typer.Option(
        "--engine", help="Where sites compute: in this process, or on Flower's Ray runtime."
    ),
]
EngineAddress = Annotated[
    str | None,
    typer.Option(help="A Ray cluster: HOST:PORT, ray://HOST:PORT or auto; else Ray starts here."),
]
Protocol = Annotated[
    bool,
    typer.Option(
        "--protocol",
        help="Send every message of the secure sum; else the same numbers are added in the clear.",
    ),
]
CORES = len(os.sched_getaffinity(0))


class OneThread(TyperCommand):
    """A command in which each site computes on one thread.

    The sites run in parallel, and results must not depend on how a matrix product is split.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command with one thread for each site."""
        from consilium.simulations.federation.threads import one_thread_each

        with one_thread_each():
            return super().invoke(ctx)


class PrivateMode(StrEnum):
    """The privacy modes that keep anything private."""

    SITE = "site"
    DISTRIBUTED = "distributed"


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="Folder for results; runs/demo-N.")] = None,
    workers: Workers = CORES,
) -> None:
    """Eight synthetic hospitals, an LSTM, privacy and secure sum on; about a minute, offline."""
    from consilium.simulations.cohorts.given_records import Given
    from consilium.simulations.runs.examples import example_study

    study, folder = example_study("demo"), out or _unused(Path("runs"), "demo")
    _run(study, Given(), folder, workers, protocol=True)


@app.command()
def init(
    records: Annotated[
        Path, typer.Argument(help="A table, or a folder of records.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for both files; NAME-study unless given.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Say what a column is: person=pat_id, label=died, time=taken; repeat."),
    ] = None,
    separator: Annotated[str | None, typer.Option(help="Between the columns of a CSV.")] = None,
    time_format: Annotated[str | None, typer.Option(help="Of times, such as '%d/%m/%Y'.")] = None,
    hours_unit: Annotated[
        HoursIn | None, typer.Option(help="What a column of hours counts.")
    ] = None,
) -> None:
    """Look at records, and write a study and settings for them: guesses, for you to correct."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.commands.first_look import said
    from consilium.simulations.guesses.first_files import guess, usual_folder, write

    hours = None if hours_unit is None else hours_unit.value
    first = guess(records, said(column or [], separator, time_format, hours))
    study, settings, *made = write(first, out or usual_folder(records))
    for sentence in (
        f"{study}, {settings}: {first.guesses} guesses, each with a comment; correct them.",
        *(f"{file}: made of your table; the settings say how." for file in made),
        f"To see what is read: consilium-site check {study} --settings {settings}",
        f"To run it: consilium-simulate run {study} --records {settings} --out runs/first",
    ):
        console.print(sentence, markup=False, soft_wrap=True)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a comparison.")],
    out: Annotated[Path | None, typer.Option(help="File to write; report.html there.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="A compare.json of the same study, or its folder.")
    ] = None,
) -> None:
    """Write the report of a run as one HTML file: figures, what is protected, a model card."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.report.files import write_report

    written = write_report(folder, out, compare)
    console.print(f" report  {written}", markup=False, soft_wrap=True)


@app.command()
def rounds(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a coordinator's rounds.jsonl.")],
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write TensorBoard events into this folder instead.")
    ] = None,
) -> None:
    """Print a run's rounds as CSV, a line a round, or write them for TensorBoard."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.report.rounds_export import read_rounds, to_csv, write_tensorboard

    found = read_rounds(run)
    if tensorboard is None:
        print(to_csv(found), end="")  # noqa: T201 - nothing else on standard output, to be piped
        return
    count = write_tensorboard(found, tensorboard)
    sentence = f"{count} figures of {len(found)} rounds; see them with: tensorboard --logdir"
    console.print(f"{sentence} {tensorboard}", markup=False, soft_wrap=True)


@app.command()
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


@app.command()
def plan(
    study: StudyFile,
    patients: Annotated[int, typer.Option(min=1, help="Training patients at each site.")] = 1000,
    epsilon: Annotated[list[float] | None, typer.Option(help="Budgets; 8, 3, 1.")] = None,
    noise: Annotated[
        float | None, typer.Option(help="Also say what this noise multiplier costs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show who shares masks and what privacy would cost, before anyone spends anything."""
    from consilium.shared.study.definition import load_study
    from consilium.simulations.commands.console import (
        console,
        show_margins,
        show_plan,
        show_sum_plan,
    )
    from consilium.simulations.experiments.planning import (
        choices,
        cost_of_noise,
        margins,
        noise_carried,
        sum_plan,
    )

    loaded = load_study(study)
    found = choices(loaded, patients=patients, epsilons=tuple(epsilon or ()))
    costs = {} if noise is None else cost_of_noise(loaded, noise)
    if as_json:
        record = {
            "secure_sum": asdict(sum_plan(loaded)),
            "choices": [asdict(choice) for choice in found],
            "noise_carried": noise_carried(loaded),
            "margins": [asdict(margin) for margin in margins(loaded)],
            "epsilon_of_noise": {str(rounds): epsilon for rounds, epsilon in costs.items()},
        }
        console.print_json(json.dumps(record))
        return
    show_sum_plan(sum_plan(loaded))
    show_plan(loaded, found, patients)
    show_margins(loaded, margins(loaded))
    for rounds, spent in costs.items():
        console.print(f"Noise multiplier {noise:g} for {rounds} rounds costs epsilon {spent:.2f}.")


@app.command()
def module(
    name: Annotated[str, typer.Argument(help="As the package registers it.", show_default=False)],
) -> None:
    """Print how a study names an installed package's network, with the digest of its code."""
    from consilium.shared.model.installed_module import installed_table
    from consilium.simulations.commands.console import console

    console.print(installed_table(name), markup=False, end="")


@app.command()
def worst_case(
    studies: Annotated[list[Path], typer.Argument(help="The studies' files.")],
    into: Annotated[
        Path | None, typer.Option(help="Also write the table between the marks of this page.")
    ] = None,
) -> None:
    """Show what studies' releases cost if the coordinator lies and sites help it.

    Ends with status 1 if a study then costs more than it claims.
    """
    from consilium.shared.study.definition import load_study
    from consilium.simulations.experiments import worst_case as worst

    loaded = [load_study(study) for study in studies]
    cases = [worst.worst_case(one) for one in loaded if one.privacy.mode != "none"]
    table = worst.worst_cases_table(cases)
    print(table)  # noqa: T201 - a table in Markdown, to be copied as it is
    if into is not None:
        worst.write_table(into, table)
    if broken := [case.study for case in cases if not case.holds]:
        raise PrivacyError(
            f"{', '.join(broken)}: costs more in the worst case than it claims; raise "
            "[aggregation] minimum_sites or lower tolerated_collusion"
        )


@app.command()
def audit_privacy(
    study: StudyFile,
    confidence: Annotated[
        float, typer.Option(help="Probability with which an honest build passes; below 1.")
    ] = 0.999,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure the noise, clipping, sampling and ledger of each of a study's releases.

    The code that hospitals run is called on made-up patients; no records are needed, any study with
    privacy will do. A measurement that refutes a claim ends the command with an error.
    """
    from consilium.shared.study.definition import load_study
    from consilium.simulations.commands.audit_table import audit_record, show_audit
    from consilium.simulations.commands.console import console
    from consilium.simulations.experiments.privacy_audit import audit_study

    with console.status("measuring what a site would release, with and without a canary patient"):
        audit = audit_study(load_study(study), confidence=confidence)
    if as_json:
        console.print_json(json.dumps(audit_record(audit)))
    else:
        show_audit(audit)
    if audit.convicted:
        found = audit.convicted[0]
        raise PrivacyError(
            f"{found.release}, {found.what}: {found.measured:.4g} was measured where "
            f"{found.claimed:.4g} is claimed, and {len(audit.convicted)} of "
            f"{len(audit.findings)} findings refute a claim; do not release anything"
        )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Add the model in ONNX form.")] = False,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Put risks right by the validation patients.")
    ] = False,
) -> None:
    """Write a run's model with its manifest, signed by a key made in the run's folder."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.runs.export import export_run

    manifest = export_run(run, out, onnx=onnx, recalibrate=recalibrate)
    console.print(f"{out}: the model of study {manifest.study}, simulated.", markup=False)
    console.print(f"signer  {manifest.signed_by}", markup=False, soft_wrap=True)
    if recalibrate:
        console.print(manifest.recalibrated, markup=False, soft_wrap=True)
    console.print("To check it: consilium-site model FOLDER --signer SIGNER", markup=False)


@app.command()
def doctor() -> None:
    """Say what this machine uses, and why: recurrent kernel, versions, cores."""
    from consilium.simulations.commands.console import console
    from consilium.simulations.commands.doctor import checkup

    for name, value in checkup().items():
        console.print(f"{name:>12}  {value}", markup=False, soft_wrap=True)


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


def main() -> None:
    """Entry point of ``consilium-simulate``."""
    for command in app.registered_commands:
        command.cls = OneThread
    run_command(app, name="consilium-simulate")
