"""The declared sizes that this hospital has seen in a study; none of them may change.

A coordinator shows the sizes when a hospital reviews the study and again when a run opens. Each is
signed by its site, so a coordinator cannot make one up; together with a site that signs two it
could still show different ones at different times. What was seen once is therefore kept.
"""

from collections.abc import Callable, Mapping

from consilium.shared.crypto.keys import Roster
from consilium.shared.errors import PolicyError
from consilium.shared.study.definition import Study


def _forget(_: Roster) -> None:
    """Keep nothing on disk."""


class KnownSizes:
    """Declared sizes by site, this site's own among them.

    Args:
        known: the sizes seen so far, in patients.
        write: called with a roster that holds sizes not seen before; they are on disk when it
            returns.
    """

    def __init__(self, known: Mapping[str, int], write: Callable[[Roster], None] = _forget) -> None:
        self._known, self._write = dict(known), write

    def keep(self, study: Study, roster: Roster) -> None:
        """Compare a roster's sizes with those known, and keep those that are new.

        Raises:
            PolicyError: a site's size is another than the one seen before.
            SettingsError: the new ones cannot be written.
        """
        for site, patients in roster.sizes.items():
            if self._known.get(site, patients) != patients:
                raise PolicyError(
                    f"study {study.name}: site {site} declared {self._known[site]} patients, and "
                    f"the coordinator now shows {patients}; a declared size never changes, so ask "
                    "for the study to be submitted again",
                    case="size",
                )
        if not roster.sizes.keys() <= self._known.keys():
            self._write(roster)
            self._known |= roster.sizes
