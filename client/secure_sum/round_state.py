"""A site's state of a round, and the checks it makes before it masks or reveals anything."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consilium.client.secure_sum.letters import DealtKeys, Received
from consilium.shared.crypto import transcript
from consilium.shared.crypto.boxes import BoxKeys
from consilium.shared.crypto.keys import Secret, pair_seed
from consilium.shared.errors import AuthenticationError, EncodingError, ProtocolError
from consilium.shared.secure_sum.fixed_point import VectorSpec
from consilium.shared.secure_sum.messages import Unmasked, UnmaskRequest
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.tail import append_tail


@dataclass(repr=False, eq=False, kw_only=True)
class PendingKeys(Secret):
    """Keys made for a round that has not begun yet.

    Attributes:
        round: its number.
        dealt: this site's round key, and its keys for the boxes that will come.
        opens: its keys for the boxes with shares of the others' seeds of the round.
    """

    round: int
    dealt: DealtKeys
    opens: BoxKeys


@dataclass(repr=False, eq=False, kw_only=True)
class MaskedRound(Secret):
    """A round that has begun.

    Attributes:
        round: its number.
        pair_secrets: for each peer in this site's circle, the secret agreed with that peer; dropped
            by masking.
        keys: all participants' public keys.
        begun: hash of everything that this site was shown when the round began.
        received: what the circle said to this site.
        masks: this site's keys for the boxes of self-mask shares.
        following: its keys for the boxes of the next round's seed shares.
        context: the round's context; set by masking.
        mask_share: this site's share of its own self-mask seed; set by masking.
        agreed: the survivors that this site signed; set by signing.
    """

    round: int
    pair_secrets: dict[str, bytes]
    keys: dict[str, bytes]
    begun: bytes
    received: Received
    masks: BoxKeys
    following: BoxKeys
    context: bytes | None = None
    mask_share: bytes = b""
    agreed: tuple[str, ...] | None = None


@dataclass(repr=False, eq=False, kw_only=True)
class FinishedRound:
    """What was revealed, kept for a coordinator that repeats the same request."""

    context: bytes
    survivors: tuple[str, ...]
    reply: Unmasked


def check_members(
    parameters: SumParameters, keys: Mapping[str, bytes], site: str, own: bytes, what: str
) -> None:
    """Check a list of participants with their public keys that the coordinator passed on.

    The caller checks the signatures, and thereby membership in the roster.

    Args:
        parameters: the parameters of the run.
        keys: 32-byte public key by site.
        site: the checking site.
        own: its true public key.
        what: the list's name in errors.

    Raises:
        ProtocolError: fewer than `minimum_sites`, or this site's key is missing or changed.
        AuthenticationError: one key for two sites.
    """
    if len(keys) < parameters.minimum_sites:
        raise ProtocolError(
            f"{what} has {len(keys)} sites, and this study needs at least "
            f"{parameters.minimum_sites}"
        )
    if keys.get(site) != own:
        raise ProtocolError(f"{what} does not have this site's own key")
    if len(set(keys.values())) != len(keys):
        raise AuthenticationError(f"{what} has the same key for two sites")


def check_vector(
    parameters: SumParameters, site: str, vector: NDArray[np.uint32], spec: VectorSpec
) -> NDArray[np.uint32]:
    """Check what is to be masked and append the tail; return shape (spec.length + 6,).

    Raises:
        EncodingError: a type or length that differs from the layout's, or a layout whose sum could
            wrap.
    """
    if vector.dtype != np.uint32 or vector.shape != (spec.length,):
        raise EncodingError(
            f"the vector to mask is {vector.dtype} of shape {vector.shape}, and the study's "
            f"layout is uint32 of shape ({spec.length},)"
        )
    spec.check_headroom(len(parameters.roster), parameters.roster.largest_size)
    return append_tail(vector, parameters.roster.sizes[site])


def pair_seeds(
    parameters: SumParameters, site: str, state: MaskedRound, context: bytes
) -> tuple[list[bytes], list[bytes]]:
    """Return the seeds of the masks that a site adds, and of those that it subtracts.

    Of two sites, the one that is first in the roster adds.
    """
    plus: list[bytes] = []
    minus: list[bytes] = []
    for peer, secret in state.pair_secrets.items():
        low, high = sorted((site, peer), key=parameters.roster.position)
        seed = pair_seed(secret, context=context, low=low, high=high)
        (plus if low == site else minus).append(seed)
    return plus, minus


def check_survivors(
    parameters: SumParameters, site: str, state: MaskedRound, survivors: tuple[str, ...]
) -> None:
    """Check that a site may help to open the sum over these survivors.

    Raises:
        ProtocolError: a survivor did not take part, this site is missing, there are too few
            survivors, one has too few neighbours among them, or this site agreed to others before.
    """
    least = max(parameters.threshold, parameters.minimum_sites)
    if not set(survivors) <= state.keys.keys():
        raise ProtocolError("the survivors include a site that did not take part in the round")
    if site not in survivors:
        raise ProtocolError("the survivors do not include this site")
    if len(survivors) < least:
        raise ProtocolError(
            f"{len(survivors)} sites survive, and a sum over fewer than {least} is never opened"
        )
    if parameters.supported(survivors) != set(survivors):
        raise ProtocolError(
            "a survivor has too few surviving neighbours, so their masks might not hide it"
        )
    if state.agreed not in (None, survivors):
        raise ProtocolError(f"other survivors were agreed to in round {state.round}")


def check_agreement(
    parameters: SumParameters, site: str, state: MaskedRound, request: UnmaskRequest
) -> None:
    """Check that at least `threshold` survivors signed the list of survivors.

    If this site signed this list itself, its own signature is not verified again.

    Raises:
        ProtocolError: too few signatures, or one by a site that is no survivor.
        AuthenticationError: a signature does not verify.
    """
    statement = transcript.survivors_statement(request.context, request.survivors)
    for signer, signature in request.signatures.items():
        if signer not in request.survivors:
            raise ProtocolError(f"{signer} signed the survivors without being one")
        if signer == site and state.agreed == request.survivors:
            continue
        parameters.roster.verify(signer, statement, signature, "the survivors")
    if len(request.signatures) < parameters.threshold:
        raise ProtocolError(
            f"{len(request.signatures)} sites signed the survivors, and "
            f"{parameters.threshold} are needed"
        )
