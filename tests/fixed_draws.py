"""The same draws in every run, where a test says what a study with privacy learned or sent."""

import pytest

from consilium.client.round.randomness import RoundRandomness
from consilium.shared.crypto.keystream import Keystream
from consilium.shared.crypto.transcript import digest


def fix_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw what a site draws in a round from its name, the round and the use alone.

    Under privacy it is fresh otherwise, noise included, so a figure of the model lies on either
    side of a bound by chance. It holds in this process: not in those of a large simulation's sites.
    """

    def drawn(self: RoundRandomness, use: str) -> Keystream:
        return Keystream(digest("fixed draws", self.site, self.round_number, use))

    monkeypatch.setattr(RoundRandomness, "stream", drawn)
