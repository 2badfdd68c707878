"""A model card along the items of TRIPOD+AI (Collins et al., BMJ 2024;385:e078378).

Items that a run cannot know are marked as not reported, so that authors see what they have to add.
Numbers and subjects are those of the published checklist (its table 2, 27 items with 52 parts); we
shortened its sentences to a few words each.
"""

from dataclasses import dataclass

from consilium.shared.files.json_record import JsonRecord
from consilium.shared.privacy.accounting import plan
from consilium.shared.study.definition import Study
from consilium.simulations.experiments.external import external_sentences
from consilium.simulations.experiments.recalibrating import recalibration_sentences
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.report.forest_plots import share_text
from consilium.simulations.report.groups import Group, share_of
from consilium.simulations.report.records import left_out_sentence


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item of the checklist; ``text`` is None if the run cannot know it."""

    number: str
    name: str
    text: str | None


def model_card(
    study: Study, record: JsonRecord, groups: tuple[Group, ...], settings: JsonRecord | None
) -> list[Item]:
    """Return all items in the checklist's order.

    Args:
        study: what was run.
        record: content of ``run.json``.
        groups: of its test patients.
        settings: of ``compare.json``, or None.
    """
    texts = _methods(study, record) | _results(study, record, groups, settings)
    return [Item(number=n, name=name, text=texts.get(n)) for n, name in ITEMS.items()]


ITEMS = {
    "1": "Title",
    "2": "Abstract",
    "3a": "Health-care context and existing models",
    "3b": "Target population, intended use and users",
    "3c": "Known health inequalities between groups",
    "4": "Objectives",
    "5a": "Sources of data",
    "5b": "Dates",
    "6a": "Setting and centres",
    "6b": "Eligibility",
    "6c": "Treatments received",
    "7": "Data preparation and quality checks",
    "8a": "Outcome",
    "8b": "Outcome assessors",
    "8c": "Blinding of the outcome's assessment",
    "9a": "Choice of predictors",
    "9b": "Definition of predictors",
    "9c": "Predictor assessors",
    "10": "Sample size and its justification",
    "11": "Missing data",
    "12a": "Use of the data",
    "12b": "Handling of predictors",
    "12c": "Type of model, how it was built and validated",
    "12d": "Heterogeneity across clusters, such as hospitals",
    "12e": "Measures of performance",
    "12f": "Model updating",
    "12g": "How predictions are computed",
    "13": "Class imbalance",
    "14": "Fairness",
    "15": "Model output and thresholds",
    "16": "Training versus evaluation data",
    "17": "Ethical approval",
    "18a": "Funding",
    "18b": "Conflicts of interest",
    "18c": "Protocol",
    "18d": "Registration",
    "18e": "Data sharing",
    "18f": "Code sharing",
    "19": "Patient and public involvement",
    "20a": "Flow of participants",
    "20b": "Characteristics",
    "20c": "Comparison with the development data",
    "21": "Participants and events in each analysis",
    "22": "Specification of the full model",
    "23a": "Performance",
    "23b": "Heterogeneity of performance across clusters",
    "24": "Results of model updating",
    "25": "Interpretation, fairness included",
    "26": "Limitations",
    "27a": "Poor or missing input in use",
    "27b": "User interaction and expertise",
    "27c": "Next steps",
}


def _methods(study: Study, record: JsonRecord) -> dict[str, str]:
    data, task, model, training = study.data, study.task, study.model, study.training
    names = list(study.variables)
    statics = [n for n, v in study.variables.items() if v.role == "static"]
    codes = f"; codes {', '.join(study.tokens.names)}" if study.tokens else ""
    unit = "hours" if data.clock == "hour" else "places"
    held_out = study.evaluation.validation_fraction
    synthetic = "SYNTHETIC patients made by a generator. " if record["synthetic"] else ""
    return {
        "1": study.title,
        **({"3b": f"{study.purpose} Target population and users: not reported."} if study.purpose
           else {}),
        "4": "Development, with internal evaluation on held-out patients"
        + (", and on each hospital without it in training." if record.get("external") else "."),
        "5a": f"{synthetic}Training: source {data.source} at {len(study.sites)} sites. Evaluation: "
        f"{record['test_cohort']}. Representativeness: not reported.",
        "6a": f"{len(study.sites)} sites: {', '.join(study.sites)}. Locations: not reported.",
        "6b": f"The first {data.window_h} {unit} of each record, in steps of {data.step_h}; a "
        f"site takes part with {data.minimum_patients} patients or more. Clinical criteria: not "
        "reported.",
        "7": f"Values outside the declared ranges are {_OUTSIDE[data.on_out_of_range]}; a file "
        f"that cannot be read {_FILES[data.on_bad_file]}. A step holds the last value of "
        "its own.",
        "8a": f"{data.label}{_times(study)}; {_horizon(study)}. How it was assessed: not reported.",
        "9b": f"{len(names)} variables with units and ranges, listed under Data ({len(statics)} of "
        f"them fixed for a record: {', '.join(statics) or 'none'}){codes}.",
        "11": "The last value is carried forward, the mean stands before the first; whether a "
        "value was measured enters as an input of its own. Rows without a known outcome are not "
        "judged.",
        "12a": "Test patients are apart from training patients. "
        + (
            f"{100 * held_out:g} % of each site's patients validate and never train."
            if held_out
            else "No patients of the sites validate."
        ),
        "12b": "Values are centred and scaled by statistics of all sites' training patients, found "
        "by a sum over the sites; some on a logarithmic scale.",
        "12c": f"{model.described}. Loss: {_loss(study)}. {study.rounds} rounds of "
        f"{training.local_steps} step(s) at a "
        f"site, sampling rate {training.sampling_rate:g}, {training.optimizer}; "
        f"{study.aggregation.strategy} at the coordinator. {_noise(study)} "
        "How settings were chosen: not reported.",
        "12d": "None modelled: one model for all sites.",
        "12e": f"{', '.join(TITLES[n] for n in FIGURES[task.kind])} with 95 % bootstrap intervals "
        "over patients; the figures above.",
        "12g": "By the network from the record up to the end of its window.",
        "13": f"Classes are weighed: {task.loss.described}."
        if task.loss.weights or task.loss.balance
        else "No reweighting of classes.",
        "14": "None in training.",
        "15": _OUTPUT[task.kind] + (" At every step." if task.per_step else ""),
        "18c": f"The study file, SHA-256 {record['study_digest']}.",
        "18f": f"Consilium {record['software']}; the study file fixes the rest but the noise.",
        "22": "Weights, names of inputs and normalisation in model.safetensors beside this report.",
        "27a": "Inputs outside the declared ranges are treated as in item 7; a record without any "
        "value still gets an answer, which should not be used.",
    }  # fmt: skip


def _results(
    study: Study, record: JsonRecord, groups: tuple[Group, ...], settings: JsonRecord | None
) -> dict[str, str]:
    test = record["test"]
    trained = max((r["patients"] or 0 for r in record["rounds"]), default=0)
    events = (
        f", {test['positives']} of {test['rows']} outcomes positive" if "positives" in test else ""
    )
    split = [g for g in groups if g.kind != "all"]
    verdicts = [v["sentence"] for v in record.get("verdicts") or () if v["serious"]]
    void = sum(r["void"] is not None for r in record["rounds"])
    texts = {
        "21": f"Training: {trained or 'unknown number of'} patients at all sites, as declared and "
        "rounded by each (number with the outcome: not reported). "
        f"Evaluation: {test['patients']} patients{events}.",
        "23a": "; ".join(
            f"{TITLES[n]} {share_text(share_of(test[n]))}" for n in FIGURES[study.task.kind]
        )
        + (f". {len(split)} groups: see the figures." if split else "."),
        **_updating(record),
        "25": "See the summary; the authors' own interpretation: not reported.",
        "26": f"Retrospective, on {record['test_cohort']}. {void} of {len(record['rounds'])} "
        "rounds were void. Test patients are of the sources that trained. "
        + (f"{out} " if (out := left_out_sentence(record)) else "")
        + ("Synthetic patients. " if record["synthetic"] else "")
        + ("" if settings else "Not compared with a simple model. "),
        "27c": "What the summary lists as open.",
    }
    if record.get("data"):
        texts["20a"] = "Counts of each site's reading under Data."
    outside = external_sentences(record["external"]) if record.get("external") else ()
    if split or outside:
        by_group = " ".join(verdicts) or "No failure found; intervals in the figures by group."
        texts["23b"] = " ".join((by_group, *outside))
    return texts


def _updating(record: JsonRecord) -> dict[str, str]:
    sentences = recalibration_sentences(record)
    if not sentences:
        return {}
    fits = "; ".join(
        f"log-odds times {one['slope']:.2f}, {one['intercept']:+.2f}"
        for one in record["recalibration"]["across"] or ()
    )
    across = f" Across sites: {fits}." if fits else ""
    return {
        "12f": "Slope and intercept of the log-odds on validation patients, as far as a closed "
        "test justifies them: across sites from summed counts, and at each hospital by itself. The "
        "model's figures elsewhere are of the model as trained.",
        "24": " ".join(sentences) + across,
    }


_OUTSIDE = {"drop": "taken as missing", "clip": "moved to the nearest bound"}
_FILES = {"refuse": "stops the site", "skip": "is left out and counted"}
_OUTPUT = {
    "binary": "A risk between 0 and 1. No threshold is set.",
    "multilabel": "A risk between 0 and 1 for each label. No threshold is set.",
    "multiclass": "A probability for each class; figures take the most likely one.",
    "regression": "A value in the unit of the outcome.",
    "survival": "A risk between 0 and 1 by the end of each interval; the last is the horizon's.",
}


def _times(study: Study) -> str:
    task = study.task
    if task.kind != "survival":
        return ""
    cuts = ", ".join(f"{cut:g}" for cut in task.cuts)
    since = f", counted from {task.start:g}" if task.start else ""
    return f", as a time in {task.time_unit}{since}, in intervals that end at {cuts}"


def _loss(study: Study) -> str:
    task = study.task
    if task.kind == "regression":
        return "squared error"
    if task.kind == "survival":
        return "negative log-likelihood of the hazards"
    return task.loss.described


def _horizon(study: Study) -> str:
    unit = "hours" if study.data.clock == "hour" else "places"
    if study.task.per_step:
        return f"told at every step of {study.data.step_h} {unit}"
    return f"told once, from the first {study.data.window_h} {unit}"


def _noise(study: Study) -> str:
    costs = plan(study)
    if costs is None:
        return "No noise."
    return (
        f"Gradients of a {study.privacy.unit} clipped to {study.privacy.clip_norm:g}, noise "
        "multiplier "
        f"{costs.training_round.noise_multiplier:.3g}, mode {study.privacy.mode}."
        + (
            f" {costs.calibrations} calibration round(s), noise multiplier "
            f"{costs.calibration.noise_multiplier:.3g}."
            if costs.calibration
            else ""
        )
        + (f" {study.privacy.caveat}" if study.privacy.caveat else "")
    )
