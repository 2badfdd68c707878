"""The names of the model's inputs, the same at every site and the coordinator."""

from collections.abc import Collection

from consilium.shared.study.definition import Study

UNKNOWN_TOKEN = 1  # the number of every code outside a study's vocabulary

CHANNELS = ("", " measured", " recency", " deviance", " mean", " count")  # of a series, in order


def series_names(study: Study) -> tuple[str, ...]:
    """Names of the study's time-series variables, in the study's order."""
    return tuple(name for name, spec in study.variables.items() if spec.role == "series")


def static_names(study: Study) -> tuple[str, ...]:
    """Names of the study's static variables, in the study's order."""
    return tuple(name for name, spec in study.variables.items() if spec.role == "static")


def feature_names(study: Study) -> tuple[str, ...]:
    """Names of the model's F inputs at every step, the same at every site and the coordinator.

    Six blocks over the series variables (last value; measured in this step; how recently measured;
    how unusual the last value is on either side; mean so far; how often measured so far; on a clock
    of positions the first two only) and two over the static ones (value; known), then one whole
    number for each column of codes. :func:`consilium.client.records.features.to_tensors` computes
    them.
    """
    series, static = series_names(study), static_names(study)
    suffixes = CHANNELS[: channels(study)]
    blocks = (*((series, suffix) for suffix in suffixes), (static, ""), (static, " known"))
    measured = tuple(f"{name}{suffix}" for names, suffix in blocks for name in names)
    return (*measured, *(f"{name} token" for name in token_names(study)))


def channels(study: Study) -> int:
    """How many of ``CHANNELS`` the study's clock has."""
    return 2 if study.data.clock == "position" else len(CHANNELS)


def inputs_of(study: Study, names: Collection[str]) -> list[int]:
    """Return where the inputs of these variables and columns of codes stand among the features."""
    series, static = series_names(study), static_names(study)
    whose = (*series * channels(study), *static * 2, *token_names(study))
    return [place for place, name in enumerate(whose) if name in names]


def token_names(study: Study) -> tuple[str, ...]:
    """Names of the study's columns of codes; they follow the variables in a stay's events."""
    return () if study.tokens is None else study.tokens.names


def token_numbers(study: Study) -> dict[str, int]:
    """Return the number of each code of the study's vocabulary: 2, 3, ...

    ``UNKNOWN_TOKEN`` stands for all other codes; 0 means that there is none.
    """
    codes = () if study.tokens is None else study.tokens.vocabulary
    return {code: number for number, code in enumerate(codes, start=UNKNOWN_TOKEN + 1)}
