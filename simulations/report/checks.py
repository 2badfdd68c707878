"""The conditions for using a model, and which of them a run meets.

Whether a condition is met follows from the record by a rule in this module, never by opinion.
"""

from dataclasses import dataclass
from typing import Literal

from consilium.shared.figures.risk_curves import Share
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.experiments.external import external_sentences, failures
from consilium.simulations.experiments.rivals import (
    AGAINST,
    ALIKE,
    BETTER,
    WORSE,
    rival_title,
    rivals_among,
    standing,
)
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.figures.metrics import LOWER_IS_BETTER
from consilium.simulations.report.drawing import between, number
from consilium.simulations.report.forest_plots import share_text
from consilium.simulations.report.groups import Group, everyone, share_of

State = Literal["shown", "failed", "open"]
_STATES: dict[str, tuple[State, str]] = {
    BETTER: ("shown", "this model is better"),
    WORSE: ("failed", "this model is worse"),
    ALIKE: ("open", "no difference beyond noise"),
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """A condition for using the model, whether this run meets it, and why."""

    what: str
    state: State
    why: str


def checks(
    study: Study, record: JsonRecord, groups: tuple[Group, ...], settings: JsonRecord | None
) -> list[Check]:
    """Return all conditions for using the model, each with its state after this run."""
    found = [_real(record), beats_simple(study, record, settings)]
    if study.task.kind in ("binary", "multilabel", "survival"):
        found.append(calibrated(everyone(groups)))
    return [
        *found,
        _groups_fine(record, groups),
        _holds_elsewhere(record),
        Check(
            what="A threshold and an action that clinicians agreed on",
            state="open",
            why="a run knows risks, not what would be done about them",
        ),
        Check(
            what="A silent trial on patients as they come, then a trial with outcomes",
            state="open",
            why="everything here is retrospective",
        ),
        Check(
            what="Approval (ethics, data protection, medical-device law) and a plan to monitor it",
            state="open",
            why="not reported",
        ),
    ]


def findings(
    record: JsonRecord, groups: tuple[Group, ...]
) -> tuple[list[JsonRecord], list[JsonRecord]]:
    """Return the serious verdicts in two lists: findings about groups, and about all patients.

    The second begins with the verdict on all patients' calibration, and is empty without it; then
    come groups whose calibration only repeats it: their interval holds the ratio of all patients.
    """
    serious = [v for v in record.get("verdicts") or () if v["serious"]]
    whole = next((v for v in serious if (v["kind"], v["topic"]) == ("all", "calibration")), None)
    ratios = {(g.kind, g.name): g.calibration for g in groups}
    everybody = next((g.calibration for g in groups if g.kind == "all"), None)
    own, alike = [], []
    for v in serious:
        ratio = ratios.get((v["kind"], v["name"]))
        if v["kind"] == "all":
            continue
        if (
            whole and everybody and ratio and v["topic"] == "calibration"
            and ratio.low <= everybody.value <= ratio.high
        ):  # fmt: skip
            alike.append(v)
        else:
            own.append(v)
    return own, [whole, *alike] if whole else []


def beats_simple(study: Study, record: JsonRecord, settings: JsonRecord | None) -> Check:
    """Check whether the best simple model of the comparison is worse, beyond noise.

    The noise is that of the difference on the same test patients. A comparison of an older version
    does not have it: then the values alone are compared, and the sentence says so.
    """
    what, name = "Better than a simple model", FIGURES[study.task.kind][0]
    simple = {key: settings[key] for key in rivals_among(settings)} if settings else {}
    mine = record["test"][name]["value"]
    losses = {
        key: worse_by(name, mine, value)
        for key, one in simple.items()
        if mine is not None and (value := one["test"][name]["value"]) is not None
    }
    if not losses:
        return Check(what=what, state="open", why="not compared with a simple model")
    key = max(losses, key=lambda k: losses[k])
    theirs = share_text(share_of(simple[key]["test"][name]))
    best = f"{rival_title(key)} has {TITLES[name]} {theirs}"
    gain = _gains(record, settings or {}).get(key, {}).get(name)
    if gain is None:
        better = losses[key] < 0
        why = f"{best}, {'less good' if better else 'no worse'}; noise was not judged"
        return Check(what=what, state="shown" if better else "failed", why=why)
    state, said = _STATES[standing(gain)]
    size = f"{number(gain['value'])}, {between(gain['low'], gain['high'])}"
    return Check(what=what, state=state, why=f"{best}; {said} ({TITLES[name]} better by {size})")


def _gains(record: JsonRecord, settings: JsonRecord) -> JsonRecord:
    """Return by rival how much better the run is: its own, or those of a run of the same study."""
    same = (
        one
        for name, one in settings.items()
        if name.startswith("federated") and one.get("study_digest") == record["study_digest"]
    )
    return next((one[AGAINST] for one in (record, *same) if one.get(AGAINST)), {})


def worse_by(name: str, mine: float, theirs: float) -> float:
    """Return by how much ``mine`` is the worse value of a figure; negative if it is better."""
    return mine - theirs if name in LOWER_IS_BETTER else theirs - mine


def calibrated(group: Group | None) -> Check:
    """Check whether outcomes in this group are as frequent as predicted."""
    what = "Risks that can be taken at their word"
    ratio: Share | None = group.calibration if group else None
    if ratio is None:
        return Check(what=what, state="open", why="calibration was not judged")
    ratio_text = (
        f"{ratio.value:.2f} outcomes for each one predicted ({ratio.low:.2f} to {ratio.high:.2f})"
    )
    if ratio.low <= 1 <= ratio.high:
        return Check(
            what=what, state="shown", why=f"on average risks agree with outcomes, {ratio_text}"
        )
    side = "low" if ratio.value > 1 else "high"
    return Check(what=what, state="failed", why=f"on average risks are too {side}: {ratio_text}")


def _real(record: JsonRecord) -> Check:
    synthetic = record["synthetic"]
    return Check(
        what="Judged on real patients",
        state="failed" if synthetic else "shown",
        why="the patients are synthetic" if synthetic else f"on {record['test_cohort']}",
    )


def _holds_elsewhere(record: JsonRecord) -> Check:
    what, found = "Works at hospitals that did not train it", record.get("external")
    if not found:
        why = "the test patients come from the hospitals and the data collection of the study"
        return Check(what=what, state="open", why=why)
    failed = list(failures(found))
    first, *_ = external_sentences(found)
    return Check(
        what=what,
        state="failed" if failed else "shown",
        why=(failed[0] if failed else first).rstrip("."),
    )


def _groups_fine(record: JsonRecord, groups: tuple[Group, ...]) -> Check:
    what = "Works for every hospital and group of patients"
    own, alike = findings(record, groups)
    if own:
        return Check(what=what, state="failed", why=own[0]["sentence"].rstrip("."))
    split = [g for g in groups if g.kind != "all"]
    small = [g.name for g in split if not g.figures]
    if not split:
        return Check(what=what, state="open", why="no figures by group")
    if small:
        return Check(what=what, state="open", why=f"too few patients to judge {', '.join(small)}")
    beyond = "beyond what is wrong for all " if alike else ""
    return Check(what=what, state="shown", why=f"no failure {beyond}found in {len(split)} groups")
