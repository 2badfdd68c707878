"""What recalibration would improve: fitted on validation patients, judged on the test patients.

*Across* sites it is fitted to the counts of the last evaluation, which the coordinator has by
secure sum. A hospital's *own* is fitted to that hospital's validation patients, as it could do by
itself (``consilium-site recalibrate``). Neither uses a test patient. If hospitals keep parts of the
model, or a second model, each fits the model that it uses, and there is none across sites.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from consilium.client.bedside.recalibration import fit_at_site
from consilium.server.figures.groups import GroupFigures
from consilium.server.figures.verdicts import Verdict, verdicts
from consilium.server.study.export import recalibrations_of
from consilium.server.study.run import RunState
from consilium.shared.errors import SettingsError
from consilium.shared.export.signed_model import Trained
from consilium.shared.figures.recalibration import NEUTRAL, Recalibration
from consilium.shared.model.normalisation import Normalisation
from consilium.shared.model.study_model import study_model
from consilium.shared.rounds.patient_groups import WITH_RISKS
from consilium.shared.study.definition import Study
from consilium.simulations.cohorts.cohorts import Cohorts
from consilium.simulations.federation.run import Finished
from consilium.simulations.figures.central import merge
from consilium.simulations.figures.held_out import HeldOut, Scores
from consilium.simulations.figures.subgroups import with_risks

WAYS = ("across", "own")


def recalibrating(
    study: Study, cohorts: Cohorts, test: HeldOut, finished: Finished
) -> dict[str, Any] | None:
    """Return what recalibration improves, as in ``run.json``; None if nothing can be fitted."""
    across: tuple[Recalibration, ...] | None = None
    if study.personalisation.active:
        if study.task.kind not in WITH_RISKS or not study.evaluation.validation_fraction:
            return None
    else:
        try:
            across = recalibrations_of(study, finished.history)
        except SettingsError:  # the task has no risks, or there are no validation patients
            return None
    own: dict[str, tuple[Recalibration, ...]] = {}
    sites = []
    for name, held in cohorts.alone.items():
        grids = [grid for site in held if (grid := finished.validation[site]) is not None]
        if not grids or name not in test.groups or len(test.groups) < 2:
            continue
        used = finished.own.get(name)
        if used is None and finished.own:  # several sites, and each has a model of its own
            continue
        fits = fit_at_site(trained_of(study, used or finished.state), merge(grids))
        own[name] = tuple(fit.recalibration for fit in fits)
        sites.append(
            {
                "site": name,
                "patients": fits[0].patients,
                "fewer": [fit.fewer for fit in fits],
                "fitted": [asdict(fit.recalibration) for fit in fits],
            }
        )
    groups = {
        "before": finished.by_group.groups,
        "across": _changed(test, finished, dict.fromkeys(test.groups, across)) if across else (),
        "own": _changed(test, finished, own) if own else (),
    }
    return {
        "across": None if across is None else [asdict(one) for one in across],
        "sites": sites,
        "groups": _ratios(groups),
        "verdicts": {
            way: [v.to_json() for v in calibration_verdicts(groups[way])]
            for way in WAYS
            if groups[way]
        },
    }


def calibration_verdicts(groups: tuple[GroupFigures, ...]) -> list[Verdict]:
    """Return the serious verdicts on the groups' calibration."""
    return [v for v in verdicts(groups, None) if v.topic == "calibration" and v.serious]


def trained_of(study: Study, state: RunState) -> Trained:
    """Return the model a run ended with, ready to be used."""
    model = study_model(study, state.server.model_weights)
    normalisation = Normalisation.from_bytes(state.normalisation, study)
    return Trained(study=study, model=model.eval(), normalisation=normalisation)


def _changed(
    test: HeldOut, finished: Finished, by_group: Mapping[str, tuple[Recalibration, ...]]
) -> tuple[GroupFigures, ...]:
    """Return the groups of test patients after each hospital's recalibrations."""
    scores: Scores = finished.scores.copy()
    for index, name in enumerate(test.groups):
        stays_N = test.group_N == index
        for output, one in enumerate(by_group.get(name, ())):
            if one != NEUTRAL:
                scores[stays_N, ..., output] = one.apply(scores[stays_N, ..., output])
    return with_risks(test, finished.by_group, scores)


def _ratios(groups: Mapping[str, tuple[GroupFigures, ...]]) -> list[dict[str, Any]]:
    """Return outcomes observed / expected in each judged group, before and after."""
    found = []
    for place, before in enumerate(groups["before"]):
        if not before.judged:
            continue
        row: dict[str, Any] = {"kind": before.group.kind, "name": before.group.name}
        for way, changed in groups.items():
            ratio = changed[place].calibration if changed else None
            row[way] = None if ratio is None else asdict(ratio)
        found.append(row)
    return found


def recalibration_sentences(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence for each kind of recalibration on what it improves, from ``run.json``."""
    recalibration = record.get("recalibration")
    if recalibration is None:
        return ()
    original = record.get("verdicts") or ()
    before = sum(v["serious"] and v["topic"] == "calibration" for v in original)
    found = []
    for way, title in (
        ("across", "Recalibrated across sites by the summed counts of validation patients"),
        ("own", "Recalibrated at each hospital by its own validation patients"),
    ):
        left = recalibration["verdicts"].get(way)
        if left is None or (way == "across" and neutral(recalibration["across"] or [])):
            continue
        names = ", ".join("everybody" if v["kind"] == "all" else v["name"] for v in left)
        found.append(
            f"{title}, {len(left)} finding{'' if len(left) == 1 else 's'} on calibration "
            f"remain{'s' if len(left) == 1 else ''}"
            + (f" ({names})" if names else "")
            + f"; before: {before}."
        )
    if recalibration["across"] is not None and neutral(recalibration["across"]):
        found.insert(
            0, "The summed counts of validation patients justify no recalibration across sites."
        )
    return tuple(found)


def neutral(fitted: list[dict[str, float]]) -> bool:
    """Return whether the recalibrations change no risk."""
    return all(one == asdict(NEUTRAL) for one in fitted)
