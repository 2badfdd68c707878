"""Whether a box holds the share that its dealer committed to: for its holder, and for any judge.

A holder whose box does not is a witness: it shows the private key that opens this one box. The key
is good for nothing else (`consilium.shared.crypto.boxes`), and it proves itself: its public key is
the one that the holder announced to the dealer, and the dealer signed box and commitment.
"""

from consilium.shared.crypto import transcript
from consilium.shared.crypto.boxes import BoxUse, open_box
from consilium.shared.crypto.keys import ExchangeKey
from consilium.shared.errors import AuthenticationError, ProtocolError
from consilium.shared.secure_sum.secret_sharing import read_share

SEED, MASK = "seed", "mask"


def seed_use(study_hash: bytes, round: int, dealer: str, holder: str, public: bytes) -> BoxUse:
    """The use of a box with a share of the dealer's round seed, whose public key is given."""
    return BoxUse(
        kind=SEED, study_hash=study_hash, round=round, dealer=dealer, holder=holder, context=public
    )


def mask_use(study_hash: bytes, round: int, dealer: str, holder: str, context: bytes) -> BoxUse:
    """The use of a box with a share of the dealer's self-mask seed."""
    return BoxUse(
        kind=MASK, study_hash=study_hash, round=round, dealer=dealer, holder=holder, context=context
    )


def commit_share(use: BoxUse, share: bytes) -> bytes:
    """The commitment to the share in a box of that use, 32 bytes."""
    if use.kind == SEED:
        return transcript.commit_seed_share(
            use.study_hash, use.round, use.dealer, use.holder, share
        )
    return transcript.commit_mask_share(use.context, use.dealer, use.holder, share)


def open_dealt(own: ExchangeKey, box: bytes, commitment: bytes, use: BoxUse) -> bytes:
    """Return the share in a box, 33 bytes.

    Raises:
        AuthenticationError: the box does not open, holds no share, or another share than the one
            committed to. If the box is the dealer's, the dealer is to blame.
    """
    share = open_box(own, box, use=use)
    try:
        read_share(share)
    except AuthenticationError:
        raise AuthenticationError(
            f"the {use.kind} box from {use.dealer} for round {use.round} holds no share"
        ) from None
    if commit_share(use, share) != commitment:
        raise AuthenticationError(
            f"the {use.kind} share that {use.dealer} dealt to {use.holder} for round {use.round} "
            "is not the one it committed to"
        )
    return share


def judge(witness: bytes, announced: bytes, box: bytes, commitment: bytes, use: BoxUse) -> str:
    """Return the sentence against the dealer that a holder's complaint proves.

    Args:
        witness: the private key that the holder shows, 32 bytes.
        announced: the public key that the holder announced to the dealer.
        box: as the dealer signed it.
        commitment: as the dealer signed it.
        use: of the box.

    Raises:
        ProtocolError: the complaint proves nothing; the holder is to blame.
    """
    own = ExchangeKey(witness)
    if own.public != announced:
        raise ProtocolError(
            f"{use.holder} complained of {use.dealer} with a key it never announced"
        )
    try:
        open_dealt(own, box, commitment, use)
    except AuthenticationError as error:
        return f"{error} ({use.holder} shows the key that opens the box)"
    raise ProtocolError(
        f"{use.holder} complained of a share of {use.dealer} that is as committed to"
    )
