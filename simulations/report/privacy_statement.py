"""What is protected, from whom, and under which assumptions, in words for clinicians.

The content is that of docs/threat-model.md and docs/privacy.md, with the study's and the run's
numbers.
"""

import math

from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.simulations.federation.clear_sum import CLEAR
from consilium.simulations.report.drawing import delta_text

FALSE_ALARM = 0.001
HIDDEN_BY_NOTHING = (
    "The sum itself: it can still tell something about one hospital to whoever knows all others. "
    "Only differential privacy bounds that.",
    "Who takes part, when, how large the model is, and the rounded size each hospital declared.",
    "Poisoning: a hospital may send any update within the bound on its length, and one can bend "
    "the model a little without notice.",
    "Availability: whoever carries the messages can stop a round.",
    "What a hospital's own computer holds: its records are guarded by the hospital, not by this.",
    "A person who looks at results and chooses another study by them: the choice is not charged.",
)


def statement(study: Study, record: JsonRecord) -> list[tuple[str, tuple[str, ...]]]:
    """Return headings with their sentences."""
    unit = study.privacy.unit
    return [
        (f"One {unit}", (*_patient(study, record), *_meaning(record, unit))),
        ("One hospital", _hospital(study, record)),
        ("Assumptions", _assumptions(study, record)),
        ("Not protected", (*_simulated(record), *HIDDEN_BY_NOTHING)),
    ]


def most_right(epsilon: float, delta: float) -> float:
    """Return the largest share of right guesses about one patient that privacy allows.

    Guessed is whether the patient is in the training data, in or out with even odds. The share is
    (e^epsilon + delta) / (e^epsilon + 1), from the total variation of Kairouz et al. (2015).
    """
    return (1 + delta * math.exp(-epsilon)) / (1 + math.exp(-epsilon))


def most_found(epsilon: float, delta: float, false_alarm: float) -> float:
    """Return the largest true-positive rate at a false-positive rate of ``false_alarm``.

    Source: Kairouz et al. (2015), theorem 2.1.
    """
    direct = math.exp(min(epsilon, 500.0)) * false_alarm + delta
    mirrored = 1 - math.exp(-epsilon) * (1 - delta - false_alarm)
    return min(direct, mirrored, 1.0)


def _patient(study: Study, record: JsonRecord) -> tuple[str, ...]:
    privacy = record["privacy"]
    if privacy["epsilon"] is None:
        return (
            "There is no differential privacy: the model may remember single patients, and whoever "
            "has it may find out who was in training. Right only for data that is public already.",
        )
    unit = study.privacy.unit
    stays = " and however many stays the patient had" if unit == "patient" else ""
    bound = (
        f"Whether a {unit} was in training, and anything about that {unit}, is protected with "
        f"epsilon {privacy['epsilon']:.2f} at delta {delta_text(privacy)}, over all rounds and "
        f"statistics together{stays}. The study allows at most "
        f"epsilon {privacy['epsilon_budget']:g}; a ledger at each hospital refuses more."
    )
    if study.privacy.caveat:
        bound += f" {study.privacy.caveat}"
    if study.evaluation.validation_fraction:
        bound += (
            f" {unit.capitalize()}s held out for validation pay for the evaluations instead, "
            "within the same bound."
        )
    if study.privacy.mode == "site":
        return (
            bound,
            "It holds against everybody: the coordinator, all other hospitals together, and "
            "whoever gets the model, because each hospital adds all of its noise itself.",
        )
    return (
        bound,
        f"It holds against whoever gets the model, and against the coordinator together with up to "
        f"{_sites(study.aggregation.tolerated_collusion)}. Hospitals share the noise: each adds a "
        "part, and only the total carries enough.",
    )


def _meaning(record: JsonRecord, unit: str) -> tuple[str, ...]:
    privacy = record["privacy"]
    if privacy["epsilon"] is None:
        return ()
    epsilon, delta = privacy["epsilon"], privacy["delta"]
    right, found = most_right(epsilon, delta), most_found(epsilon, delta, FALSE_ALARM)
    weak = (
        " At this epsilon the worst case that theory allows is weak; attacks that are known do far "
        "worse, but that is experience and no guarantee."
        if right > 0.9
        else ""
    )
    return (
        f"In plain words: somebody who knows everything but whether this one {unit} was in "
        f"training, and guesses from all that left, is right in at most {100 * right:.2f} % of "
        f"even chances; accusing one of {1 / FALSE_ALARM:.0f} outsiders wrongly, they find at most "
        f"{100 * found:.2f} % of the insiders.{weak}",
    )


def _hospital(study: Study, record: JsonRecord) -> tuple[str, ...]:
    agg, where = study.aggregation, "A"
    if record.get("sum") == CLEAR:
        where = "Among hospitals (the secure sum did not run in this simulation), a"
    among = f"{study.minimum_sites} hospitals or more" + (
        f" of its group of {study.group_size}" if agg.groups > 1 else ""
    )
    return (
        f"{where} hospital's update, metrics and statistics leave only masked, its exact number of "
        "patients not at all. A sum "
        f"opens only over {among}, and at most one sum a round.",
        "That hides them from the coordinator, from the network, and from up to "
        f"{_sites(agg.tolerated_collusion)} that the coordinator has on its side.",
        "No record, no key and no patient's score leaves a hospital in training or evaluation.",
        *_own(study),
    )


def _own(study: Study) -> tuple[str, ...]:
    own = study.personalisation
    if not own.active:
        return ()
    counted = "evaluation by sums counts the same."
    if not study.evaluates_own:
        counted = (
            "evaluation by sums counts the global model's risks, because each second model is "
            "trained without noise and remembers its hospital's patients: it is no more to be "
            "passed on than their records."
        )
    return (
        f"Each hospital keeps {own.described} for itself: it is in no message. Figures are of "
        f"every hospital's patients under its own model; {counted}",
    )


def _assumptions(study: Study, record: JsonRecord) -> tuple[str, ...]:
    agg = study.aggregation
    sums = (
        "The coordinator may lie, replay, drop and show each hospital something else.",
        f"No more than {_sites(agg.tolerated_collusion)} help the coordinator; with more there is "
        "no claim.",
        f"Fewer than {study.threshold} hospitals pool their shares of secrets, and X25519, Ed25519,"
        " AES-256 and SHA-256 hold.",
        "Each hospital runs its own installed programs, approved this study and its roster by "
        "digest, and draws its noise from the operating system.",
    )
    if record["privacy"]["epsilon"] is None:
        return sums
    if study.privacy.mode == "site":
        return (
            f"For one {study.privacy.unit}: nothing about anybody else. The four below are about "
            "one hospital.",
            *sums,
        )
    honest = study.minimum_sites - agg.tolerated_collusion
    return (
        f"For one {study.privacy.unit}: the four below, because the noise counted on is that of "
        f"{honest} honest hospitals among the {study.minimum_sites} of a sum; a round with fewer "
        "is void.",
        *sums,
    )


def _simulated(record: JsonRecord) -> tuple[str, ...]:
    in_clear = (
        (
            "The secure sum did not run: the same whole numbers were added as they are, without "
            "keys, masks and signatures, which in one process would hide nothing from anybody.",
        )
        if record.get("sum") == CLEAR
        else ()
    )
    return (
        "This run was a simulation: one process held all records. What is said here is what the "
        "same study protects among hospitals, and what the files of this run would give away.",
        *in_clear,
        "The figures on test patients in this report, and fits at single hospitals: the researcher "
        "holds these patients, and they are counted without noise.",
    )


def _sites(count: int) -> str:
    return f"{count} hospital{'' if count == 1 else 's'}"
