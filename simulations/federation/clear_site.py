"""A simulated site without the protocol: it checks and computes as a hospital's site does.

What differs is that its vector leaves as it is: there are no keys, masks, shares and signatures,
and nothing is written to disk but a part of the model that stays at the site.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.records.cohort import Cohort
from consilium.client.round.answer import silently
from consilium.client.round.contribution import Contributor, MakeContributor
from consilium.client.round.gradients import Sample
from consilium.client.round.round_model import RoundModel
from consilium.client.round.training import FirstStep
from consilium.client.secure_sum.round_state import check_vector
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.rounds.contents import RoundConfiguration
from consilium.shared.secure_sum.fixed_point import VectorSpec
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study

Drawn = tuple[Sample, Keystream]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a round asks of every site.

    Attributes:
        asked: the round's configuration.
        received_D: global weights, and what else the round sends behind them.
        round: its number.
        spec: layout of the vector.
    """

    asked: RoundConfiguration
    received_D: NDArray[np.float32]
    round: int
    spec: VectorSpec


class ClearSite:
    """One site of one study; see :class:`consilium.client.round.session.Session` for a hospital's.

    Args:
        site: its name.
        study: what is run.
        cohort: its patients.
        policy: what it allows.
        personal: keeps the part of the model that stays at this site.
        parameters: of the sites' sum.
        model: the study's network, for all sites.
        contribute: makes what computes the rounds' vectors.
    """

    def __init__(
        self,
        site: str,
        study: Study,
        cohort: Cohort,
        policy: Policy,
        personal: PersonalStore,
        parameters: SumParameters,
        model: RoundModel,
        contribute: MakeContributor = Contributor,
    ) -> None:
        policy.check_study(study)
        self.site, self._parameters = site, parameters
        self._contributor = contribute(site, study, cohort, policy, personal, model)

    def check(self, question: Question) -> None:
        """Refuse what does not belong to the study, before anything is charged or computed.

        Raises:
            MessageError: it does not.
        """
        self._contributor.check(question.asked, question.received_D)

    def draw(self, question: Question) -> Drawn | None:
        """Draw the first step's sample, if sites compute that step together.

        Raises:
            UnableError: it cannot.
        """
        with silently():
            return self._contributor.first_sample(question.asked, question.round, self._parameters)

    def vector(self, question: Question, first: FirstStep | None) -> NDArray[np.uint32]:
        """Compute a charged round's vector; return it with its tail (spec.length + 6,).

        Raises:
            UnableError: it cannot.
        """
        parameters, contributor = self._parameters, self._contributor
        with silently():
            vector = contributor.vector(
                question.asked, question.received_D, question.round, parameters, first
            )
            tailed = check_vector(parameters, self.site, vector, question.spec)
            contributor.keep()
        return tailed
