"""Commands that use a trained model at the site.

They are model, recalibrate, predict, explain, suspect-labels and stream.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.client.commands.options import DEFAULT_FOLDER, Folder, Json, Settings, Where
from consilium.shared.errors import DataError, SettingsError
from consilium.shared.service.terminal import Table, Terminal

if TYPE_CHECKING:
    from consilium.client.sources.common.settings import DataSettings
    from consilium.client.sources.common.source import Source
    from consilium.shared.export.manifest import ModelManifest
    from consilium.shared.export.signed_model import SignedModel
    from consilium.shared.study.definition import Study
    from consilium.shared.study.training import Privacy

SIMULATED = "of a SIMULATION, by a key of its own: not for use on patients"
Exported = Annotated[Path, typer.Argument(help="Folder of an exported model.", show_default=False)]
Signer = Annotated[
    str,
    typer.Option(
        help="Identity that must have signed the model, hexadecimal; unless given, "
        "the coordinator this site is enrolled with, or this site itself."
    ),
]
Data = Annotated[
    Path | None, typer.Option(help="Instead: folder or file of the model's kind of records.")
]
console = Terminal()


def add_model_commands(app: typer.Typer) -> None:
    """Add these commands to the site's."""
    app.command()(model)
    app.command()(recalibrate)
    app.command()(predict)
    app.command()(explain)
    app.command(name="suspect-labels")(suspect_labels)
    app.command()(stream)


def model(
    exported: Exported,
    folder: Folder = DEFAULT_FOLDER,
    signer: Signer = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Check an exported model's signature and every part; say what it is and what it reads."""
    found = open_model(exported, folder, signer)
    if as_json:
        console.print_json(found.manifest.model_dump_json())
        return
    _show(found.manifest, found.trained.study.privacy)


def recalibrate(
    exported: Exported,
    out: Annotated[Path, typer.Option(help="New folder for the model as put right.")],
    folder: Folder = DEFAULT_FOLDER,
    signer: Signer = "",
    settings: Settings = None,
    data: Data = None,
    where: Where = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="None of these patients trained the model.")
    ] = False,
) -> None:
    """Put a model's risks right for this site, by its own patients who did not train it."""
    from consilium.client.bedside.recalibration import recalibrate_at_site
    from consilium.client.commands.check import records_named
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.sources.registry import open_source

    found = open_own_model(exported, folder, signer)
    opened = SiteFolder.open(folder)
    chosen = records_named(found.trained.study, folder, settings, data, where or [])
    manifest, fits = recalibrate_at_site(
        found,
        open_source(chosen, found.trained.study),
        out,
        key=opened.identity(),
        split_key=None if untrained else opened.split_key(),
    )
    console.print(manifest.recalibrated, markup=False)
    for name, fit in zip(manifest.outputs, fits, strict=True):
        for when, ratio in (("before", fit.before), ("after", fit.after)):
            if ratio is not None:
                console.print(
                    f"  {name}: {ratio.value:.2f} outcomes for each one predicted {when} "
                    f"({ratio.low:.2f} to {ratio.high:.2f})",
                    markup=False,
                )
    console.print("after: each patient's risk put right by the others, in five folds.")
    console.print(
        f"{out}: the model for use here, signed by this site. It tells of this hospital's "
        "patients: keep it here.",
        markup=False,
    )


def predict(
    exported: Exported,
    out: Annotated[
        Path,
        typer.Option(help="File: .csv or .jsonl; with --fhir .ndjson, or .json for a Bundle."),
    ],
    folder: Folder = DEFAULT_FOLDER,
    signer: Signer = "",
    settings: Settings = None,
    data: Data = None,
    where: Where = None,
    fhir: Annotated[
        bool, typer.Option("--fhir", help="Write FHIR R4 RiskAssessments, with reasons.")
    ] = False,
    transaction: Annotated[
        bool,
        typer.Option("--transaction", help="With --fhir and .json: a Bundle that a server takes."),
    ] = False,
) -> None:
    """Score this site's stays with an exported model, into a file that stays here."""
    from consilium.client.bedside.prediction import predict_patients, write_predictions
    from consilium.client.commands.bedside import noted_predictions, predict_fhir
    from consilium.client.explain.answers import meaning

    form = out.suffix.removeprefix(".")
    forms = ("ndjson", "json") if fhir else ("csv", "jsonl")
    if form not in forms:
        kind = "with --fhir " if fhir else ""
        raise SettingsError(f"--out {out}: must end {kind}in .{' or .'.join(forms)}; rename it")
    if transaction and form != "json":
        raise SettingsError("--transaction is of a Bundle: give --fhir, and --out FILE.json")
    found = open_own_model(exported, folder, signer)
    chosen = _records(found, folder, settings, data, where)
    if fhir:
        predict_fhir(found, chosen, folder, out, console, transaction=transaction)
        return
    source = opened(found, chosen)
    predictions = predict_patients(found.trained, source.read_patients(found.trained.study))
    predictions = noted_predictions(found, folder, predictions)
    rows = write_predictions(out, found, predictions, form=form)  # type: ignore[arg-type]  # checked above
    report = source.report
    console.print(
        f"{out}: {rows} rows of {report.stays} stays of {report.patients} patients; only this "
        "account can read it.",
        markup=False,
    )
    console.print(meaning(found) + ".", markup=False)


def explain(
    exported: Exported,
    stay: Annotated[str, typer.Option(help="Identifier of the stay.")],
    output: Annotated[str, typer.Option(help="Which of the outputs; the first.")] = "",
    folder: Folder = DEFAULT_FOLDER,
    signer: Signer = "",
    settings: Settings = None,
    data: Data = None,
    where: Where = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw variables and hours: FILE.png or FILE.svg.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say why the model says what it says of one stay: by variable and hour; shown here only."""
    from consilium.client.commands.explain import run_explain

    found, source = _with_records(exported, folder, signer, settings, data, where)
    patients = source.read_patients(found.trained.study)
    run_explain(found, patients, stay, console, output=output, as_json=as_json, plot=plot)


def suspect_labels(
    exported: Exported,
    out: Annotated[Path, typer.Option(help="File for the list: .csv.")],
    number: Annotated[int, typer.Option(min=1, help="How many stays to list.")] = 50,
    folder: Folder = DEFAULT_FOLDER,
    signer: Signer = "",
    settings: Settings = None,
    data: Data = None,
    where: Where = None,
) -> None:
    """List the stays whose label a finished model doubts most, into a file that stays here."""
    from consilium.client.bedside.suspect_labels import suspects, write_suspects
    from consilium.client.commands.check import records_named
    from consilium.client.records.windows import read_windows
    from consilium.client.sources.registry import open_source

    if out.suffix != ".csv":
        raise SettingsError(f"--out {out}: must end in .csv; rename it")
    found = open_own_model(exported, folder, signer)
    study = found.trained.study
    source = open_source(records_named(study, folder, settings, data, where or []), study)
    windows, names = read_windows(source, study), tuple(found.manifest.outputs)
    listed, read = suspects(found.trained, windows, names, most=number)
    write_suspects(out, listed)
    console.print(
        f"{out}: the {len(listed)} of {read} stays with a label that the model doubts most; only "
        "this account can read it.",
        markup=False,
    )
    console.print("A doubted label may be right: look at the record before you change it.")


def stream(
    exported: Exported,
    folder: Folder = DEFAULT_FOLDER,
    signer: Signer = "",
    http: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve HTTP on this port of 127.0.0.1; 0 takes one."),
    ] = None,
    reasons: Annotated[
        bool, typer.Option("--reasons/--no-reasons", help="Say which variables mattered most.")
    ] = True,
    settings: Settings = None,
) -> None:
    """Score stays as their events come: a JSON event a line on standard input, or over HTTP.

    A line may be a FHIR Encounter, Patient or Observation, too. A model of [data.derived] variables
    reads recordings instead: lines of samples and beats.
    """
    import torch

    from consilium.client.bedside.scorer import Scorer
    from consilium.client.bedside.signal_scorer import SignalScorer
    from consilium.client.bedside.stream_service import StreamService, answer_stream, lines_of
    from consilium.client.commands.bedside import noted_scorer
    from consilium.client.explain.answers import meaning

    torch.set_num_threads(1)  # an event is too little work to share
    found = open_own_model(exported, folder, signer)
    derived = bool(found.trained.study.data.derived)
    plain: Scorer | SignalScorer
    plain = SignalScorer(found) if derived else Scorer(found, reasons=reasons)
    scorer = noted_scorer(found, folder, settings, plain)
    stderr = Terminal(stderr=True)
    stderr.print(f"{found.manifest.study}: {meaning(found)}.", markup=False)
    try:
        if http is not None:
            service = StreamService(scorer, port=http)
            stderr.print(f"POST http://127.0.0.1:{service.port}/events", markup=False)
            service.wait()
        number, failed = answer_stream(scorer, lines_of(sys.stdin.buffer), sys.stdout)
    except KeyboardInterrupt:  # the usual end of a service; the stays are forgotten
        raise typer.Exit(0) from None
    if failed:
        raise DataError(f"{failed} of {number} events could not be used; their answers say why")


def _with_records(
    exported: Path,
    folder: Path,
    signer: str,
    settings: Path | None,
    data: Path | None,
    where: list[str] | None,
) -> "tuple[SignedModel, Source]":
    """Return the model, and the records, read without outcomes if the source allows it."""
    found = open_own_model(exported, folder, signer)
    return found, opened(found, _records(found, folder, settings, data, where))


def _records(
    found: "SignedModel",
    folder: Path,
    settings: Path | None,
    data: Path | None,
    where: list[str] | None,
) -> "DataSettings":
    from consilium.client.commands.check import records_named

    return records_named(found.trained.study, folder, settings, data, where or [])


def opened(found: "SignedModel", chosen: "DataSettings") -> "Source":
    """Open records, without their outcomes if the source allows it.

    Raises:
        DataError: they are not there, or the study wants another source.
    """
    from consilium.client.sources.common.source import WithoutLabels
    from consilium.client.sources.registry import open_source

    source = open_source(chosen, found.trained.study)
    return source.without_labels() if isinstance(source, WithoutLabels) else source


def open_model(exported: Path, folder: Path, signer: str) -> "SignedModel":
    """Load an exported model signed by an identity that this site trusts.

    This is the one given, or else the coordinator's or the site's own.

    Raises:
        SettingsError: no identity is known, or the one given is not an identity.
        ProtocolError: the model is incomplete or changed, or another identity signed it.
    """
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.hospital.policy_file import read_policy
    from consilium.shared.crypto.keys import KEY_BYTES
    from consilium.shared.export.signed_model import load_signed_model, signed_by

    def allow(study: "Study") -> None:
        if study.model.modules:
            read_policy(folder).check_modules(study)

    if not signer:
        opened = SiteFolder.open(folder)
        own = opened.identity().public
        if signed_by(exported) == own:
            return load_signed_model(exported, own, allow=allow)
        return load_signed_model(exported, opened.enrolment().coordinator, allow=allow)
    try:
        identity = bytes.fromhex(signer)
    except ValueError:
        identity = b""
    if len(identity) != KEY_BYTES:
        raise SettingsError(
            f"--signer {signer[:80]}: is not {2 * KEY_BYTES} hexadecimal digits; whoever exported "
            "the model was told them"
        )
    return load_signed_model(exported, identity, allow=allow)


def open_own_model(exported: Path, folder: Path, signer: str) -> "SignedModel":
    """Load an exported model as :func:`open_model` does, and put in this site's own part of it.

    For a simulated model, say so on standard error.

    Raises:
        SettingsError: as there, or some weights stay at each site and this site has kept none.
    """
    from consilium.client.hospital.folder import SiteFolder
    from consilium.client.round.own_part import own_trained

    found = open_model(exported, folder, signer)
    if found.manifest.simulated:
        stderr = Terminal(stderr=True)
        stderr.print(f"{exported}: {SIMULATED}", markup=False)
    recalibration = found.manifest.recalibration
    # A model recalibrated here already contains this site's own part.
    made_here = recalibration is not None and recalibration.made_from is not None
    if made_here or not found.trained.study.personalisation.active:
        return found
    store = SiteFolder(path=folder).personal()
    return replace(found, trained=own_trained(found.trained, store))


def _show(manifest: "ModelManifest", privacy: "Privacy") -> None:
    def say(name: str, value: object) -> None:
        console.print(f"{name:<10}  {value}", markup=False)

    say("study", f"{manifest.study}: {manifest.title}")
    say("digest", manifest.study_digest)
    say("signed", f"by {manifest.signed_by}, {manifest.made}")
    if manifest.simulated:
        say("", SIMULATED)
    say("outputs", ", ".join(manifest.outputs))
    say("reads", manifest.window)
    spent = "without privacy"
    if manifest.epsilon is not None:
        spent = (
            f"epsilon {manifest.epsilon:.2f} at delta {manifest.delta:g} for each {privacy.unit}"
        )
    say("training", f"{manifest.rounds} rounds; {spent}")
    if manifest.epsilon is not None and privacy.caveat:
        say("", privacy.caveat)
    say("made by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items()))
    say("risks", manifest.recalibrated)
    say("sites", manifest.sites or "The same throughout the study.")
    table = Table("variable", "unit", "from", "to", box=None, pad_edge=False)
    for variable in manifest.variables:
        table.add_row(variable.name, variable.unit, f"{variable.low:g}", f"{variable.high:g}")
    console.print(table, markup=False)
    if manifest.validation is None:
        console.print("Nothing is known of its risks: the study kept no validation patients.")
        return
    validation = manifest.validation
    console.print(f"On {validation.patients:.0f} {validation.of}:", markup=False)
    for name, points in zip(manifest.outputs, validation.thresholds, strict=False):
        if not points:
            console.print(f"  {name}: no thresholds, privacy noise hides them", markup=False)
        for point in points:
            console.print(
                f"  {name}: alarm from {point.threshold:.3f} ({point.name}): sensitivity "
                f"{point.sensitivity:.3f}, specificity {point.specificity:.3f}, alarms "
                f"{point.alarm_rate:.3f}",
                markup=False,
            )
    for name, error in zip(manifest.outputs, validation.errors, strict=False):
        if error is not None:
            console.print(f"  {name}: root of the mean squared error {error:.3g}", markup=False)
    console.print("The signature and every part fit.", style="green")
