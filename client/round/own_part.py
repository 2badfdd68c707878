"""What a study leaves to this site, and the model as this site uses it.

Besides the shared weights a site may have its own of some layers, a second model, its own
normalisation, and a control variate. Each is there from the round that first makes it; before, the
site uses what the coordinator sent.
"""

import copy
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class OwnPart:
    """This site's own part of a study's model, as kept at one time.

    Its methods raise SettingsError where what is kept does not fit the study's model.
    """

    study: Study
    kept: Kept

    def joined(self, weights_D: FlatWeights) -> FlatWeights:
        """Return the weights (D,) that this site trains with the others: the shared and its own."""
        own = self.kept.get(OWN_WEIGHTS)
        if own is None:
            return weights_D
        shared_D = shared_weights(self.study, weights_D.size)
        joined_D = weights_D.copy()
        joined_D[~shared_D] = self._fitting(own, weights_D.size - int(shared_D.sum()))
        return joined_D

    def used(self, weights_D: FlatWeights) -> FlatWeights:
        """Return the weights (D,) that this site uses on its patients: a second model's, if any."""
        second_D = self.kept.get(OWN_MODEL)
        if second_D is None:
            return self.joined(weights_D)
        return self._fitting(second_D, weights_D.size).astype(np.float32)

    def control(self, all_D: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return this site's control variate (D,); one that has none begins with all sites'."""
        found_D = self.kept.get(CONTROL)
        return all_D if found_D is None else self._fitting(found_D, all_D.size).astype(np.float64)

    def normalisation(self) -> Normalisation | None:
        """Return what this site's inputs are normalised by, or None for the federation's.

        Under privacy it comes from the very numbers, with their noise, that the site gave to the
        sum of statistics and was charged for, so that it costs nothing more (post-processing).
        """
        statistics_S = self.kept.get(STATISTICS)
        if statistics_S is None:
            return None
        fitting_S = self._fitting(statistics_S, statistics_size(self.study)).astype(np.float64)
        return Normalisation.from_sums(fitting_S, noise=statistics_noise(self.study))

    def _fitting(self, found: Array, size: int) -> Array:
        if found.shape != (size,) or not np.isfinite(found).all():
            raise SettingsError(
                f"this site's own part of study {self.study.name} has {found.size} numbers, and "
                f"{size} finite ones are needed; restore the folder 'personal' from a backup, or "
                "remove the study's file in it to begin anew"
            )
        return found


class OwnPartOfRun:
    """The own part in the run that this site is in; a change counts once it is saved.

    Args:
        study: the approved study; most leave nothing to a site.
        store: the site's files.

    Attributes:
        part: as saved last.
    """

    def __init__(self, study: Study, store: PersonalStore) -> None:
        self._study, self._store, self._run = study, store, b""
        self._any = study.personalisation.active or study.training.control_variates
        self._unsaved: dict[str, Array] = {}
        self.part = OwnPart(study, {})

    def begin_round(self, study_hash: bytes) -> None:
        """Take up what is kept of this run, and drop changes of a round that came to nothing.

        Raises:
            SettingsError: it cannot be read.
        """
        self._unsaved = {}
        if self._any and self._run != study_hash:
            self.part = OwnPart(self._study, self._store.load(self._study.digest, study_hash))
            self._run = study_hash

    def change(self, name: str, value: Array) -> None:
        """Note what the round that is being computed makes of a part."""
        self._unsaved[name] = value

    def save(self) -> None:
        """Save what changed.

        Raises:
            SettingsError: it cannot be saved; what was kept before still is.
        """
        if self._unsaved:
            changed = {**self.part.kept, **self._unsaved}
            self._store.save(self._study.digest, self._run, changed)
            self.part, self._unsaved = OwnPart(self._study, changed), {}


def own_trained(trained: Trained, store: PersonalStore) -> Trained:
    """Return a finished model as this site uses it.

    Raises:
        SettingsError: the study leaves weights to each site and none are kept here, or they do not
            fit.
    """
    study = trained.study
    own = OwnPart(study, store.latest(study.digest))
    if study.personalisation.weights and OWN_WEIGHTS not in own.kept:
        raise SettingsError(
            f"study {study.name} leaves {study.personalisation.described} to each site, and this "
            "one has none: it did not train, or its folder 'personal' is missing; restore that "
            "from a backup"
        )
    model = copy.deepcopy(trained.model)
    load_vector(model, own.used(to_vector(model)))
    normalisation = own.normalisation() or trained.normalisation
    return replace(trained, model=model.eval(), normalisation=normalisation)
