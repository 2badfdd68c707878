"""A second implementation of the secure sum: both halves, from docs/protocol.md alone.

It imports nothing of the product. Plain Python integers and lists; from `cryptography` it takes
X25519, Ed25519, HKDF, AES-GCM and AES-CTR. It is for tests and no place to put secrets: nothing in
it hurries, and nothing is wiped. `test_second.py` lets it complete rounds with ours.
"""

import hashlib
import os

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PRIME = 2**256 + 297
TAIL = 6
LAST_ROUND = 2**32 - 1


class RefusedError(Exception):
    """A message against the rules, by the other side or carried by it."""


def need(holds, sentence):
    if not holds:
        raise RefusedError(sentence)


# Bytes


def plain(part):
    if isinstance(part, int):
        return part.to_bytes(8, "big")
    return part.encode() if isinstance(part, str) else part


def encode(label, *parts):
    pieces = [plain("consilium/1/" + label), plain(len(parts)), *map(plain, parts)]
    return b"".join(len(piece).to_bytes(8, "big") + piece for piece in pieces)


def sha256(data):
    return hashlib.sha256(data).digest()


def digest(label, *parts):
    return sha256(encode(label, *parts))


def pack_plain(thing):
    """Shortest msgpack of nil, numbers, text, byte strings and arrays."""
    if thing is None:
        return b"\xc0"
    if isinstance(thing, int):
        if thing < 128:
            return bytes([thing])
        for size, head in ((1, 0xCC), (2, 0xCD), (4, 0xCE), (8, 0xCF)):
            if thing < 1 << 8 * size:
                return bytes([head]) + thing.to_bytes(size, "big")
    if isinstance(thing, str):
        data = thing.encode()
        if len(data) < 32:
            return bytes([0xA0 | len(data)]) + data
        return sized(len(data), ((1, 0xD9), (2, 0xDA), (4, 0xDB))) + data
    if isinstance(thing, bytes):
        return sized(len(thing), ((1, 0xC4), (2, 0xC5), (4, 0xC6))) + thing
    if len(thing) < 16:
        return bytes([0x90 | len(thing)]) + b"".join(map(pack_plain, thing))
    return sized(len(thing), ((2, 0xDC), (4, 0xDD))) + b"".join(map(pack_plain, thing))


def sized(length, heads):
    size, head = next((size, head) for size, head in heads if length < 1 << 8 * size)
    return bytes([head]) + length.to_bytes(size, "big")


def unpack_plain(data, at=0):
    """One thing and where it ends."""
    head, at = data[at], at + 1

    def number(size):
        return int.from_bytes(data[at : at + size], "big"), at + size

    def array(count, at):
        things = []
        for _ in range(count):
            thing, at = unpack_plain(data, at)
            things.append(thing)
        return things, at

    if head < 0x80:
        return head, at
    if head & 0xF0 == 0x90:
        return array(head & 0x0F, at)
    if head & 0xE0 == 0xA0:
        end = at + (head & 0x1F)
        return data[at:end].decode(), end
    if head == 0xC0:
        return None, at
    if head in (0xCC, 0xCD, 0xCE, 0xCF):
        return number(1 << head - 0xCC)
    if head in (0xC4, 0xC5, 0xC6):
        length, at = number(1 << head - 0xC4)
        return data[at : at + length], at + length
    if head in (0xD9, 0xDA, 0xDB):
        length, at = number(1 << head - 0xD9)
        return data[at : at + length].decode(), at + length
    need(head in (0xDC, 0xDD), "not msgpack of these messages")
    length, at = number(2 << head - 0xDC)
    return array(length, at)


def message(kind, *fields):
    return pack_plain(["consilium", 1, kind, list(fields)])


def read(data, kind):
    """The fields of a message of this kind."""
    envelope, end = unpack_plain(bytes(data))
    need(end == len(data) and len(envelope) == 4, "not one message")
    magic, version, found, fields = envelope
    need((magic, version) == ("consilium", 1), "another protocol or version")
    if found == "refusal":
        raise RefusedError(f"refusal by {fields[0]}: {fields[2]}")
    need(found == kind, f"a {found} message where {kind} is expected")
    return fields


def pairs(mapping):
    return [[name, mapping[name]] for name in sorted(mapping)]


def mapped(array):
    names = [name for name, _ in array]
    need(names == sorted(set(names)), "a map out of order")
    return dict(array)


# Cryptography


def hkdf(secret, salt, label, *parts):
    return HKDF(SHA256(), 32, salt, encode(label, *parts)).derive(secret)


def public_of(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed(private, public):
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError:
        raise RefusedError("a key of low order") from None


def node(one, other):
    return digest("node", *sorted((one, other)))


def tree(leaves):
    """The root, and each leaf's path."""
    paths, level = [b""] * len(leaves), [(leaf, [place]) for place, leaf in enumerate(leaves)]
    while len(level) > 1:
        above = []
        for (left, under), (right, beside) in zip(level[::2], level[1::2], strict=False):
            for place in under:
                paths[place] += right
            for place in beside:
                paths[place] += left
            above.append((node(left, right), under + beside))
        level = above + (level[-1:] if len(level) % 2 else [])
    return level[0][0], paths


def climb(leaf, path):
    for at in range(0, len(path), 32):
        leaf = node(leaf, path[at : at + 32])
    return leaf


def seal(share, to, study_hash, *use):
    """`use` is kind, round, dealer, holder, binding."""
    ephemeral = os.urandom(32)
    public = public_of(ephemeral)
    key = hkdf(agreed(ephemeral, to), study_hash, "box", *use, public, to)
    return public + AESGCM(key).encrypt(bytes(12), share, None)


def unseal(private, box, study_hash, *use):
    to = public_of(private)
    key = hkdf(agreed(private, box[:32]), study_hash, "box", *use, box[:32], to)
    try:
        return AESGCM(key).decrypt(bytes(12), box[32:], None)
    except InvalidTag:
        raise RefusedError("a box that does not open") from None


def deal(seed, threshold, points):
    coefficients = [int.from_bytes(seed, "big")]
    coefficients += [int.from_bytes(os.urandom(48), "big") % PRIME for _ in range(threshold - 1)]
    return {
        x: (sum(c * pow(x, i, PRIME) for i, c in enumerate(coefficients)) % PRIME).to_bytes(
            33, "big"
        )
        for x in points
    }


def rebuild(shares):
    """From shares by point, as many as the threshold."""
    total = 0
    for x, share in shares.items():
        above = below = 1
        for other in shares:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        total += int.from_bytes(share, "big") * above * pow(below, -1, PRIME)
    value = total % PRIME
    need(value < 2**256, "shares of no seed")
    return value.to_bytes(32, "big")


def keystream(seed, words):
    stream = Cipher(AES(seed), CTR(bytes(16))).encryptor().update(bytes(4 * words))
    return [int.from_bytes(stream[4 * i : 4 * i + 4], "little") for i in range(words)]


def pack_ring(values, bits):
    values = list(values) + [0] * (len(values) % 2 if bits in (20, 28) else 0)
    number = sum((value % 2**bits) << bits * place for place, value in enumerate(values))
    return number.to_bytes(len(values) * bits // 8, "little")


def unpack_ring(packed, length, bits):
    number = int.from_bytes(packed, "little")
    return [number >> bits * place & (2**bits - 1) for place in range(length)]


# What the study fixes


class Parameters:
    """`roster` is a list of (name, identity, declared size); `declared` maps names to declarations.

    `layout` is a list of (name, length, linf, scale).
    """

    def __init__(
        self, study_digest, run_id, roster, declared, t, minimum, c, k, bits, layout
    ):  # fmt: skip
        self.study_digest, self.run_id, self.declared = study_digest, run_id, declared
        self.identities = {name: identity for name, identity, _ in roster}
        self.sizes = {name: size for name, _, size in roster}
        self.t, self.minimum, self.bits = t, minimum, bits
        self.names = [name for name, _, _ in roster]
        n = len(roster)
        members = [part for member in roster for part in member]
        self.study_hash = digest("study", study_digest, run_id, t, minimum, c, k, *members)
        spec = [
            part for name, size, linf, scale in layout for part in (name, size, *hexes(linf, scale))
        ]
        self.layout = digest("vector-spec", bits, *spec)
        self.length = sum(segment[1] for segment in layout)
        self.shares_needed = t if k == n - 1 else (k + 1 + c) // 2 + 1
        steps = sorted(
            (d for d in range(1, n) if 2 * d < n), key=lambda d: digest("distance", n, d)
        )[: k // 2]
        self.circles = {
            name: set(self.names)
            if k == n - 1
            else {name} | {self.names[(i + s * d) % n] for d in steps for s in (1, -1)}
            for i, name in enumerate(self.names)
        }

    def point(self, name):
        return self.names.index(name) + 1

    def verify(self, name, statement, signature):
        need(name in self.names, f"{name} is not in the roster")
        identity = Ed25519PublicKey.from_public_bytes(self.identities[name])
        try:
            identity.verify(signature, statement)
        except InvalidSignature:
            raise RefusedError(f"a signature of {name} does not verify") from None

    def supported(self, names):
        return all(len(self.circles[name] & set(names)) >= self.shares_needed for name in names)

    def pair_mask(self, secret, one, other, context, words):
        low, high = sorted((one, other), key=self.names.index)
        return keystream(hkdf(secret, context, "pair", low, high), words), 1 if one == low else -1


def hexes(*numbers):
    return [float(number).hex() for number in numbers]


def commit_seed(p, round, dealer, holder, share):
    return digest("seed-share", p.study_hash, round, dealer, holder, share)


def commit_mask(context, dealer, holder, share):
    return digest("mask-share", context, dealer, holder, share)


def letter_leaf(holder, to, letter):
    commitment, box, mask_key, seed_key = letter
    return digest("letter", holder, to, commitment, box, mask_key, seed_key)


def contexts(p, round, model, configuration, publics):
    shown = [part for name in sorted(publics) for part in (name, publics[name])]
    begun = digest("begun", p.study_hash, round, sha256(model), sha256(configuration), *shown)
    return digest("context", begun, p.layout)


# A site


class Site:
    """Answers one message with one message; `vector` gives the whole numbers of a round."""

    def __init__(self, name, identity_seed, parameters, vector):
        self.name, self.p, self.vector = name, parameters, vector
        self.identity = Ed25519PrivateKey.from_private_bytes(identity_seed)
        self.peers = sorted(parameters.circles[name] - {name})
        self.channel = self.pending = self.round = self.done = None
        self.highest = 0
        self.spoil = lambda kind, holder, share: share  # tests may deal wrong shares with it

    def answer(self, body):
        steps = {
            "channel-request": self.announce,
            "keys-request": self.make_keys,
            "update-request": self.update,
            "agree-request": self.agree,
            "unmask-request": self.unmask,
        }
        kind = unpack_plain(body)[0][2]
        try:
            return steps[kind](*read(body, kind))
        except RefusedError as error:
            return message("refusal", self.name, "Refused", str(error))

    def box_keys(self):
        return {peer: os.urandom(32) for peer in self.peers}

    def announce(self, study_digest, run_id, study_hash, declared, _audit_head):
        p = self.p
        asked = (study_digest, run_id, study_hash)
        need(asked == (p.study_digest, p.run_id, p.study_hash), "another study or run")
        for name, declaration in mapped(declared).items():
            size, signature = int.from_bytes(declaration[:4], "big"), declaration[4:]
            p.verify(name, encode("size", p.study_digest, name, size), signature)
            need(size == p.sizes[name], f"another size of {name}")
        self.channel = self.channel or self.box_keys()
        keys = {peer: public_of(private) for peer, private in self.channel.items()}
        root, _ = tree([digest("channel-key", peer, keys[peer]) for peer in self.peers])
        signature = self.identity.sign(encode("channel", p.study_hash, self.name, root))
        return message("channel-key", self.name, pairs(keys), signature, b"")

    def make_keys(self, study_hash, round, channel_keys):
        p = self.p
        need(study_hash == p.study_hash and self.channel is not None, "no channel")
        need(round > max(self.highest, self.round["round"] if self.round else 0), "an old round")
        to = {}
        for holder, public, path, signature in channel_keys:
            need(holder in self.peers, f"{holder} is no peer")
            root = climb(digest("channel-key", self.name, public), path)
            p.verify(holder, encode("channel", p.study_hash, holder, root), signature)
            to[holder] = public
        need(len(to) + 1 >= p.shares_needed, "too few peers")
        self.round = self.done = None
        return message("round-keys", *self.round_keys(round, to, self.channel))

    def round_keys(self, round, to, opens):
        p, seed = self.p, os.urandom(32)
        public, masks, seeds = public_of(seed), self.box_keys(), self.box_keys()
        dealt = deal(seed, p.shares_needed, [p.point(name) for name in (self.name, *to)])
        letters, leaves = {}, {}
        for holder in (self.name, *to):
            share = dealt[p.point(holder)]
            commitment = commit_seed(p, round, self.name, holder, share)
            if holder == self.name:
                own, leaves[holder] = commitment, digest("own-share", holder, commitment)
                continue
            use = ("seed", round, self.name, holder, public)
            box = seal(self.spoil("seed", holder, share), to[holder], p.study_hash, *use)
            letters[holder] = [commitment, box, public_of(masks[holder]), public_of(seeds[holder])]
            leaves[holder] = letter_leaf(holder, to[holder], letters[holder])
        root, _ = tree([leaves[name] for name in sorted(leaves)])
        statement = encode("keys", p.study_hash, round, self.name, public, root)
        self.pending = {
            "round": round, "seed": seed, "public": public, "opens": opens,
            "masks": masks, "seeds": seeds,
        }  # fmt: skip
        return [self.name, round, public, own, pairs(letters), self.identity.sign(statement)]

    def update(self, study_hash, round, participants, letters, model, configuration):
        p, pending = self.p, self.pending
        need(study_hash == p.study_hash and round > self.highest, "another study or an old round")
        need(pending is not None and pending["round"] == round, "no keys for this round")
        publics = {name: public for name, public, _, _ in participants}
        need(len(publics) == len(participants) >= p.minimum, "too few participants")
        need(len(set(publics.values())) == len(publics), "a key twice")
        need(publics.get(self.name) == pending["public"], "not this site's own key")
        peers = [name for name in self.peers if name in publics]
        need(len(peers) + 1 >= p.shares_needed, "too few peers")
        letters, told, shares, complaints, secrets = mapped(letters), {}, {}, {}, {}
        for name, public, root, signature in participants:
            if name == self.name:
                continue
            p.verify(name, encode("keys", p.study_hash, round, name, public, root), signature)
            if name not in peers:
                continue
            secrets[name] = agreed(pending["seed"], public)
            need(name in letters, f"no letter from {name}")
            (letter, path), private = letters[name], pending["opens"][name]
            leaf = letter_leaf(self.name, public_of(private), letter)
            need(climb(leaf, path) == root, f"not a letter by {name}")
            told[name] = letter
            for key in letter[2:]:
                agreed(private, key)  # refuses a key of low order
            use = ("seed", round, name, self.name, public)
            share = self.opened(private, letter[1], use)
            if share and commit_seed(p, round, name, self.name, share) == letter[0]:
                shares[name] = share
            else:
                complaints[name] = private
        context = contexts(p, round, model, configuration, publics)
        self.highest = round
        self.channel = self.pending = self.done = None
        masked = [*self.vector(round), 1, p.sizes[self.name], 0, 0, 0, 0]
        b = os.urandom(32)
        streams = [(keystream(b, len(masked)), 1)]
        streams += [
            p.pair_mask(secrets[peer], self.name, peer, context, len(masked)) for peer in peers
        ]
        for stream, sign in streams:
            masked = [value + sign * word for value, word in zip(masked, stream, strict=True)]
        dealt = deal(b, p.shares_needed, [p.point(name) for name in (self.name, *peers)])
        boxes, statement = {}, []
        for holder in peers:
            share, to = dealt[p.point(holder)], told[holder][2]
            commitment = commit_mask(context, self.name, holder, share)
            use = ("mask", round, self.name, holder, context)
            box = seal(self.spoil("mask", holder, share), to, p.study_hash, *use)
            boxes[holder] = [commitment, box]
            statement += [holder, to, commitment, box]
        own_share = dealt[p.point(self.name)]
        own = commit_mask(context, self.name, self.name, own_share)
        commitment = digest("self-mask", context, self.name, b)
        self.round = {
            "round": round, "context": context, "participants": set(publics), "shares": shares,
            "own": own_share, "masks": pending["masks"], "seeds": pending["seeds"],
            "to": {name: letter[3] for name, letter in told.items()}, "agreed": None,
        }  # fmt: skip
        signature = self.identity.sign(
            encode("masked", context, self.name, commitment, own, *statement)
        )
        return message(
            "masked-update", self.name, round, context, pack_ring(masked, p.bits), commitment, own,
            pairs(boxes), pairs(complaints), signature, b"",
        )  # fmt: skip

    def opened(self, private, box, use):
        """The share in a box, or None."""
        try:
            share = unseal(private, box, self.p.study_hash, *use)
        except RefusedError:
            return None
        return share if len(share) == 33 and int.from_bytes(share, "big") < PRIME else None

    def check_survivors(self, study_hash, context, survivors):
        p, state = self.p, self.round
        need(study_hash == p.study_hash, "another study")
        need(state is not None and state["context"] == context, "not the round masked last")
        need(survivors == sorted(set(survivors)), "survivors out of order")
        need(set(survivors) <= state["participants"], "a survivor that took no part")
        need(self.name in survivors and len(survivors) >= max(p.t, p.minimum), "too few survivors")
        need(p.supported(survivors), "a survivor with too few neighbours")
        need(state["agreed"] in (None, survivors), "other survivors were signed")

    def agree(self, study_hash, round, context, survivors):
        self.check_survivors(study_hash, context, survivors)
        self.round["agreed"] = survivors
        signature = self.identity.sign(encode("survivors", context, *survivors))
        return message("agreement", self.name, round, signature)

    def unmask(self, study_hash, round, context, survivors, signatures, boxes):
        if self.done and self.done[0] == context:
            need(self.done[1] == survivors, "unmasked for others")
            return self.done[2]
        self.check_survivors(study_hash, context, survivors)
        p, state, signatures = self.p, self.round, mapped(signatures)
        for name, signature in signatures.items():
            need(name in survivors, "signed by no survivor")
            p.verify(name, encode("survivors", context, *survivors), signature)
        need(len(signatures) >= p.t, "too few signatures")
        masks, complaints = {self.name: state["own"]}, {}
        for dealer, (commitment, box) in mapped(boxes).items():
            if dealer in survivors and dealer in self.peers:
                private = state["masks"][dealer]
                use = ("mask", state["round"], dealer, self.name, context)
                share = self.opened(private, box, use)
                if share and commit_mask(context, dealer, self.name, share) == commitment:
                    masks[dealer] = share
                else:
                    complaints[dealer] = private
        gone = (state["participants"] & set(self.peers)) - set(survivors)
        seeds = {name: state["shares"][name] for name in gone if name in state["shares"]}
        following, keys = state["round"] + 1, None
        if following <= LAST_ROUND:
            keys = self.round_keys(following, state["to"], state["seeds"])
        reply = message(
            "unmasked", self.name, state["round"], pairs(masks), pairs(seeds), pairs(complaints),
            keys,
        )  # fmt: skip
        self.done, self.round = (context, survivors, reply), None
        return reply


# A coordinator


class Coordinator:
    """Sums over sites; `ask(action, bodies)` gives the replies of those that answer, by site."""

    def __init__(self, parameters, ask):
        self.p, self.ask = parameters, ask
        self.keys, self.to, self.named = {}, {}, {}

    def replies(self, action, bodies, kind):
        for name, body in self.ask(action, bodies).items():
            try:
                fields = read(body, kind)
                need(fields[0] == name, "a reply in another's name")
            except RefusedError as error:
                self.named[name] = str(error)
            else:
                yield name, fields

    def open(self, round):
        """Collect fresh keys for a round from all sites."""
        p, announced = self.p, {}
        body = message(
            "channel-request", p.study_digest, p.run_id, p.study_hash, pairs(p.declared), b""
        )
        for name, (_, keys, signature, _) in self.replies(
            "channel", dict.fromkeys(p.names, body), "channel-key"
        ):
            keys = mapped(keys)
            need(set(keys) == p.circles[name] - {name}, "keys for others")
            root, paths = tree([digest("channel-key", peer, keys[peer]) for peer in sorted(keys)])
            p.verify(name, encode("channel", p.study_hash, name, root), signature)
            announced[name] = (keys, dict(zip(sorted(keys), paths, strict=True)), signature)
        bodies, to = {}, {}
        for dealer in announced:
            holders = sorted(p.circles[dealer] & set(announced) - {dealer})
            to[dealer] = {holder: announced[holder][0][dealer] for holder in holders}
            parts = [
                [h, announced[h][0][dealer], announced[h][1][dealer], announced[h][2]]
                for h in holders
            ]
            bodies[dealer] = message("keys-request", p.study_hash, round, parts)
        self.keys = {}
        for name, fields in self.replies("keys", bodies, "round-keys"):
            self.keep(name, fields, round, to[name])

    def keep(self, name, fields, round, to):
        p = self.p
        site, found, public, own, letters, signature = fields
        letters = mapped(letters)
        need((site, found, set(letters)) == (name, round, set(to)), "keys of another kind")
        leaves = {name: digest("own-share", name, own)}
        leaves |= {holder: letter_leaf(holder, to[holder], letters[holder]) for holder in letters}
        order = sorted(leaves)
        root, paths = tree([leaves[holder] for holder in order])
        p.verify(name, encode("keys", p.study_hash, round, name, public, root), signature)
        self.keys[name] = {
            "round": round, "public": public, "own": own, "letters": letters, "to": to,
            "signed": [name, public, root, signature],
            "paths": dict(zip(order, paths, strict=True)),
        }  # fmt: skip

    def sum(self, round, model, configuration):
        """The sum of the survivors' vectors modulo 2^k, their weight, and who they are."""
        p, self.named = self.p, {}
        if not self.keys or any(keys["round"] != round for keys in self.keys.values()):
            self.open(round)
        keys = dict(self.keys)
        need(len(keys) >= p.minimum, f"too few sites have keys: {self.named}")
        context = contexts(
            p, round, model, configuration, {name: k["public"] for name, k in keys.items()}
        )
        uploads, total = self.updates(round, keys, context, model, configuration)
        survivors = sorted(uploads)
        need(len(survivors) >= p.minimum and p.supported(survivors), f"too few: {self.named}")
        signatures = self.agreements(round, context, survivors)
        revealed = self.shares(round, keys, context, uploads, signatures)
        total = self.unmasked(keys, context, uploads, revealed, total)
        total = [value % 2**p.bits for value in total]
        tail = total[-TAIL:]
        size = sum(p.sizes[name] for name in survivors)
        need(tail == [len(survivors), size, 0, 0, 0, 0], "the tail is wrong")
        return total[:-TAIL], tail[1], survivors

    def updates(self, round, keys, context, model, configuration):
        p = self.p
        participants = [keys[name]["signed"] for name in sorted(keys)]
        bodies = {}
        for name in keys:
            letters = {
                dealer: [k["letters"][name], k["paths"][name]]
                for dealer, k in keys.items()
                if name in k["letters"]
            }
            bodies[name] = message(
                "update-request", p.study_hash, round, participants, pairs(letters), model,
                configuration,
            )  # fmt: skip
        uploads, total = {}, [0] * (p.length + TAIL)
        for name, fields in self.replies("update", bodies, "masked-update"):
            _, found, shown, packed, commitment, own, boxes, complaints, signature, _ = fields
            need((found, shown) == (round, context), "an update of another round")
            boxes, told = mapped(boxes), []
            need(set(boxes) == (p.circles[name] & set(keys)) - {name}, "boxes for others")
            for holder in sorted(boxes):
                told += [holder, keys[holder]["letters"][name][2], *boxes[holder]]
            p.verify(name, encode("masked", context, name, commitment, own, *told), signature)
            total = [
                a + b for a, b in zip(total, unpack_ring(packed, len(total), p.bits), strict=True)
            ]
            uploads[name] = (commitment, own, boxes)
            for dealer, private in mapped(complaints).items():
                k = keys[dealer]
                letter, use = k["letters"][name], ("seed", round, dealer, name, k["public"])
                commit = lambda share, d=dealer, n=name: commit_seed(p, round, d, n, share)  # noqa: E731
                self.judge(name, dealer, private, k["to"][name], letter[1], letter[0], use, commit)
        return uploads, total

    def judge(self, holder, dealer, private, announced, box, commitment, use, commit):
        """Name the dealer if the key shown opens no share as committed to, else the holder."""
        try:
            need(public_of(private) == announced, "another key")
            share = unseal(private, box, self.p.study_hash, *use)
            guilty = dealer if commit(share) != commitment else holder
        except RefusedError as error:
            guilty = holder if str(error) == "another key" else dealer
        self.named[guilty] = "a wrong share" if guilty == dealer else "a complaint without reason"

    def agreements(self, round, context, survivors):
        p = self.p
        body = message("agree-request", p.study_hash, round, context, survivors)
        signatures = {}
        for name, (_, _, signature) in self.replies(
            "agree", dict.fromkeys(survivors, body), "agreement"
        ):
            p.verify(name, encode("survivors", context, *survivors), signature)
            signatures[name] = signature
        need(len(signatures) >= p.t, f"too few signatures: {self.named}")
        return signatures

    def shares(self, round, keys, context, uploads, signatures):
        """By survivor that answers, its mask shares and seed shares."""
        p, survivors, bodies = self.p, sorted(uploads), {}
        for name in survivors:
            boxes = {dealer: u[2][name] for dealer, u in uploads.items() if name in u[2]}
            bodies[name] = message(
                "unmask-request", p.study_hash, round, context, survivors, pairs(signatures),
                pairs(boxes),
            )  # fmt: skip
        revealed, self.keys = {}, {}
        for name, fields in self.replies("unmask", bodies, "unmasked"):
            _, _, masks, seeds, complaints, following = fields
            for dealer, private in mapped(complaints).items():
                commitment, box = uploads[dealer][2][name]
                use = ("mask", round, dealer, name, context)
                announced = keys[name]["letters"][dealer][2]
                commit = lambda share, d=dealer, n=name: commit_mask(context, d, n, share)  # noqa: E731
                self.judge(name, dealer, private, announced, box, commitment, use, commit)
            masks, seeds = mapped(masks), mapped(seeds)
            for owner, share in masks.items():
                commitment = uploads[owner][1] if owner == name else uploads[owner][2][name][0]
                need(commit_mask(context, owner, name, share) == commitment, "a wrong mask share")
            for owner, share in seeds.items():
                commitment = keys[owner]["letters"][name][0]
                need(commit_seed(p, round, owner, name, share) == commitment, "a wrong seed share")
            revealed[name] = (masks, seeds)
            if following is not None:
                holders = (p.circles[name] & set(keys)) - {name}
                to = {holder: keys[holder]["letters"][name][3] for holder in holders}
                self.keep(name, following, round + 1, to)
        return revealed

    def unmasked(self, keys, context, uploads, revealed, total):
        p = self.p

        def secret(owner, which):
            found = {p.point(h): s[which][owner] for h, s in revealed.items() if owner in s[which]}
            need(len(found) >= p.shares_needed, f"too few shares of {owner}: {self.named}")
            return rebuild(dict(sorted(found.items())[: p.shares_needed]))

        for owner, (commitment, _, _) in uploads.items():
            b = secret(owner, 0)
            need(digest("self-mask", context, owner, b) == commitment, f"{owner} dealt wrongly")
            total = [a - w for a, w in zip(total, keystream(b, len(total)), strict=True)]
        for gone in set(keys) - set(uploads):
            near = p.circles[gone] & set(uploads)
            if not near:
                continue
            seed = secret(gone, 1)
            need(public_of(seed) == keys[gone]["public"], f"{gone} dealt wrongly")
            for survivor in near:
                stream, sign = p.pair_mask(
                    agreed(seed, keys[survivor]["public"]), survivor, gone, context, len(total)
                )
                total = [a - sign * w for a, w in zip(total, stream, strict=True)]
        return total
