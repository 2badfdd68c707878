"""Sealed channels from one site to its peers: the coordinator carries them and cannot open them.

In a run a site has one X25519 key, signed by its identity. Each pair of sites has two AES-256-GCM
keys, one per direction. Each sealed box is bound to its kind, round, sender, receiver and round
context.
"""

from collections.abc import Iterable, Mapping
from functools import partial

from consilium.shared.crypto import transcript
from consilium.shared.crypto.keys import (
    NONCE_BYTES,
    Entropy,
    ExchangeKey,
    Secret,
    channel_key,
    open_sealed,
    seal,
    seal_context,
)
from consilium.shared.errors import AuthenticationError, ProtocolError
from consilium.shared.secure_sum.messages import ChannelKey
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.secret_sharing import SECRET_BYTES, read_share, split


class Channels(Secret):
    """One site's channels in one run.

    Args:
        site: this site's name.
        parameters: the parameters of the approved study and this run.
        entropy: source of keys, share polynomials and nonces.
    """

    def __init__(self, site: str, parameters: SumParameters, entropy: Entropy) -> None:
        self._site = site
        self._parameters = parameters
        self._entropy = entropy
        self._exchange = ExchangeKey(entropy(SECRET_BYTES))
        self._keys: dict[str, tuple[bytes, bytes]] = {}

    @property
    def public(self) -> bytes:
        """Public key that this site announces to its peers (32 bytes)."""
        return self._exchange.public

    @property
    def holders(self) -> tuple[str, ...]:
        """This site, and the peers in its circle for which it can seal."""
        return (self._site, *self._keys)

    def open(self, announced: Iterable[ChannelKey]) -> None:
        """Take the peers' keys that the coordinator passes on; they replace all earlier ones.

        Raises:
            ProtocolError: too few sites, or this site's own key is missing or changed.
            AuthenticationError: an unknown site, a wrong signature, or two sites with one key.
        """
        study_hash = self._parameters.study_hash
        publics = {key.site: key.public for key in announced}
        check_members(self._parameters, publics, self._site, self.public, "the channel request")
        circle = self._parameters.circle(self._site)
        keys = {}
        for key in announced:
            statement = transcript.channel_statement(study_hash, key.site, key.public)
            self._parameters.roster.verify(key.site, statement, key.signature, "the channel key")
            if key.site in circle and key.site != self._site:
                secret = self._exchange.shared_secret(key.public)
                derived = partial(channel_key, secret, study_hash=study_hash)
                keys[key.site] = (
                    derived(sender=self._site, receiver=key.site),
                    derived(sender=key.site, receiver=self._site),
                )
        self._keys = keys

    def split(self, secret: bytes, holders: Iterable[str]) -> dict[str, bytes]:
        """Return Shamir shares of a 32-byte secret by holder, at the sharing threshold."""
        points = {self._parameters.point(holder): holder for holder in holders}
        dealt = split(
            secret,
            threshold=self._parameters.sharing_threshold,
            points=tuple(points),
            entropy=self._entropy,
        )
        return {points[point]: share for point, share in dealt.items()}

    def seal(
        self, kind: str, round: int, context: bytes, shares: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """Return each peer's share, sealed for that peer; this site's own is left out."""
        return {
            holder: seal(
                self._keys[holder][0],
                share,
                about=self._about(kind, round, context, self._site, holder),
                nonce=self._entropy(NONCE_BYTES),
            )
            for holder, share in shares.items()
            if holder != self._site
        }

    def open_share(
        self, kind: str, dealer: str, round: int, context: bytes, boxes: Mapping[str, bytes]
    ) -> bytes:
        """Return the share that a dealer sealed for this site.

        Raises:
            ProtocolError: the share is missing.
            AuthenticationError: it does not open, or is not a share.
        """
        what = f"the {kind} share from {dealer} for round {round}"
        if dealer not in boxes or dealer not in self._keys:
            raise ProtocolError(f"{what} is missing")
        about = self._about(kind, round, context, dealer, self._site)
        share = open_sealed(self._keys[dealer][1], boxes[dealer], about=about, what=what)
        read_share(share)
        return share

    def _about(self, kind: str, round: int, context: bytes, sender: str, receiver: str) -> bytes:
        return seal_context(
            kind,
            study_hash=self._parameters.study_hash,
            round=round,
            sender=sender,
            receiver=receiver,
            context=context,
        )


def bound_to(statement: bytes) -> bytes:
    """Return the context that binds seed shares to their dealer's statement of its keys."""
    return transcript.sha256(statement)


def check_members(
    parameters: SumParameters, keys: Mapping[str, bytes], site: str, own: bytes, what: str
) -> None:
    """Check a list of sites with their public keys that the coordinator passed on.

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
