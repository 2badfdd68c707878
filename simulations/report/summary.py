"""The four questions at the report's top: is it good here, for whom not, at what price, usable?

Every sentence follows from the record by a rule in this module, never by opinion.
"""

from dataclasses import dataclass

from consilium.server.figures.verdicts import AUROC_GAP
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.experiments.recalibrating import recalibration_sentences
from consilium.simulations.federation.clear_sum import CLEAR
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.figures.metrics import LOWER_IS_BETTER
from consilium.simulations.report.checks import (
    Check,
    beats_simple,
    calibrated,
    checks,
    findings,
    worse_by,
)
from consilium.simulations.report.decision_curves import at_sensitivity
from consilium.simulations.report.drawing import delta_text, number, percent
from consilium.simulations.report.forest_plots import share_text
from consilium.simulations.report.groups import Group, everyone, points_of, share_of
from consilium.simulations.report.records import calibration_sentence, size

_MOST_SENTENCES = 6


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A question, its answer in a sentence, and what supports it."""

    question: str
    headline: str
    support: tuple[str, ...]


def answers(
    study: Study,
    record: JsonRecord,
    groups: tuple[Group, ...],
    settings: JsonRecord | None,
    whose: str,
) -> list[Answer]:
    """Return the four answers.

    Args:
        study: what was run.
        record: content of ``run.json``.
        groups: of its test patients.
        settings: of ``compare.json``, if there is one.
        whose: the word for what has a risk of its own, as in
            :func:`consilium.simulations.report.risk_charts.risk_charts`.
    """
    return [
        _good(study, record, groups, settings, whose),
        _fails(study, record, groups),
        _price(study, record, settings),
        _deploy(checks(study, record, groups, settings)),
    ]


def _good(
    study: Study,
    record: JsonRecord,
    groups: tuple[Group, ...],
    settings: JsonRecord | None,
    whose: str,
) -> Answer:
    test, name = record["test"], FIGURES[study.task.kind][0]
    size_text = f"{test['patients']} patients"
    if study.task.kind == "multilabel":
        size_text += f", {test['positives']} positive labels"
    elif "positives" in test:
        of = f" of {test['rows']} {whose}" if whose != "patients" else ""
        size_text += f", {test['positives']}{of} with the outcome"
    support = []
    if record["synthetic"]:
        support.append("The patients are SYNTHETIC: this says nothing about real ones.")
    mine = share_of(test[name])
    if name == "auroc" and mine and mine.low <= 0.5:
        support.append("The interval reaches 0.5: it may know nothing about who has the outcome.")
    elif name == "auroc":
        support.append(
            f"Of one with and one without the outcome, drawn at random, it gives the higher risk "
            f"to the right one in {percent(test[name]['value'])} of cases{_averaged(study)}."
        )
    elif name == "c_index":
        support.append(
            f"Of two of whom one has the event first, it gives the higher risk to that one in "
            f"{percent(test[name]['value'])} of cases."
        )
    group = everyone(groups)
    if study.task.kind == "survival":
        support.append(_sentence(calibrated(group).why))
    if points := points_of(group):
        point = at_sensitivity(points, 0.8)
        support.append(
            f"To find {percent(point.sensitivity.value)} of those with the outcome it alarms for "
            f"{percent(point.alarm_rate.value)} of {whose}; "
            f"{percent(point.precision.value if point.precision else None)} of alarms are true."
        )
        support.append(_sentence(calibrated(group).why))
    if shifted := calibration_sentence(study, record):
        support.append(shifted)
    if (test.get("r2") or {"value": 0.0})["value"] < 0:
        support.append("To say the mean to everybody would be better: R2 is negative.")
    others = [TITLES[n] + " " + share_text(share_of(test[n])) for n in FIGURES[study.task.kind][1:]]
    support += [
        "; ".join(others) + "." + _without_model(test),
        _sentence(beats_simple(study, record, settings).why),
    ]
    return Answer(
        question="Is it good here?",
        headline=_sentence(
            f"{TITLES[name]} {share_text(mine)} on {record['test_cohort']}: {size_text}"
        ),
        support=tuple(support),
    )


def _fails(study: Study, record: JsonRecord, groups: tuple[Group, ...]) -> Answer:
    own, alike = findings(record, groups)
    shown = [v["sentence"] for v in own[:_MOST_SENTENCES]]
    if len(own) > len(shown):
        shown.append(f"And {len(own) - len(shown)} more: see the figures by group.")
    if alike:
        same = f" The same in {', '.join(v['name'] for v in alike[1:])}." if alike[1:] else ""
        shown.append(f"{alike[0]['sentence']}{same}")
        if not study.evaluation.validation_fraction:
            shown.append(
                "Whether recalibration mends it is not known: the study keeps no patients to fit "
                "it on ([evaluation] validation_fraction)."
            )
    shown += [*recalibration_sentences(record), *_lower(study, groups)]
    sensitivity = record["test"].get("sensitivity")
    if sensitivity:
        known = {k: s for k, s in enumerate(sensitivity) if s is not None}
        worst = min(known, key=lambda k: known[k])
        shown.append(f"Of class {worst} it recognises only {percent(known[worst])}, the fewest.")
    split = [g for g in groups if g.kind != "all"]
    small = [g.name for g in split if not g.figures]
    judged = len(split) - len(small) or len(record.get("test_groups") or ())
    if small:
        shown.append(f"Not judged, too few patients: {', '.join(small)}.")
    if not split and not record.get("test_groups"):
        headline = "Not known: the run has no figures by hospital, sex, age or unit."
    elif own:
        many = f"{len(own)} findings" if len(own) > 1 else "1 finding"
        headline = f"{many} that someone should act on."
    elif split and len(small) == len(split):
        headline = "Not known: every group is too small to be judged."
    elif alike:
        headline = "For everybody alike: no group was found worse off than all together."
    else:
        headline = f"No failure found among {judged} groups."
        shown.append("That none was found does not show that there is none: see the intervals.")
    return Answer(question="For whom does it fail?", headline=headline, support=tuple(shown))


def _lower(study: Study, groups: tuple[Group, ...]) -> list[str]:
    """Return a sentence on groups whose whole interval is below all patients' figure.

    That alone is not a finding.
    """
    name, whole = FIGURES[study.task.kind][0], everyone(groups)
    everybody = whole.figures.get(name) if whole else None
    if name in LOWER_IS_BETTER or everybody is None:
        return []
    lower = [
        f"{g.name} {share_text(share)}"
        for g in groups
        if g.kind != "all" and (share := g.figures.get(name)) and share.high < everybody.value
    ]
    if not lower:
        return []
    return [
        f"{TITLES[name]} below that of all, {number(everybody.value)}, by the whole interval: "
        f"{'; '.join(lower)}. A finding takes {AUROC_GAP:g} or more, beyond what chance explains "
        "among so many groups."
    ]


def _without_model(test: JsonRecord) -> str:
    """Return a sentence on what the same risk for everybody would reach, for comparison."""
    if not {"brier", "accuracy", "positives"} <= set(test) or not test["rows"]:
        return ""
    share = test["positives"] / test["rows"]
    return (
        f" The same risk for everybody would have Brier {number(share * (1 - share))} and accuracy "
        f"{number(max(share, 1 - share))}."
    )


def _price(study: Study, record: JsonRecord, settings: JsonRecord | None) -> Answer:
    privacy, name = record["privacy"], FIGURES[study.task.kind][0]
    support = [
        f"{record['seconds']:.0f} s for {len(record['rounds'])} rounds in this simulation; a site "
        f"sends {size(record['bytes_up_per_site_per_round'])} a round in the secure sum"
        f"{', which did not run here' if record.get('sum') == CLEAR else ''}."
    ]
    private = privacy["epsilon"] is not None
    if private:
        support.insert(
            0,
            f"Epsilon {privacy['epsilon']:.2f} of at most {privacy['epsilon_budget']:g} a "
            f"{study.privacy.unit} "
            f"at delta {delta_text(privacy)}, and the hospitals' ledgers are charged for ever.",
        )
    if settings and {"federated", "pooled"} <= set(settings):
        plain, pooled = (settings[s]["test"][name]["value"] for s in ("federated", "pooled"))
        support.insert(
            0,
            f"Records in one place: {number(pooled)}; federated without privacy: {number(plain)}.",
        )
        lost = worse_by(name, record["test"][name]["value"], plain)
        headline = (
            f"{abs(lost):.3f} of {TITLES[name]} {'lost' if lost > 0 else 'gained'} against the "
            "same federation without privacy, one run each."
            if private
            else "Nothing: the study asks for no differential privacy."
        )
    elif private:
        headline = "Not measured: there is no run of the same study without privacy beside it."
        support.append("'consilium-simulate compare' makes one; give it to 'report --compare'.")
    else:
        headline = "Nothing: the study asks for no differential privacy."
    return Answer(question="What did privacy cost?", headline=headline, support=tuple(support))


def _deploy(found: list[Check]) -> Answer:
    failed = [c for c in found if c.state == "failed"]
    missing = [c for c in found if c.state == "open"]
    return Answer(
        question="May we deploy it?",
        headline="Not on this evidence."
        + (f" {len(failed)} of {len(found)} conditions failed," if failed else "")
        + f" {len(missing)} {'are' if failed else 'conditions are'} open.",
        support=tuple(f"{c.what}: {c.why}." for c in (*failed, *missing)[:_MOST_SENTENCES]),
    )


def _averaged(study: Study) -> str:
    return ", on average over labels" if study.task.kind == "multilabel" else ""


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
