"""The part of a study's model that stays at this site, and the model as this site uses it.

Besides the shared weights a site may have its own weights of some layers, a second model, its own
normalisation, and a control variate. Each exists from the first round that computes it; before
that, the site uses what the coordinator sent.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from consilium.client.hospital.personal_store import Array, KeepsParts, Kept, PersonalStore
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
    """This site's own part of a study's model, as it was last saved.

    The methods raise SettingsError if it does not fit the study's model.
    """

    study: Study
    kept: Kept

    def joined(self, weights_D: FlatWeights) -> FlatWeights:
        """Return the weights (D,) that this site trains: the shared ones, joined with its own."""
        own = self.kept.get(OWN_WEIGHTS)
        if own is None:
            return weights_D
        shared_D = shared_weights(self.study, weights_D.size)
        joined_D = weights_D.copy()
        joined_D[~shared_D] = self._fitting(own, weights_D.size - int(shared_D.sum()))
        return joined_D

    def used(self, weights_D: FlatWeights) -> FlatWeights:
        """Return the weights (D,) that this site uses on patients: its second model's, if any."""
        second_D = self.kept.get(OWN_MODEL)
        if second_D is None:
            return self.joined(weights_D)
        return self._fitting(second_D, weights_D.size).astype(np.float32)

    def control(self, all_D: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return this site's control variate (D,), or all sites' mean if it has none yet."""
        found_D = self.kept.get(CONTROL)
        return all_D if found_D is None else self._fitting(found_D, all_D.size).astype(np.float64)

    def normalisation(self) -> Normalisation | None:
        """Return this site's own normalisation, or None if it uses the federation's.

        In a study with privacy it is computed from the same noisy numbers that the site added to
        the sum of statistics and was charged for, so it costs nothing more (post-processing).
        """
        statistics_S = self.kept.get(STATISTICS)
        if statistics_S is None:
            return None
        fitting_S = self._fitting(statistics_S, statistics_size(self.study)).astype(np.float64)
        return Normalisation.from_sums(fitting_S, self.study, noise=statistics_noise(self.study))

    def _fitting(self, found: Array, size: int) -> Array:
        if found.shape != (size,) or not np.isfinite(found).all():
            raise SettingsError(
                f"this site's own part of study {self.study.name} has {found.size} numbers, and "
                f"{size} finite ones are needed; restore the folder 'personal' from a backup, or "
                "give it up with 'consilium-site recover --begin-own-parts-anew'"
            )
        return found


class OwnPartOfRun:
    """This site's own part in the current run; changes take effect when they are saved.

    Args:
        study: the approved study; in most studies nothing stays at a site.
        store: keeps it between rounds.

    Attributes:
        part: the part as last saved.
        digest: SHA-256 of the file that holds it; empty if there is none.
    """

    def __init__(self, study: Study, store: KeepsParts) -> None:
        self._study, self._store, self._run, self._run_id = study, store, b"", b""
        self._any = study.keeps_parts
        self._unsaved: dict[str, Array] = {}
        self._round = 0
        self.part, self.digest = OwnPart(study, {}), b""

    def begin_round(self, study_hash: bytes, round_number: int = 0, *, run_id: bytes = b"") -> None:
        """Load what is kept for this run, and drop unsaved changes of an abandoned round.

        Args:
            study_hash: of the run of sums, which another roster changes.
            round_number: the round's.
            run_id: the run's identity, which no roster changes; empty if there is one roster.

        Raises:
            SettingsError: the file cannot be read.
        """
        self._unsaved, self._round = {}, round_number
        if self._any and self._run != study_hash:
            kept, self.digest = self._store.of_run(self._study.digest, study_hash, run_id)
            self.part = OwnPart(self._study, kept)
            self._run, self._run_id = study_hash, run_id

    def change(self, name: str, value: Array) -> None:
        """Record a new value that the current round computed; :meth:`save` makes it count."""
        self._unsaved[name] = value

    @property
    def unsaved(self) -> Kept:
        """The recorded changes."""
        return self._unsaved

    def save(self) -> None:
        """Save the recorded changes.

        Raises:
            SettingsError: they cannot be saved; what was kept before is unchanged.
        """
        if self._unsaved:
            changed = {**self.part.kept, **self._unsaved}
            self.digest = self._store.save(
                self._study.digest, self._run, changed, round=self._round, run_id=self._run_id
            )
            self.part, self._unsaved = OwnPart(self._study, changed), {}


def own_trained(trained: Trained, store: PersonalStore) -> Trained:
    """Return a finished model as this site uses it.

    Raises:
        SettingsError: some weights stay at each site, and this site has kept none, or they do not
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
