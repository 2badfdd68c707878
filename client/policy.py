"""What this hospital allows, whatever a study asks for; checked before a patient's record is read.

A policy is the hospital's own. Nothing a coordinator sends can widen it.
"""

from dataclasses import dataclass

from shared.errors import PolicyError
from shared.study import MINIMUM_SITES, Study


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Bounds on the studies this site takes part in.

    Attributes:
        largest_study_epsilon: most privacy budget one study may use.
        lifetime_epsilon: most privacy budget all studies together may use; the ledger holds it.
        delta: probability with which the lifetime guarantee may fail.
        minimum_sites: fewest sites whose sum may be released.
        allow_without_privacy: whether studies without differential privacy are allowed; right only
            for data that is public already.
    """

    largest_study_epsilon: float = 8.0
    lifetime_epsilon: float = 16.0
    delta: float = 1e-5
    minimum_sites: int = MINIMUM_SITES
    allow_without_privacy: bool = False

    def check_study(self, study: Study) -> None:
        """Refuse a study that asks for more than this hospital allows.

        Raises:
            PolicyError: names the value, the bound, and who can change it.
        """
        privacy = study.privacy
        if privacy.mode == "none" and not self.allow_without_privacy:
            raise PolicyError(
                "the study has no differential privacy and this site's policy requires it; "
                "set [privacy] mode in the study, or ask the site to allow it for public data"
            )
        if privacy.mode != "none" and privacy.epsilon > self.largest_study_epsilon:
            raise PolicyError(
                f"the study's epsilon {privacy.epsilon:g} is above this site's bound of "
                f"{self.largest_study_epsilon:g} a study; lower [privacy] epsilon or ask the site"
            )
        if privacy.mode != "none" and privacy.delta > self.delta:
            raise PolicyError(
                f"the study's delta {privacy.delta:g} is above this site's bound of "
                f"{self.delta:g}; lower [privacy] delta or ask the site"
            )
        if study.minimum_sites < self.minimum_sites:
            raise PolicyError(
                f"the study releases sums of {study.minimum_sites} sites, below this site's bound "
                f"of {self.minimum_sites}; raise [aggregation] minimum_sites or ask the site"
            )
