"""Write the test vectors: one whole round of four sites, and the pieces it is made of.

Independent of the product: nothing of it is imported, and all arithmetic is on Python integers.
AES-256 (FIPS 197), GCM (SP 800-38D), X25519 (RFC 7748), Ed25519 (RFC 8032), HKDF (RFC 5869) and
msgpack are written out here; SHA-2 and HMAC come from the standard library. Run
``python tests/vectors/generate.py`` to write ``secure_sum.json`` beside this file.
"""

import hashlib
import hmac
import json
from pathlib import Path

# AES-256, counter mode, GCM


def flat(lists):
    return [item for inner in lists for item in inner]


def _xtime(a):
    return ((a << 1) ^ 0x11B) & 0xFF if a & 0x80 else a << 1


def _gmul(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a, b = _xtime(a), b >> 1
    return product


def _sbox():
    box = []
    for value in range(256):
        inverse = next((x for x in range(256) if _gmul(x, value) == 1), 0)
        result = 0x63
        for shift in range(5):
            result ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xFF
        box.append(result)
    return box


SBOX = _sbox()


def _expand(key):
    words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
    rcon = 1
    while len(words) < 60:
        word = list(words[-1])
        if len(words) % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = _xtime(rcon)
        elif len(words) % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(word, words[-8], strict=True)])
    return [flat(words[4 * i : 4 * i + 4]) for i in range(15)]


def aes_block(round_keys, block):
    state = [a ^ b for a, b in zip(block, round_keys[0], strict=True)]
    for number in range(1, 15):
        state = [SBOX[b] for b in state]
        state = [state[(i + 4 * (i % 4)) % 16] for i in range(16)]
        if number < 14:
            mixed = []
            for c in range(0, 16, 4):
                a = state[c : c + 4]
                mixed += [
                    _gmul(a[i], 2) ^ _gmul(a[(i + 1) % 4], 3) ^ a[(i + 2) % 4] ^ a[(i + 3) % 4]
                    for i in range(4)
                ]
            state = mixed
        state = [a ^ b for a, b in zip(state, round_keys[number], strict=True)]
    return bytes(state)


def keystream(seed, count):
    """AES-256 in counter mode from counter zero, over zeros."""
    round_keys = _expand(seed)
    blocks = (aes_block(round_keys, i.to_bytes(16, "big")) for i in range(-(-count // 16)))
    return b"".join(blocks)[:count]


def _ghash(h, data):
    result = 0
    for start in range(0, len(data), 16):
        result ^= int.from_bytes(data[start : start + 16].ljust(16, b"\0"), "big")
        product, v = 0, h
        for bit in range(127, -1, -1):
            if result >> bit & 1:
                product ^= v
            v = (v >> 1) ^ (0xE1 << 120) if v & 1 else v >> 1
        result = product
    return result


def gcm_seal(key, nonce, message, about):
    round_keys = _expand(key)
    h = int.from_bytes(aes_block(round_keys, bytes(16)), "big")
    stream = b"".join(
        aes_block(round_keys, nonce + (i + 2).to_bytes(4, "big"))
        for i in range(-(-len(message) // 16))
    )
    sealed = bytes(a ^ b for a, b in zip(message, stream, strict=False))
    padded = about + bytes(-len(about) % 16) + sealed + bytes(-len(sealed) % 16)
    lengths = (8 * len(about)).to_bytes(8, "big") + (8 * len(sealed)).to_bytes(8, "big")
    mask = int.from_bytes(aes_block(round_keys, nonce + (1).to_bytes(4, "big")), "big")
    tag = (_ghash(h, padded + lengths) ^ mask).to_bytes(16, "big")
    return nonce + sealed + tag


# X25519, Ed25519, HKDF

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


NINE = (9).to_bytes(32, "little")


def x25519(scalar, point=NINE):
    k = bytearray(scalar)
    k[0] &= 248
    k[31] = k[31] & 127 | 64
    k = int.from_bytes(k, "little")
    u = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, (aa - bb) * (aa + 121665 * (aa - bb)) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def _add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * p[3] * q[3] * D, 2 * p[2] * q[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point, scalar = _add(point, point), scalar >> 1
    return result


def _base():
    y = 4 * pow(5, -1, P) % P
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    x = P - x if x & 1 else x
    return (x, y, 1, x * y % P)


BASE = _base()


def _compress(point):
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _ed_secret(seed):
    hashed = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(hashed[:32], "little") & (2**254 - 8) | 2**254
    return scalar, hashed[32:]


def ed25519_public(seed):
    return _compress(_times(_ed_secret(seed)[0], BASE))


def ed25519_sign(seed, message):
    scalar, prefix = _ed_secret(seed)
    public = _compress(_times(scalar, BASE))
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    commitment = _compress(_times(r, BASE))
    h = int.from_bytes(hashlib.sha512(commitment + public + message).digest(), "little") % L
    return commitment + ((r + h * scalar) % L).to_bytes(32, "little")


def hkdf(secret, salt, info):
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


# The protocol's own pieces


def encode(label, *parts):
    def plain(part):
        if isinstance(part, int):
            return part.to_bytes(8, "big")
        return part.encode() if isinstance(part, str) else part

    pieces = [plain("consilium/1/" + label), plain(len(parts)), *map(plain, parts)]
    return b"".join(len(piece).to_bytes(8, "big") + piece for piece in pieces)


def digest(label, *parts):
    return hashlib.sha256(encode(label, *parts)).digest()


def node(one, other):
    return digest("node", *sorted((one, other)))


def levels(leaves):
    """From the leaves up to the root; an odd one at the end moves up unchanged."""
    made = [leaves]
    while len(made[-1]) > 1:
        level = made[-1]
        made.append(
            [node(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
            + (level[-1:] if len(level) % 2 else [])
        )
    return made


def tree_root(leaves):
    return levels(leaves)[-1][0]


def tree_path(leaves, place):
    path = b""
    for level in levels(leaves)[:-1]:
        if place ^ 1 < len(level):
            path += level[place ^ 1]
        place //= 2
    return path


def distances(sites, degree):
    """Between neighbours on the ring of a sparse graph, either way."""
    nearer_half = [distance for distance in range(1, sites) if 2 * distance < sites]
    nearer_half.sort(key=lambda distance: digest("distance", sites, distance))
    return sorted(nearer_half[: degree // 2])


PRIME = 2**256 + 297


def shamir(secret, threshold, points, entropy):
    """Coefficients are drawn from the highest power downwards."""
    drawn = [int.from_bytes(entropy(48), "big") % PRIME for _ in range(threshold - 1)]
    coefficients = [int.from_bytes(secret, "big"), *reversed(drawn)]
    return {
        x: (sum(c * x**i for i, c in enumerate(coefficients)) % PRIME).to_bytes(33, "big")
        for x in points
    }


def pack(values, bits):
    group = 2 if bits in (20, 28) else 1
    padded = len(values) + -len(values) % group
    number = sum((value % 2**bits) << (bits * i) for i, value in enumerate(values))
    return number.to_bytes(padded * bits // 8, "little")


def msgpack(thing):
    if thing is None:
        return b"\xc0"
    if isinstance(thing, int):
        for bound, head, size in ((128, b"", 1), (2**8, b"\xcc", 1), (2**16, b"\xcd", 2)):
            if thing < bound:
                return head + thing.to_bytes(size, "big")
        return b"\xce" + thing.to_bytes(4, "big")
    if isinstance(thing, str):
        data = thing.encode()
        head = bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xd9" + bytes([len(data)])
        return head + data
    if isinstance(thing, bytes):
        size = len(thing)
        return (
            b"\xc4" + bytes([size]) if size < 256 else b"\xc5" + size.to_bytes(2, "big")
        ) + thing
    head = (
        bytes([0x90 | len(thing)]) if len(thing) < 16 else b"\xdc" + len(thing).to_bytes(2, "big")
    )
    return head + b"".join(map(msgpack, thing))


def message(kind, *fields):
    return msgpack(["consilium", 1, kind, list(fields)])


def pairs(mapping):
    return [[site, mapping[site]] for site in sorted(mapping)]


class Entropy:
    """A site's secrets in order: SHA-256 of the site's name and a counter, over and over."""

    def __init__(self, site):
        self.site, self.counter, self.left = site, 0, b""

    def __call__(self, count):
        while len(self.left) < count:
            block = self.site.encode() + self.counter.to_bytes(8, "big")
            self.left += hashlib.sha256(block).digest()
            self.counter += 1
        taken, self.left = self.left[:count], self.left[count:]
        return taken


# One round of four sites; the last one never sends its update

SITES = ["north", "south", "east", "west"]
SURVIVORS = sorted(SITES[:3])
THRESHOLD = MINIMUM = 3
COLLUSION, BITS, ROUND = 1, 24, 1
STUDY_DIGEST, RUN_ID = bytes(range(32)), bytes(range(16))
MODEL, CONFIGURATION = bytes.fromhex("0000803f000000c0"), b"configuration"
SPEC = [("update", 3, 1.0, 1000.0), ("counts", 2, 500.0, 1.0)]
VECTORS = {
    "north": [1000, -1000, 7, 500, 0],
    "south": [-3, 250, -999, 1, 2],
    "east": [0, 0, 1, 499, -500],
}
SIZES = {"north": 1000, "south": 20, "east": 1, "west": 300}


class BoxKeys:
    """A site's keys for the boxes of one dealing, one for each dealer."""

    def __init__(self, seed):
        self.seed = seed

    def secret(self, dealer):
        return hkdf(self.seed, bytes(32), encode("box-key", dealer))

    def public(self, dealer):
        return x25519(self.secret(dealer))


class Site:
    def __init__(self, name):
        self.name, self.entropy = name, Entropy(name)
        self.identity = hashlib.sha256(f"identity of {name}".encode()).digest()
        self.peers = [s for s in sorted(SITES) if s != name]

    def declared(self):
        size = SIZES[self.name]
        said = ed25519_sign(self.identity, encode("size", STUDY_DIGEST, self.name, size))
        return size.to_bytes(4, "big") + said

    def channel(self, study_hash):
        self.opens = BoxKeys(self.entropy(32))
        self.channel_keys = {peer: self.opens.public(peer) for peer in self.peers}
        self.channel_leaves = [digest("channel-key", p, self.channel_keys[p]) for p in self.peers]
        statement = encode("channel", study_hash, self.name, tree_root(self.channel_leaves))
        self.channel_signature = ed25519_sign(self.identity, statement)
        return [self.name, pairs(self.channel_keys), self.channel_signature, b""]  # no audit head

    def channel_part(self, dealer):
        """What the coordinator shows a dealer of this site's channel keys."""
        path = tree_path(self.channel_leaves, self.peers.index(dealer))
        return [self.name, self.channel_keys[dealer], path, self.channel_signature]

    def box(self, ephemeral, kind, study_hash, round, context, holder, to, share):
        public = x25519(ephemeral)
        info = encode("box", kind, round, self.name, holder, context, public, to)
        key = hkdf(x25519(ephemeral, to), study_hash, info)
        return public + gcm_seal(key, bytes(12), share, b"")[12:]

    def deal(self, secret, holders):
        dealt = shamir(secret, THRESHOLD, [SITES.index(h) + 1 for h in holders], self.entropy)
        return {holder: dealt[SITES.index(holder) + 1] for holder in holders}

    def keys(self, study_hash, round, to):
        """Keys of a round, dealt to the holders' keys `to`."""
        seed = self.entropy(32)
        public = x25519(seed)
        masks, following = BoxKeys(self.entropy(32)), BoxKeys(self.entropy(32))
        shares = self.deal(seed, sorted(SITES))
        ephemeral = self.entropy(32)
        commitments = {
            h: digest("seed-share", study_hash, round, self.name, h, share)
            for h, share in shares.items()
        }
        letters, leaves = {}, []
        for holder in sorted(SITES):
            if holder == self.name:
                leaves.append(digest("own-share", holder, commitments[holder]))
                continue
            letters[holder] = [
                commitments[holder],
                self.box(
                    ephemeral, "seed", study_hash, round, public, holder, to[holder], shares[holder]
                ),
                masks.public(holder),
                following.public(holder),
            ]
            leaves.append(digest("letter", holder, to[holder], *letters[holder]))
        root = tree_root(leaves)
        statement = encode("keys", study_hash, round, self.name, public, root)
        signature = ed25519_sign(self.identity, statement)
        if round == ROUND:
            self.seed, self.seed_shares, self.letters = seed, shares, letters
            self.signed = [self.name, public, root, signature]
            self.leaves = leaves
        return [self.name, round, public, commitments[self.name], pairs(letters), signature]

    def delivered(self, holder):
        return [self.letters[holder], tree_path(self.leaves, sorted(SITES).index(holder))]


def whole_round():
    sites = {name: Site(name) for name in SITES}
    members = flat([[s, ed25519_public(sites[s].identity), SIZES[s]] for s in SITES])
    numbers = (THRESHOLD, MINIMUM, COLLUSION, len(SITES) - 1)
    study_hash = digest("study", STUDY_DIGEST, RUN_ID, *numbers, *members)
    out = {"roster": {n: ed25519_public(sites[n].identity) for n in SITES}, "messages": {}}
    out |= {"identity_seeds": {n: sites[n].identity for n in SITES}, "study_hash": study_hash}
    sent = out["messages"]
    sent["channel-request"] = message(
        "channel-request",
        STUDY_DIGEST,
        RUN_ID,
        study_hash,
        pairs({name: site.declared() for name, site in sites.items()}),
        b"",
    )
    channels = {name: site.channel(study_hash) for name, site in sites.items()}
    for name, channel in channels.items():
        sent[f"channel-key {name}"] = message("channel-key", *channel)
    keys = {}
    for name, site in sites.items():
        shown = [sites[peer].channel_part(name) for peer in site.peers]
        sent[f"keys-request {name}"] = message("keys-request", study_hash, ROUND, shown)
        to = {peer: sites[peer].channel_keys[name] for peer in site.peers}
        keys[name] = site.keys(study_hash, ROUND, to)
    for name, fields in keys.items():
        sent[f"round-keys {name}"] = message("round-keys", *fields)

    model_hash, configuration_hash = (hashlib.sha256(x).digest() for x in (MODEL, CONFIGURATION))
    shown = flat([[name, keys[name][2]] for name in sorted(SITES)])
    begun = digest("begun", study_hash, ROUND, model_hash, configuration_hash, *shown)
    layout = flat([[n, length, linf.hex(), scale.hex()] for n, length, linf, scale in SPEC])
    spec_digest = digest("vector-spec", BITS, *layout)
    context = digest("context", begun, spec_digest)
    out.update(begun=begun, spec_digest=spec_digest, context=context)

    updates, total = {}, [0] * (len(VECTORS["north"]) + 6)
    for name in SITES:
        letters = {dealer: sites[dealer].delivered(name) for dealer in sites[name].peers}
        participants = [sites[member].signed for member in sorted(SITES)]
        sent[f"update-request {name}"] = message(
            "update-request", study_hash, ROUND, participants, pairs(letters), MODEL, CONFIGURATION
        )
    for name in SURVIVORS:
        plain = [*VECTORS[name], 1, SIZES[name], 0, 0, 0, 0]
        total = [a + b for a, b in zip(total, plain, strict=True)]
        updates[name] = mask(sites[name], plain, keys, context, study_hash, sites)
        sent[f"masked-update {name}"] = message("masked-update", *updates[name]["fields"])
    out["ring_total"] = [value % 2**BITS for value in total[:-6]]
    out["sum"] = total[:-6]
    out["weight"] = total[-5]
    finish(sites, updates, study_hash, context, sent)
    return out


def mask(site, plain, keys, context, study_hash, sites):
    own = site.entropy(32)
    masked = list(plain)
    seeds = [(own, 1)]
    for peer in sorted(SITES):
        if peer != site.name:
            low, high = sorted((site.name, peer), key=SITES.index)
            secret = x25519(site.seed, keys[peer][2])
            seeds.append(
                (hkdf(secret, context, encode("pair", low, high)), 1 if low == site.name else -1)
            )
    for seed, sign in seeds:
        stream = keystream(seed, 4 * len(masked))
        words = [int.from_bytes(stream[4 * i : 4 * i + 4], "little") for i in range(len(masked))]
        masked = [value + sign * word for value, word in zip(masked, words, strict=True)]
    shares = site.deal(own, sorted(SITES))
    ephemeral = site.entropy(32)
    commitments = {
        h: digest("mask-share", context, site.name, h, share) for h, share in shares.items()
    }
    commitment = digest("self-mask", context, site.name, own)
    boxes, told = {}, []
    for holder in site.peers:
        to = sites[holder].letters[site.name][2]
        use = ("mask", study_hash, ROUND, context, holder)
        box = site.box(ephemeral, *use, to, shares[holder])
        boxes[holder] = [commitments[holder], box]
        told += [holder, to, commitments[holder], box]
    own = commitments[site.name]
    signature = ed25519_sign(
        site.identity, encode("masked", context, site.name, commitment, own, *told)
    )
    head = [site.name, ROUND, context, pack(masked, BITS), commitment, own]
    return {"fields": [*head, pairs(boxes), [], signature, b""], "shares": shares, "boxes": boxes}


def finish(sites, updates, study_hash, context, sent):
    asked = (study_hash, ROUND, context, SURVIVORS)
    sent["agree-request"] = message("agree-request", *asked)
    statement = encode("survivors", context, *SURVIVORS)
    signatures = {s: ed25519_sign(sites[s].identity, statement) for s in SURVIVORS}
    shown = {s: signatures[s] for s in SURVIVORS[:THRESHOLD]}
    dropped = {s: sites[s].seed_shares for s in SITES if s not in SURVIVORS}
    for name in SURVIVORS:
        sent[f"agreement {name}"] = message("agreement", name, ROUND, signatures[name])
        boxes = {s: updates[s]["boxes"][name] for s in SURVIVORS if s != name}
        sent[f"unmask-request {name}"] = message(
            "unmask-request", *asked, pairs(shown), pairs(boxes)
        )
        masks = {s: updates[s]["shares"][name] for s in SURVIVORS}
        seeds = {s: shares[name] for s, shares in dropped.items()}
        to = {peer: sites[peer].letters[name][3] for peer in sites[name].peers}
        following = sites[name].keys(study_hash, ROUND + 1, to)
        sent[f"unmasked {name}"] = message(
            "unmasked", name, ROUND, pairs(masks), pairs(seeds), [], following
        )


def pieces():
    seed = bytes(range(32))
    values = [0, 1, 2**15, 2**19 + 5, 2**23 - 1, 2**27 + 9, 2**32 - 1]
    entropy = Entropy("shamir")
    return {
        "keystream": {"seed": seed, "first_80_bytes": keystream(seed, 80)},
        "encode": encode("label", b"bytes", "text", 2**40),
        "packing": {"values": values, **{str(b): pack(values, b) for b in (16, 20, 24, 28, 32)}},
        "shamir": {
            "secret": seed,
            "threshold": 3,
            "shares": {str(x): s for x, s in shamir(seed, 3, [1, 2, 5, 200], entropy).items()},
        },
        "hash_tree": [
            {"leaves": n, "root": tree_root(leaves), "path_of_last": tree_path(leaves, n - 1)}
            for n in (1, 2, 3, 5, 8)
            for leaves in [[digest("leaf", i) for i in range(n)]]
        ],
        "distances": [
            {"sites": n, "degree": k, "distances": distances(n, k)}
            for n, k in ((9, 6), (12, 6), (201, 58))
        ],
        "pair_seed": hkdf(seed, bytes(32), encode("pair", "low", "high")),
    }


def as_json(thing):
    if isinstance(thing, bytes):
        return thing.hex()
    if isinstance(thing, dict):
        return {key: as_json(value) for key, value in thing.items()}
    if isinstance(thing, list):
        return [as_json(item) for item in thing]
    return thing


def vectors():
    return as_json({"pieces": pieces(), "round": whole_round()})


if __name__ == "__main__":
    path = Path(__file__).with_name("secure_sum.json")
    path.write_text(json.dumps(vectors(), indent=1) + "\n")
    print(f"wrote {path}")
