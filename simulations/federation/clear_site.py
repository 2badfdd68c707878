"""A simulated site without the protocol: it checks, charges and computes as a hospital's site does.

What differs is that its vector leaves as it is: there are no keys, masks, shares and signatures,
and nothing is written to disk.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.client.hospital.personal_store import PersonalStore
from consilium.client.hospital.policy import Policy
from consilium.client.ledger.store import Ledger, Release
from consilium.client.records.cohort import Cohort
from consilium.client.round.answer import silently
from consilium.client.round.charges import reserve_all, round_charges
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


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a round asks of every site.

    Attributes:
        asked: the round's configuration.
        received_D: global weights, and what else the round sends behind them.
        round: its number.
        parameters: of the sites' sum.
        spec: layout of the vector.
    """

    asked: RoundConfiguration
    received_D: NDArray[np.float32]
    round: int
    parameters: SumParameters
    spec: VectorSpec


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Begun:
    """A round that a site has charged.

    Attributes:
        releases: what was charged.
        drawn: the first step's sample and its keystream, if sites compute it together.
    """

    releases: tuple[Release, ...]
    drawn: tuple[Sample, Keystream] | None


class ClearSite:
    """One site of one study; see :class:`consilium.client.round.session.Session` for a hospital's.

    Args:
        site: its name.
        study: what is run.
        cohort: its patients.
        policy: what it allows.
        ledger: its privacy ledger.
        personal: keeps the part of the model that stays at this site.
        model: the study's network, for all sites.
        contribute: makes what computes the rounds' vectors.
    """

    def __init__(
        self,
        site: str,
        study: Study,
        cohort: Cohort,
        policy: Policy,
        ledger: Ledger,
        personal: PersonalStore,
        model: RoundModel,
        contribute: MakeContributor = Contributor,
    ) -> None:
        policy.check_study(study)
        self.site, self._study, self._ledger = site, study, ledger
        self._contributor = contribute(site, study, cohort, policy, personal, model)

    def begin(self, question: Question) -> Begun:
        """Check and charge a round; draw what can be computed together with other sites.

        Raises:
            ConsiliumError: the site declines.
        """
        asked, parameters = question.asked, question.parameters
        self._contributor.check(asked, question.received_D)
        releases = round_charges(self._study, asked, question.round, parameters.study_hash)
        reserve_all(self._ledger, releases, self._study)
        with silently():
            drawn = self._contributor.first_sample(asked, question.round, parameters)
        return Begun(releases=releases, drawn=drawn)

    def vector(
        self, question: Question, begun: Begun, first: FirstStep | None
    ) -> NDArray[np.uint32]:
        """Compute a charged round's vector; return it with its tail (spec.length + 6,).

        Raises:
            UnableError: it cannot.
        """
        parameters, contributor = question.parameters, self._contributor
        with silently():
            vector = contributor.vector(
                question.asked, question.received_D, question.round, parameters, first
            )
            tailed = check_vector(parameters, self.site, vector, question.spec)
            contributor.keep()
            for release in begun.releases:
                self._ledger.confirm(release)
        return tailed
