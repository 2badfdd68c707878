"""Describes a study in plain words, to a hospital that has to decide on it."""

from consilium.client.hospital.approvals import Approval
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.roster_trust import (
    RosterTrust,
    Standing,
    summed_with,
    witnesses_needed,
)
from consilium.client.sources.common.installed import owners_of
from consilium.shared.enrolment.messages import roster_fingerprint
from consilium.shared.privacy.accounting import plan
from consilium.shared.rounds.feasibility import feasibility_noise
from consilium.shared.study.definition import Study

ENDS = (".", "?", "!")


def review_lines(study: Study) -> list[str]:
    """Return one sentence per line: data used, what leaves, what it costs, who takes part."""
    variables = list(study.variables)
    shown = ", ".join(variables[:8]) + (f" and {len(variables) - 8} more" if variables[8:] else "")
    return [
        f"Study {study.name}: {study.title}{'' if study.title.endswith(ENDS) else '.'}",
        f"Digest {study.digest.hex()}: approving means approving this and nothing else.",
        *([study.purpose] if study.purpose else []),
        f"Data used: source {study.data.source}, {_window(study)}, "
        f"{len(variables)} variables ({shown}){_codes(study)}, label {study.data.label}.",
        f"It takes at least {study.data.minimum_patients} patients of yours to take part.",
        "What leaves: in each round one masked vector that only the sum over sites opens; your "
        "statistics are inside it. No record, no key, no plain update, no number of patients but "
        "the rounded one that you declare.",
        *_feasibility_lines(study),
        *_module_lines(study),
        *_control_lines(study),
        *_personal_lines(study),
        *_evaluation_lines(study),
        *_privacy_lines(study),
        f"Who takes part: {', '.join(study.sites)}.",
        *_other_sites_lines(study),
        *_group_lines(study),
        f"A sum is opened only over {study.minimum_sites} sites or more; "
        f"{study.dropouts_tolerated} of {study.group_size} may fail in a round.",
        _secrecy_line(study),
        f"How long: {study.rounds} rounds of {study.training.local_steps} training steps.",
    ]


def all_lines(approval: Approval, trust: RosterTrust, policy: Policy) -> list[str]:
    """Return all that is told of an offered study: the study, this site's sources, the roster."""
    return [
        *review_lines(approval.study),
        *installed_lines(policy),
        *roster_lines(approval),
        *trust_lines(approval, trust, policy),
    ]


def installed_lines(policy: Policy) -> list[str]:
    """Return whose code, beside Consilium's own, this site's policy lets read the records."""
    return [
        f"This site's policy lets the source {name} read records: code of "
        f"{' and '.join(owners_of(name)) or 'a package that is not installed'}, not of Consilium."
        for name in sorted(policy.installed_sources)
    ]


def roster_lines(approval: Approval) -> list[str]:
    """Return the roster's sizes and fingerprint, or what is missing for it to be final."""
    roster, sizes = approval.roster, approval.sizes
    missing = sorted(set(roster) - sizes.keys())
    lines = []
    if sizes:
        total = sum(sizes.values())
        shown = ", ".join(
            f"{site} {size} ({size / total:.0%})" for site, size in sorted(sizes.items())
        )
        lines.append(
            f"Declared sizes, in patients: {shown}. A site's size is its weight in the model, so "
            "ask about one that is larger than the hospital you know; nothing else checks it."
        )
    fingerprint = roster_fingerprint(roster)
    if missing:
        return [
            *lines,
            f"Not declared yet: {', '.join(missing)}. The study begins when all are.",
            f"Roster without sizes: {fingerprint}; another hospital in it must read the same.",
        ]
    return [*lines, f"Roster: {fingerprint}; another hospital in it must read the same."]


def trust_lines(approval: Approval, trust: RosterTrust, policy: Policy) -> list[str]:
    """Return how each site of an offered roster is known here, and what that is worth."""
    study = approval.study
    standings = trust.standings(study, approval.roster)
    others = summed_with(study, trust.site)
    unknown = sum(one.site in others and not one.vouched for one in standings)
    spare = study.aggregation.tolerated_collusion - unknown
    worth = (
        f"The guarantees above hold while at most {spare} of those vouched for collude with the "
        "coordinator."
        if spare >= 0
        else "That is more than the study tolerates colluding sites: if the coordinator lies, "
        "NOTHING above that rests on other sites holds."
    )
    return [
        f"  {trust.site}: this site",
        *(f"  {one.site}: {_known_as(one, trust.site, study)}" for one in standings),
        f"{len(others) - unknown} of the {len(others)} sites summed with yours are vouched for; "
        f"this site's policy asks for {policy.vouched_needed(study)}. Unknown, and perhaps the "
        f"coordinator's own: {unknown}. {worth}",
    ]


def _known_as(standing: Standing, us: str, study: Study) -> str:
    if us in standing.against:
        return "NOT THE KEY THAT THIS SITE CHECKED; telephone it before anything else"
    if standing.against:
        return f"NOT THE KEY THAT {', '.join(standing.against)} CHECKED; telephone it"
    whom = ", ".join("this site" if who == us else who for who in standing.by)
    if standing.vouched:
        return f"vouched for by {whom}"
    if standing.by:
        return f"unknown: vouched for by {whom} only, and it takes {witnesses_needed(study)}"
    return "unknown"


def _secrecy_line(study: Study) -> str:
    collusion, others = study.aggregation.tolerated_collusion, study.group_size - 1
    return (
        f"Your part of a sum stays secret from the coordinator together with up to {collusion} "
        f"other site(s): at least {others - collusion} of the {others} sites summed with yours "
        "must be the hospitals they are named after, and honest. A site that nobody vouched for "
        f"may be the coordinator's own and counts among the {collusion}. It stays so when the "
        "coordinator lies."
    )


def _feasibility_lines(study: Study) -> list[str]:
    if study.feasibility is None:
        return []
    smallest = study.feasibility.smallest_cell
    noise = "exactly, as the study has no privacy"
    if study.privacy.mode != "none":
        deviations = feasibility_noise(study)
        noise = (
            f"each with your own noise (of a deviation of {deviations[0]:.0f} persons on the first "
            f"number, {deviations[-1]:.0f} on those of variables), for epsilon "
            f"{study.feasibility.epsilon:g} of the study's"
        )
    return [
        "First, once, before any training: how many of your patients fit, how many have each "
        "outcome, and how many have each variable at least once are added to the other sites' "
        f"numbers, {noise}. Sums below {smallest} are not shown. The study then rests until its "
        "operator goes on or ends it. 'approve' shows your own numbers, exact, to you alone."
    ]


def _evaluation_lines(study: Study) -> list[str]:
    how = study.evaluation
    if how.validation_fraction == 0:
        return []
    by_group = f" and for groups by {', '.join(how.subgroups)}" if how.subgroups else ""
    lines = [
        f"Evaluation: {how.validation_fraction:.0%} of your patients never train; how often the "
        "model gave them which risk, by outcome, is added to the other sites' counts, for all"
        f"{by_group}. No patient's risk leaves."
    ]
    if how.explained_patients:
        lines.append(
            f"Up to {how.explained_patients} of those patients are explained: how much each "
            "variable moved the model's answer is added up over them, bounded for each, and to the "
            "other sites' sums. No patient's explanation leaves."
        )
    if how.per_site:
        lines.append(
            "The study also asks for the figures of your patients as a whole, yours alone; they "
            "leave only if policy.toml says [release] own_figures = true."
        )
    return lines


def _module_lines(study: Study) -> list[str]:
    return [
        f"The network is code that is not Consilium's: module {each.module} of a package in "
        f"version {each.version} with digest {each.digest}, which your own people install. It runs "
        "with all rights of the site's process, and reads what the network reads. policy.toml must "
        "name it in [models] installed."
        for each in study.model.modules
    ]


def _control_lines(study: Study) -> list[str]:
    if not study.training.control_variates:
        return []
    return [
        "Your mean gradient (a control variate) is in the same sum, beside the update, so what you "
        "send is twice as long; under privacy it is made of what has noise already and costs "
        "nothing more. You keep your own in the folder 'personal'."
    ]


def _personal_lines(study: Study) -> list[str]:
    own = study.personalisation
    if not own.active:
        return []
    judged = "and evaluation judges the model as you use it, with it."
    if not study.evaluates_own:
        judged = (
            "and it is trained without noise, so it may remember your patients: keep it as you "
            "keep their records. Evaluation judges the global model."
        )
    return [
        f"Yours alone: {own.described}. You keep it in the folder 'personal', it is in no message, "
        + judged
    ]


def _other_sites_lines(study: Study) -> list[str]:
    """Say where the roster is not the one that the study was submitted with."""
    if study.sites == study.first_sites:
        return []
    joined = [f"{site} joins" for site in study.sites if site not in study.first_sites]
    left = [f"{site} left" for site in study.first_sites if site not in study.sites]
    lines = [f"It was submitted with {', '.join(study.first_sites)}: {', '.join(joined + left)}."]
    if study.privacy.mode != "none":
        lines.append(
            "A site that joins later takes part in fewer rounds: its ledger is charged for those "
            "alone, at most what is said of privacy below."
        )
    return lines


def _group_lines(study: Study) -> list[str]:
    if study.aggregation.groups == 1:
        return []
    return [
        f"Sites are summed in {study.aggregation.groups} groups of {study.group_size}, in the "
        "order above: the coordinator sees the sum of every group, which hides you among fewer "
        "sites, and takes the median of the groups."
    ]


def _window(study: Study) -> str:
    data = study.data
    if data.clock == "position":
        return f"the first {data.window_h} places of each sequence"
    window_h, landmarks, before = data.window_h, data.landmarks, data.before_event
    if landmarks is not None:
        return (
            f"the {window_h} h before each landmark, one every {landmarks.every_h} h of each stay "
            f"up to hour {landmarks.longest_h}, to foretell the {landmarks.horizon_h} h after"
        )
    if before is not None:
        return (
            f"the {window_h} h up to {before.gap_h} h before the outcome or the end of each stay, "
            f"if that is within {before.longest_h} h"
        )
    if data.after_event is not None:
        after = data.after_event
        unit = study.variables[after.variable].unit.removeprefix("1")
        return (
            f"the {window_h} h from when {after.variable} is first {after.least:g}{unit and ' '}"
            f"{unit} or more, if they end before the stay, the outcome and hour {after.longest_h}"
        )
    return f"the first {window_h} h of each stay"


def _codes(study: Study) -> str:
    if study.tokens is None:
        return ""
    names = ", ".join(study.tokens.names)
    return f", codes ({names}; {len(study.tokens.vocabulary)} told apart)"


def _privacy_lines(study: Study) -> list[str]:
    costs = plan(study)
    if costs is None:
        return [
            "Privacy: NONE. The model may remember single patients; right only for data that is "
            "public already."
        ]
    noise = costs.training_round.noise_multiplier
    against = "everybody, the other sites included"
    if study.privacy.mode == "distributed":
        against = (
            f"the coordinator and up to {study.aggregation.tolerated_collusion} other site(s) "
            "together, any that nobody vouched for among them; the noise is shared among the sites"
        )
    each = "patients" if study.privacy.unit == "patient" else "recordings"
    calibration = (
        [
            f"After training, {costs.calibrations} noised sum(s) over all of your training {each} "
            "say by how much the model's risks are too low or too high; they are part of that "
            "epsilon."
        ]
        if costs.calibrations
        else []
    )
    stays = ", however many stays they have" if study.privacy.unit == "patient" else ""
    return [
        f"Privacy: each of your {each} is protected with epsilon {costs.epsilon:.3g} at delta "
        f"{costs.delta:g} over the whole study, statistics included{stays} "
        f"(mode {study.privacy.mode}, noise multiplier {noise:.3g}, clip norm "
        f"{study.privacy.clip_norm:g}). It holds against {against}. Your ledger holds the budget; "
        "nobody else can spend it.",
        *calibration,
        *([study.privacy.caveat] if study.privacy.caveat else []),
    ]
