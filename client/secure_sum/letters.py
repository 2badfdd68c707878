"""What sites say to each other through the coordinator: keys for boxes, and shares in boxes.

Everything here is signed by the site that says it, so the coordinator, which carries it, can
neither read nor change it, nor put in something of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from consilium.shared.crypto import hash_tree, transcript
from consilium.shared.crypto.boxes import BoxKeys, seal_box
from consilium.shared.crypto.keys import (
    KEY_BYTES,
    Entropy,
    ExchangeKey,
    IdentityKey,
    Secret,
    is_low_order,
)
from consilium.shared.errors import AuthenticationError, ProtocolError
from consilium.shared.secure_sum.dealt_shares import (
    commit_share,
    mask_use,
    open_dealt,
    seed_use,
)
from consilium.shared.secure_sum.messages import (
    ChannelKey,
    KeysRequest,
    Letter,
    MaskBox,
    MaskedUpdate,
    RoundKeys,
    SignedKey,
    UnmaskRequest,
    UpdateRequest,
)
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.secret_sharing import SECRET_BYTES, split


class Member(Secret):
    """Who writes and reads letters: one site in one run.

    Args:
        site: its name.
        identity: its long-lived key.
        parameters: of the approved study and this run.
        entropy: source of keys and share polynomials.
    """

    def __init__(
        self, site: str, identity: IdentityKey, parameters: SumParameters, entropy: Entropy
    ) -> None:
        self.site, self.parameters = site, parameters
        self.identity, self.entropy = identity, entropy
        self.peers = tuple(sorted(parameters.circle(site) - {site}))

    def shares(self, secret: bytes, holders: Iterable[str]) -> dict[str, bytes]:
        """Shamir shares of a 32-byte secret by holder, at the sharing threshold."""
        points = {self.parameters.point(holder): holder for holder in holders}
        dealt = split(
            secret,
            threshold=self.parameters.sharing_threshold,
            points=tuple(points),
            entropy=self.entropy,
        )
        return {points[point]: share for point, share in dealt.items()}


@dataclass(repr=False, eq=False, kw_only=True)
class DealtKeys(Secret):
    """A round key that a site has dealt, and its keys for the boxes that will come.

    Attributes:
        exchange: the round key.
        masks: opens the boxes with shares of the others' self masks of the round.
        following: opens the boxes with shares of the others' seeds of the next round.
        message: what the others may know of it.
    """

    exchange: ExchangeKey
    masks: BoxKeys
    following: BoxKeys
    message: RoundKeys


@dataclass(repr=False, eq=False, kw_only=True)
class Received(Secret):
    """What a site's circle said to it when a round began, by sender.

    Attributes:
        seed_shares: of the sender's round seed, 33 bytes.
        complaints: for a sender whose box holds no such share, the private key that shows it.
        mask_keys: to which this site seals shares of its self mask of the round.
        seed_keys: to which it seals shares of its seed of the next round.
    """

    seed_shares: dict[str, bytes]
    complaints: dict[str, bytes]
    mask_keys: dict[str, bytes]
    seed_keys: dict[str, bytes]


def announce(me: Member, keys: BoxKeys) -> ChannelKey:
    """The site's keys for the first boxes that its peers will seal for it, signed."""
    publics = {peer: keys.public(peer) for peer in me.peers}
    leaves = [transcript.channel_leaf(peer, public) for peer, public in publics.items()]
    statement = transcript.channel_statement(
        me.parameters.study_hash, me.site, hash_tree.root(leaves)
    )
    return ChannelKey(site=me.site, keys=publics, signature=me.identity.sign(statement))


def peers_keys(me: Member, request: KeysRequest) -> dict[str, bytes]:
    """The keys that the peers announced to this site, checked.

    Raises:
        ProtocolError: a site outside this site's circle.
        AuthenticationError: an unknown site, a wrong signature, or a key of low order.
    """
    keys = {}
    for key in request.channel_keys:
        root = hash_tree.root_from(transcript.channel_leaf(me.site, key.public), key.path)
        statement = transcript.channel_statement(me.parameters.study_hash, key.site, root)
        me.parameters.roster.verify(key.site, statement, key.signature, "the channel key")
        if key.site not in me.peers:
            raise ProtocolError(f"{key.site} shares no masks with this site, so it gets no share")
        _usable(key.public, key.site)
        keys[key.site] = key.public
    return keys


def deal_keys(me: Member, round: int, to: Mapping[str, bytes]) -> DealtKeys:
    """Make a round key from a fresh seed, and write a letter to each holder of a share of it.

    Args:
        me: the dealer.
        round: the round's number.
        to: by holder, the key that it announced for this box.
    """
    study_hash = me.parameters.study_hash
    seed = me.entropy(SECRET_BYTES)
    exchange = ExchangeKey(seed)
    masks, following = BoxKeys(me.entropy(SECRET_BYTES)), BoxKeys(me.entropy(SECRET_BYTES))
    letters, leaves = {}, {}
    shares = me.shares(seed, sorted([me.site, *to]))
    ephemeral = ExchangeKey(me.entropy(KEY_BYTES))
    for holder, share in shares.items():
        use = seed_use(study_hash, round, me.site, holder, exchange.public)
        commitment = commit_share(use, share)
        if holder == me.site:
            own_commitment = commitment
            leaves[holder] = transcript.own_leaf(holder, commitment)
            continue
        letter = Letter(
            commitment=commitment,
            box=seal_box(share, to=to[holder], use=use, ephemeral=ephemeral),
            mask_key=masks.public(holder),
            seed_key=following.public(holder),
        )
        letters[holder], leaves[holder] = letter, leaf_of(letter, holder, to[holder])
    root = hash_tree.root([leaves[holder] for holder in sorted(leaves)])
    statement = transcript.keys_statement(study_hash, round, me.site, exchange.public, root)
    message = RoundKeys(
        site=me.site,
        round=round,
        public=exchange.public,
        own_commitment=own_commitment,
        letters=letters,
        signature=me.identity.sign(statement),
    )
    return DealtKeys(exchange=exchange, masks=masks, following=following, message=message)


def leaf_of(letter: Letter, holder: str, to: bytes) -> bytes:
    """The leaf of a letter in its sender's hash tree; `to` is the key its box is sealed to."""
    return transcript.letter_leaf(
        holder, to, letter.commitment, letter.box, letter.mask_key, letter.seed_key
    )


def read_letters(me: Member, request: UpdateRequest, opens: BoxKeys) -> Received:
    """Check every other participant's signed keys and letter, and take the shares out.

    A letter is the sender's own, or the request is refused. What is in its box is the sender's to
    answer for: if it is not the share committed to, the site takes part and complains.

    Args:
        me: the receiver.
        request: which opens the round.
        opens: the keys that the senders were told to seal to.

    Raises:
        ProtocolError: a letter is missing.
        AuthenticationError: an unknown site, a wrong signature, a letter that its sender did not
            write, or a key of low order.
    """
    received = Received(seed_shares={}, complaints={}, mask_keys={}, seed_keys={})
    for sender in request.participants:
        if sender.site == me.site:
            continue  # this site's own key, already found in the list
        statement = transcript.keys_statement(
            request.study_hash, request.round, sender.site, sender.public, sender.root
        )
        me.parameters.roster.verify(
            sender.site, statement, sender.signature, f"the keys of round {request.round}"
        )
        _usable(sender.public, sender.site)
        if sender.site in me.peers:
            _read_letter(me, request, sender, opens, received)
    return received


def _read_letter(
    me: Member, request: UpdateRequest, sender: SignedKey, opens: BoxKeys, received: Received
) -> None:
    dealer, what = sender.site, f"the letter from {sender.site} for round {request.round}"
    delivered = request.letters.get(dealer)
    if delivered is None:
        raise ProtocolError(f"{what} is missing")
    letter, own = delivered.letter, opens.key(dealer)
    if hash_tree.root_from(leaf_of(letter, me.site, own.public), delivered.path) != sender.root:
        raise AuthenticationError(f"{what} is not the one that {dealer} wrote to this site")
    for key in (letter.mask_key, letter.seed_key):
        _usable(key, dealer)
    received.mask_keys[dealer], received.seed_keys[dealer] = letter.mask_key, letter.seed_key
    use = seed_use(request.study_hash, request.round, dealer, me.site, sender.public)
    try:
        share = open_dealt(own, letter.box, letter.commitment, use)
    except AuthenticationError:
        received.complaints[dealer] = opens.secret(dealer)
    else:
        received.seed_shares[dealer] = share


def deal_mask(
    me: Member, round: int, context: bytes, seed: bytes, to: Mapping[str, bytes]
) -> tuple[bytes, MaskedUpdate]:
    """Deal shares of a self mask's seed.

    Args:
        me: the dealer.
        round: the round's number.
        context: of the round.
        seed: of the self mask, 32 bytes.
        to: by holder, the key that it announced for this box.

    Returns:
        The share that the site keeps, and its update without vector and complaints.
    """
    boxes = {}
    shares = me.shares(seed, sorted([me.site, *to]))
    ephemeral = ExchangeKey(me.entropy(KEY_BYTES))
    for holder in sorted(to):
        use = mask_use(me.parameters.study_hash, round, me.site, holder, context)
        boxes[holder] = MaskBox(
            commitment=commit_share(use, shares[holder]),
            box=seal_box(shares[holder], to=to[holder], use=use, ephemeral=ephemeral),
        )
    commitment = transcript.commit_self_mask(context, me.site, seed)
    own = transcript.commit_mask_share(context, me.site, me.site, shares[me.site])
    told = {holder: (to[holder], dealt.commitment, dealt.box) for holder, dealt in boxes.items()}
    statement = transcript.masked_statement(context, me.site, commitment, own, told)
    return shares[me.site], MaskedUpdate(
        site=me.site,
        round=round,
        context=context,
        packed=b"",
        commitment=commitment,
        own_commitment=own,
        boxes=boxes,
        complaints={},
        signature=me.identity.sign(statement),
        audit_head=b"",
    )


def read_mask_boxes(
    me: Member, round: int, request: UnmaskRequest, opens: BoxKeys
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Take shares of the survivors' self masks out of their boxes.

    Whose box does not hold the share committed to is complained of. The key that a complaint shows
    opens only what would have been revealed in its place.

    Returns:
        By survivor of the circle, the share; and the private keys of complaints.
    """
    shares, complaints = {}, {}
    for dealer in sorted(request.boxes.keys() & set(request.survivors) & set(me.peers)):
        dealt = request.boxes[dealer]
        use = mask_use(request.study_hash, round, dealer, me.site, request.context)
        try:
            shares[dealer] = open_dealt(opens.key(dealer), dealt.box, dealt.commitment, use)
        except AuthenticationError:
            complaints[dealer] = opens.secret(dealer)
    return shares, complaints


def _usable(key: bytes, site: str) -> None:
    if is_low_order(key):
        raise AuthenticationError(
            f"a key of {site} is a low-order point, which no honest site makes"
        )
