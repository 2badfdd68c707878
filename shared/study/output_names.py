"""The names of the model's outputs, the same at every site and the coordinator."""

from consilium.shared.study.definition import Study
from consilium.shared.study.survival import interval_names


def output_names(study: Study) -> tuple[str, ...]:
    """Return a name for each of the model's outputs, from the study's label."""
    label, task = study.data.label, study.task
    if task.kind == "survival":
        return tuple(f"{label} {name}" for name in interval_names(task))
    if task.outputs == 1:
        return (label,)
    parts = tuple(part.strip() for part in label.split("+"))
    if task.kind != "multiclass" and len(parts) == task.outputs:
        return parts
    return tuple(f"{label} {number}" for number in range(task.outputs))
