"""Commands for other programs at the bedside: cds-hooks, and decision-log."""

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.client.commands.model import Exported, Signer, open_own_model
from consilium.client.commands.options import DEFAULT_FOLDER, Folder, Json, Settings
from consilium.shared.errors import AuditError, SettingsError
from consilium.shared.service.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from consilium.client.bedside.decision_log import Notes
    from consilium.client.bedside.fhir_stream import FhirStream
    from consilium.client.bedside.noted_scorer import NotedScorer
    from consilium.client.bedside.prediction import StayScores
    from consilium.client.bedside.scorer import Scorer
    from consilium.client.bedside.signal_scorer import SignalScorer
    from consilium.client.sources.common.settings import DataSettings
    from consilium.client.sources.own.settings.systems import FhirSettings
    from consilium.shared.export.signed_model import SignedModel

PORT = 8471
Level = Annotated[
    str, typer.Option(help="Name of a threshold of the model from which a card says so.")
]
console = Terminal()


def add_bedside_commands(app: typer.Typer) -> None:
    """Add these commands to the site's."""
    app.command(name="cds-hooks")(cds_hooks)
    app.command(name="decision-log")(decision_log)


def cds_hooks(
    exported: Exported,
    folder: Folder = DEFAULT_FOLDER,
    signer: Signer = "",
    settings: Settings = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")
    ] = PORT,
    warning: Level = "",
    critical: Level = "",
    ehr_keys: Annotated[
        Path | None,
        typer.Option(help="Public keys of the EHR (JWK set), instead of a shared secret."),
    ] = None,
    issuer: Annotated[str, typer.Option(help="With --ehr-keys: the EHR, as its tokens say.")] = "",
    base_url: Annotated[
        str, typer.Option(help="With --ehr-keys: where the EHR calls; this address.")
    ] = "",
) -> None:
    """Answer an EHR's CDS Hooks (patient-view, order-select) with cards, on 127.0.0.1.

    It reads the prefetched FHIR resources alone, and calls no other machine.
    """
    _check_reads_fhir()
    import torch

    from consilium.client.bedside.cds_hooks import CdsHooks
    from consilium.client.bedside.ehr_trust import EhrKeys, SharedSecret
    from consilium.client.hospital.folder import SiteFolder
    from consilium.shared.service.local_service import HOST
    from consilium.shared.service.log_file import log_to_file
    from consilium.shared.service.logs import configure_logs
    from consilium.shared.web.server import listen, serve

    opened = SiteFolder.open(folder)
    found = open_own_model(exported, folder, signer)
    torch.set_num_threads(opened.policy().threads)
    stderr = Terminal(stderr=True)
    listening = listen(port)
    here = f"http://{HOST}:{listening.getsockname()[1]}"
    trust: EhrKeys | SharedSecret
    if ehr_keys is None:
        trust = SharedSecret(opened.path)
        stderr.print(f"The EHR shows as bearer token what stands in {trust.file}.", markup=False)
    else:
        trust = EhrKeys(ehr_keys, issuer=issuer, base_url=base_url or here)
    application = CdsHooks(
        found,
        fhir_settings(opened.path, settings),
        trust=trust,
        notes=notes_of(found, opened.path),
        warning=warning,
        critical=critical,
    )
    configure_logs()
    log_to_file(opened.path, "cds-hooks")
    stderr.print(f"{here}/cds-services  (stop with Ctrl-C)", markup=False)
    serve(application, listening)


def decision_log(
    folder: Folder = DEFAULT_FOLDER,
    patient: Annotated[str, typer.Option(help="Only of this patient, by identifier.")] = "",
    since: Annotated[str, typer.Option(help="Only from this day on, such as 2026-11-30.")] = "",
    as_json: Json = False,
) -> None:
    """Show who was scored when, by which model and for whom, and check that no line was changed."""
    from datetime import date

    from consilium.client.bedside.decision_log import DecisionLog
    from consilium.client.hospital.folder import SiteFolder

    try:
        day = date.fromisoformat(since).isoformat() if since else ""
    except ValueError:
        raise SettingsError(f"--since {since[:40]}: is no day; write it as 2026-11-30") from None
    opened = SiteFolder.open(folder)
    policy = opened.policy().decisions
    if policy is None:
        raise SettingsError(
            f"{opened.path / 'policy.toml'}: has no [decisions], so nothing is noted; add it"
        )
    kept = DecisionLog(opened.path, policy)
    kept.delete_old()
    wanted = {patient, kept.digest("patient", patient)}
    shown, wrong = 0, 0
    for line, fits in kept.lines():
        wrong += not fits
        if (patient and line.get("patient") not in wanted) or str(line.get("at", "")) < day:
            continue
        shown += 1
        if as_json:
            print(json.dumps(line | {"fits": fits}))  # noqa: T201 - a line for programs
            continue
        told = " ".join(
            str(line.get(key, "?"))[:23] for key in ("number", "at", "result", "study", "model")
        )
        whom = f"{str(line.get('patient', '?'))[:16]}  by {line.get('by', '?')}"
        console.print(f"{told}  {whom}{'' if fits else '  DOES NOT FIT'}", markup=False)
    if wrong:
        raise AuditError(
            f"{wrong} lines do not fit those before, or were changed; keep a copy of "
            f"{opened.path / 'decisions'} and ask who can write there"
        )
    if not as_json:
        console.print(f"{shown} lines; all lines that are kept fit together.", markup=False)


def predict_fhir(
    found: "SignedModel",
    chosen: "DataSettings",
    folder: Path,
    out: Path,
    shown: Terminal,
    *,
    transaction: bool,
) -> None:
    """Write a RiskAssessment for every stay that has an answer, and say how many have none.

    Raises:
        SettingsError: the model predicts no risks, or the file cannot be written.
        DataError: the records cannot be read.
        AuditError: the policy wants scores noted, and they cannot be.
    """
    _check_reads_fhir()
    from consilium.client.bedside.assessment import Assessor, fhir_source
    from consilium.client.bedside.risk_assessment import (
        Form,
        check_has_risks,
        risk_assessment,
        write_assessments,
    )
    from consilium.client.commands.model import opened
    from consilium.client.sources.own.settings.systems import FhirSettings
    from consilium.client.sources.registry import check_serves
    from consilium.shared.clock import utc_now

    study = found.trained.study
    check_has_risks(study)
    reader = None
    if isinstance(chosen, FhirSettings):
        check_serves(chosen, study)
        source, reader = fhir_source(chosen)
    else:
        source = opened(found, chosen)
    notes, now = notes_of(found, folder), utc_now()
    resources, refused = [], dict[str, int]()
    for one in Assessor(found).assess(source.read_patients(study), reader):
        notes.note(one, by=f"predict --fhir, {account()}", scored=not one.refused)
        if one.refused:
            refused[one.refused] = refused.get(one.refused, 0) + 1
            continue
        resources.append(risk_assessment(found, one, now, of_resources=reader is not None))
    form: Form = "transaction" if transaction else "collection"
    number = write_assessments(
        out, resources, form="ndjson" if out.suffix == ".ndjson" else form, now=now
    )
    shown.print(f"{out}: {number} RiskAssessments; only this account can read it.", markup=False)
    for sentence, stays in refused.items():
        shown.print(f"{stays} stays without one. {sentence}", markup=False)


def noted_predictions(
    found: "SignedModel", folder: Path, predictions: "Iterable[StayScores]"
) -> "Iterator[StayScores]":
    """Yield predictions, each noted before as this site's policy wants it.

    Raises:
        AuditError: the policy wants it, and it cannot be.
    """
    notes = notes_of(found, folder)
    for one in predictions:
        notes.note(one, by=f"predict, {account()}", scored=True)
        yield one


def noted_scorer(
    found: "SignedModel", folder: Path, settings: Path | None, scorer: "Scorer | SignalScorer"
) -> "NotedScorer":
    """Return the scorer of a stream: it takes FHIR, too, and notes as this site's policy wants.

    Raises:
        AuditError: notes are required, and the log cannot be opened.
    """
    from consilium.client.bedside.noted_scorer import NotedScorer
    from consilium.client.bedside.scorer import Scorer

    def fhir() -> "FhirStream":
        _check_reads_fhir()
        from consilium.client.bedside.fhir_stream import FhirStream

        assert isinstance(scorer, Scorer)  # noqa: S101  # it is only made for one
        return FhirStream(found, fhir_settings(folder, settings), scorer)

    takes = fhir if isinstance(scorer, Scorer) else None
    return NotedScorer(scorer, notes_of(found, folder), by=f"stream, {account()}", fhir=takes)


def notes_of(found: "SignedModel", folder: Path) -> "Notes":
    """Return where this site notes what a model answers, by its policy.

    Raises:
        AuditError: notes are required, and the log cannot be opened.
    """
    from consilium.client.bedside.decision_log import Notes
    from consilium.client.hospital.policy_file import FILE_NAME, read_policy

    there = (folder / FILE_NAME).exists()  # a model can be used without a site's folder
    return Notes(
        folder,
        read_policy(folder).decisions if there else None,
        model=found.manifest_digest,
        study=found.manifest.study,
    )


def _check_reads_fhir() -> None:
    """Refuse where the library that reads FHIR is not installed.

    Raises:
        SettingsError: it is not.
    """
    from consilium.client.sources.common.needs import needs

    needs("polars", extra="fhir", what="FHIR at the bedside")


def account() -> str:
    """Return this process's account, as it is noted."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "an account without a name"


def fhir_settings(folder: Path, settings: Path | None) -> "FhirSettings | None":
    """Return how this hospital writes FHIR; None if its records are of another kind.

    Raises:
        SettingsError: the settings are wrong, or those that are named are not of FHIR.
    """
    from consilium.client.commands.check import settings_from
    from consilium.client.hospital.policy_file import allowed_sources
    from consilium.client.hospital.settings import SiteSettings
    from consilium.client.sources.own.settings.systems import FhirSettings

    if settings is not None:
        chosen = settings_from(settings, allowed_sources(folder))
        if not isinstance(chosen, FhirSettings):
            raise SettingsError(f'{settings}: [data] source must be "fhir" here; name another file')
        return chosen
    if not (folder / "site.toml").exists():
        return None
    read = SiteSettings.read(folder)
    own = None if read.data is None else read.records(folder)
    return own if isinstance(own, FhirSettings) else None
