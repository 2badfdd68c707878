"""What a model cannot do, in sentences: in every answer at the bedside, and in its model card.

Each sentence follows from the study, or from what was measured; nothing is said of the patients of
a hospital that did not take part.
"""

from consilium.shared.export.manifest import ModelManifest, window_of
from consilium.shared.study.definition import Study

SIMULATED = "It was made in a SIMULATION, and is not for use on patients."
JUDGEMENT = (
    "It supports a clinician's judgement and does not replace it; it is not known to be cleared as "
    "a medical device."
)
OTHERS = (
    "What it says holds for patients like those of the study; it is not known how it does at a "
    "hospital whose patients differ."
)
REASONS = "Reasons say what the model does, not what would help the patient."
_OUTSIDE = {"drop": "taken as missing", "clip": "moved to the nearest bound"}


def limits_of(manifest: ModelManifest, study: Study) -> tuple[str, ...]:
    """Return the limits of an exported model."""
    validation = manifest.validation
    known = None if validation is None else (validation.patients, validation.of)
    return limits(study, simulated=manifest.simulated, validated=known)


def limits(
    study: Study, *, simulated: bool, validated: tuple[float, str] | None
) -> tuple[str, ...]:
    """Return what a study's model cannot do.

    Args:
        study: it was trained for.
        simulated: whether a simulation made it.
        validated: on how many patients, and whose, its answers were measured; None if on none.
    """
    measured = (
        "Its answers were measured on no patient: the study kept none for validation."
        if validated is None
        else f"Its answers were measured on {validated[0]:.0f} {validated[1]}."
    )
    return (
        *((SIMULATED,) if simulated else ()),
        f"It reads {window_of(study)}, and knows nothing else of the patient.",
        f"Values outside the study's ranges are {_OUTSIDE[study.data.on_out_of_range]}; what was "
        "not measured counts as unknown, not as normal.",
        measured,
        OTHERS,
        REASONS,
        JUDGEMENT,
    )
