"""A model as one site uses it: the shared weights, and in their place the site's own."""

import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from consilium.client.hospital.personal_store import Array, Kept, PersonalStore
from consilium.shared.errors import SettingsError
from consilium.shared.export.signed_model import Trained
from consilium.shared.model.normalisation import Normalisation, statistics_size
from consilium.shared.model.own_weights import shared_weights
from consilium.shared.model.weight_vector import load_vector, to_vector
from consilium.shared.rounds.contents import statistics_noise
from consilium.shared.study.definition import Study

OWN_WEIGHTS, OWN_MODEL, STATISTICS = "own_weights", "own_model", "statistics"
CONTROL = "control"

FlatWeights = NDArray[np.float32]


def with_own(study: Study, kept: Kept, weights_D: FlatWeights) -> FlatWeights:
    """Return the weights (D,) that this site trains with the others: the shared and its own.

    Raises:
        SettingsError: what is kept does not fit the study's model.
    """
    own = kept.get(OWN_WEIGHTS)
    if own is None:
        return weights_D
    shared_D = shared_weights(study, weights_D.size)
    joined_D = weights_D.copy()
    joined_D[~shared_D] = _fitting(study, own, weights_D.size - int(shared_D.sum()))
    return joined_D


def as_used(study: Study, kept: Kept, weights_D: FlatWeights) -> FlatWeights:
    """Return the weights (D,) that this site uses on its patients: a second model's, if it has one.

    Raises:
        SettingsError: what is kept does not fit the study's model.
    """
    second_D = kept.get(OWN_MODEL)
    if second_D is None:
        return with_own(study, kept, weights_D)
    return _fitting(study, second_D, weights_D.size).astype(np.float32)


def own_control(study: Study, kept: Kept, all_D: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return this site's control variate (D,); one that has none begins with all sites'.

    Raises:
        SettingsError: what is kept does not fit the study's model.
    """
    found_D = kept.get(CONTROL)
    return all_D if found_D is None else _fitting(study, found_D, all_D.size).astype(np.float64)


def own_normalisation(study: Study, kept: Kept) -> Normalisation | None:
    """Return what this site's inputs are normalised by, or None for the federation's.

    Under privacy it comes from the very numbers, with their noise, that the site gave to the sum of
    statistics and was charged for, so that it costs nothing more (post-processing).

    Raises:
        SettingsError: what is kept does not fit the study.
    """
    statistics_S = kept.get(STATISTICS)
    if statistics_S is None:
        return None
    fitting_S = _fitting(study, statistics_S, statistics_size(study)).astype(np.float64)
    return Normalisation.from_sums(fitting_S, noise=statistics_noise(study))


def own_trained(trained: Trained, store: PersonalStore) -> Trained:
    """Return a finished model as this site uses it.

    Raises:
        SettingsError: the study leaves weights to each site and none are kept here, or they do not
            fit.
    """
    study = trained.study
    kept = store.latest(study.digest)
    if study.personalisation.weights and OWN_WEIGHTS not in kept:
        raise SettingsError(
            f"study {study.name} leaves {study.personalisation.described} to each site, and this "
            "one has none: it did not train, or its folder 'personal' is missing; restore that "
            "from a backup"
        )
    model = copy.deepcopy(trained.model)
    load_vector(model, as_used(study, kept, to_vector(model)))
    normalisation = own_normalisation(study, kept) or trained.normalisation
    return replace(trained, model=model.eval(), normalisation=normalisation)


def _fitting(study: Study, found: Array, size: int) -> Array:
    if found.shape != (size,) or not np.isfinite(found).all():
        raise SettingsError(
            f"this site's own part of study {study.name} has {found.size} numbers, and {size} "
            "finite ones are needed; restore the folder 'personal' from a backup, or remove the "
            "study's file in it to begin anew"
        )
    return found
