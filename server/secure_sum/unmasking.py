"""From the revealed shares to the sum: rebuild the secrets, check them, remove the masks."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from consilium.shared.crypto import transcript
from consilium.shared.crypto.keys import ExchangeKey, pair_seed
from consilium.shared.crypto.keystream import add_masks
from consilium.shared.errors import AuthenticationError, RoundVoidError
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.secret_sharing import combine


class MisdealtError(RoundVoidError):
    """The shares that a site dealt are as it committed to, and are of no common secret."""

    def __init__(self, owner: str, sentence: str) -> None:
        super().__init__(sentence, garbage=[{owner}])
        self.owner = owner


def rebuild(
    parameters: SumParameters,
    owner: str,
    shares: Mapping[str, bytes],
    what: str,
    *,
    answered: Collection[str] = (),
) -> bytes:
    """Return a site's secret, 32 bytes, from at least `sharing_threshold` shares by holder.

    Of ``answered``, the sites that revealed shares, those that lack this one did not open what the
    owner dealt them, or hold it back: the owner or one of them broke the protocol.

    Raises:
        RoundVoidError: too few shares, or shares of no common secret.
    """
    needed = parameters.sharing_threshold
    if len(shares) < needed:
        without = (parameters.circle(owner) & set(answered)) - shares.keys()
        raise RoundVoidError(
            f"{len(shares)} sites revealed their share of the {what} of {owner}, and {needed} are "
            "needed; wait for the sites and go on with the next round",
            garbage=[{owner, *without}] if without else (),
        )
    chosen = sorted(shares, key=parameters.point)[:needed]
    try:
        return combine({parameters.point(holder): shares[holder] for holder in chosen})
    except AuthenticationError as error:
        raise _misdealt(owner, what, error) from None


def rebuild_self_mask(
    parameters: SumParameters,
    context: bytes,
    owner: str,
    shares: Mapping[str, bytes],
    commitment: bytes,
    *,
    answered: Collection[str] = (),
) -> bytes:
    """Return a survivor's self-mask seed, 32 bytes, checked against its commitment.

    Raises:
        RoundVoidError: too few shares, or the survivor dealt shares of something else.
    """
    seed = rebuild(parameters, owner, shares, "self mask", answered=answered)
    if transcript.commit_self_mask(context, owner, seed) != commitment:
        raise _misdealt(owner, "self mask", "it does not match the site's commitment")
    return seed


def rebuild_round_key(
    parameters: SumParameters,
    owner: str,
    shares: Mapping[str, bytes],
    public: bytes,
    *,
    answered: Collection[str] = (),
) -> ExchangeKey:
    """Return a dropped site's round key, checked against its public key.

    Raises:
        RoundVoidError: too few shares, or the site dealt shares of something else.
    """
    key = ExchangeKey(rebuild(parameters, owner, shares, "round key", answered=answered))
    if key.public != public:
        raise _misdealt(owner, "round key", "it does not match the site's public key")
    return key


def remove_masks(
    total: NDArray[np.uint32],
    *,
    parameters: SumParameters,
    context: bytes,
    self_masks: Mapping[str, bytes],
    dropped_keys: Mapping[str, ExchangeKey],
    survivor_keys: Mapping[str, bytes],
    threads: int,
) -> None:
    """Remove the masks from the sum of the survivors' vectors, in place.

    Takes one keystream for each survivor, and one for each pair of a survivor and a dropped site
    that share a mask.

    Args:
        total: sum of masked vectors modulo 2^32, with the tail.
        parameters: of the run.
        context: of the round.
        self_masks: seed by survivor.
        dropped_keys: rebuilt round key by dropped site.
        survivor_keys: round public key by survivor.
        threads: cores to use.
    """
    place = parameters.roster.position
    plus: list[bytes] = []
    minus = list(self_masks.values())
    for dropped, key in dropped_keys.items():
        for survivor in survivor_keys.keys() & parameters.circle(dropped):
            public = survivor_keys[survivor]
            low, high = sorted((dropped, survivor), key=place)
            seed = pair_seed(key.shared_secret(public), context=context, low=low, high=high)
            (minus if low == survivor else plus).append(seed)
    add_masks(total, plus=plus, minus=minus, threads=threads)


def _misdealt(owner: str, what: str, why: object) -> MisdealtError:
    return MisdealtError(
        owner,
        f"the shares that site {owner} dealt of its {what} are wrong ({why}), so it does not take "
        "part in the next rounds",
    )
