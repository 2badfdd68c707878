"""Sites of a run in this process: the real protocol at both ends, bytes in between."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

from consilium.client.secure_sum.journal import RoundJournal
from consilium.client.secure_sum.masking import SiteMasking
from consilium.server.secure_sum.protocol import SecureSum
from consilium.shared.crypto.keys import IdentityKey
from consilium.shared.errors import ConsiliumError
from consilium.shared.secure_sum.fixed_point import Segment, VectorSpec
from consilium.shared.secure_sum.messages import (
    Action,
    AgreeRequest,
    ChannelRequest,
    KeysRequest,
    Refusal,
    UnmaskRequest,
    UpdateRequest,
)
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.secure_sum.tail import append_tail
from tests.rosters import sized_roster

SPEC = VectorSpec(
    ring_bits=32,
    segments=(
        Segment(name="update", length=23, linf=1.0, scale=2.0**20),
        Segment(name="counts", length=4, linf=1000, scale=1),
    ),
)
STUDY_DIGEST = bytes(range(32))
MODEL = np.arange(5, dtype="<f4").tobytes()
CONFIGURATION = b"round configuration"
LOST, UNHEARD = "reply lost", "request lost"


def names(count: int) -> list[str]:
    return [f"site-{i:03d}" for i in range(count)]


def identities(count: int) -> dict[str, IdentityKey]:
    return {site: IdentityKey.from_seed(site.encode().ljust(32, b".")) for site in names(count)}


def parameters(count: int, **changes: object) -> SumParameters:
    """Sensible parameters for that many sites: the defaults of a study."""
    threshold = 2 * count // 3 + 1
    given = {
        "study_digest": STUDY_DIGEST,
        "run_id": b"run-number-0001!",
        "roster": sized_roster(identities(count), STUDY_DIGEST),
        "threshold": threshold,
        "minimum_sites": max(threshold, 3),
        "collusion": 1 if count > 3 else 0,
        "degree": count - 1,
    }
    return SumParameters(**{**given, **changes})


class LocalSite:
    """One site: answers as a session would, with a vector it chose for the round."""

    def __init__(
        self,
        site: str,
        key: IdentityKey,
        agreed: SumParameters,
        journal: Path,
        spec: VectorSpec = SPEC,
        **options: object,
    ) -> None:
        self.site = site
        self.spec = spec
        self.journal = RoundJournal(journal)
        self._made = (site, key, agreed, self.journal)
        self._options = options
        self.restart()
        self.vectors: dict[int, np.ndarray] = {}
        self.claims: int | None = None  # another weight than declared

    def restart(self) -> None:
        self.masking = SiteMasking(*self._made, **self._options)

    def vector(self, round: int) -> np.ndarray:
        if round not in self.vectors:
            rng = np.random.default_rng([round, *self.site.encode()])
            drawn = rng.integers(-500, 500, self.spec.length)
            mask = np.uint32((1 << self.spec.ring_bits) - 1)
            self.vectors[round] = drawn.astype(np.int32).view(np.uint32) & mask
        return self.vectors[round]

    @contextmanager
    def _claiming(self) -> Iterator[None]:
        if self.claims is None:
            yield
            return

        def lie(vector: np.ndarray, _: int) -> np.ndarray:
            return append_tail(vector, self.claims)

        with patch("consilium.client.secure_sum.round_state.append_tail", lie):
            yield

    def answer(self, action: Action, body: bytes) -> bytes:
        try:
            match action:
                case Action.CHANNEL:
                    reply = self.masking.channel_key(ChannelRequest.from_bytes(body))
                case Action.KEYS:
                    reply = self.masking.round_keys(KeysRequest.from_bytes(body))
                case Action.UPDATE:
                    request = UpdateRequest.from_bytes(body)
                    self.masking.begin(request)
                    vector = self.vector(request.round)
                    with self._claiming():
                        reply = self.masking.mask(vector, self.spec)
                case Action.AGREE:
                    reply = self.masking.agree(AgreeRequest.from_bytes(body))
                case Action.UNMASK:
                    reply = self.masking.unmask(UnmaskRequest.from_bytes(body))
        except ConsiliumError as error:
            reply = Refusal.of(self.site, error)
        return reply.to_bytes()


class InProcessSites:
    """`Sites` over local sites, with faults by (site, action) and a hook that alters replies."""

    def __init__(self, sites: list[LocalSite]) -> None:
        self.sites = {site.site: site for site in sites}
        self.faults: dict[tuple[str, Action], str] = {}
        self.alter: Callable[[str, Action, bytes], bytes] = lambda site, action, reply: reply
        self.alter_request: Callable[[str, Action, bytes], bytes] = lambda site, action, body: body
        self.asked: list[tuple[str, Action]] = []

    def names(self) -> tuple[str, ...]:
        return tuple(self.sites)

    def ask(
        self, action: Action, bodies: Mapping[str, bytes], *, timeout_s: float
    ) -> Iterator[tuple[str, bytes]]:
        for site, body in bodies.items():
            self.asked.append((site, action))
            fault = self.faults.get((site, action))
            if fault == UNHEARD:
                continue
            reply = self.sites[site].answer(action, self.alter_request(site, action, body))
            if fault != LOST:
                yield site, self.alter(site, action, reply)


def federation(
    count: int, folder: Path, spec: VectorSpec = SPEC, **changes: object
) -> tuple[SecureSum, InProcessSites]:
    """A coordinator and its sites, channels not yet open."""
    agreed = parameters(count, **changes)
    sites = InProcessSites(
        [
            LocalSite(site, key, agreed, folder / f"{site}.sqlite", spec, threads=1)
            for site, key in identities(count).items()
        ]
    )
    return SecureSum(agreed, sites, timeout_s=1.0, threads=1), sites


def plain_sum(
    sites: InProcessSites, survivors: tuple[str, ...], round: int, spec: VectorSpec = SPEC
) -> np.ndarray:
    """What the coordinator must get: the sum of the survivors' encodings in the ring."""
    total = sum(sites.sites[site].vector(round).astype(np.uint64) for site in survivors)
    return (total & np.uint64((1 << spec.ring_bits) - 1)).astype(np.uint32)


def run_round(coordinator: SecureSum, round: int, spec: VectorSpec = SPEC) -> object:
    return coordinator.sum(round=round, spec=spec, model=MODEL, configuration=CONFIGURATION)


def changed(message: object, **changes: object) -> bytes:
    """The message with some fields replaced, as bytes."""
    return replace(message, **changes).to_bytes()


class HaltError(Exception):
    """The coordinator was stopped before a request went out."""


def halted(
    count: int, folder: Path, action: Action, round: int = 1, **changes: object
) -> tuple[LocalSite, object, InProcessSites]:
    """The first site, and the request of that action that is about to reach it in the round."""
    coordinator, sites = federation(count, folder, **changes)
    first = sites.names()[0]
    kinds = {
        Action.CHANNEL: ChannelRequest,
        Action.KEYS: KeysRequest,
        Action.UPDATE: UpdateRequest,
        Action.AGREE: AgreeRequest,
        Action.UNMASK: UnmaskRequest,
    }
    caught: list[object] = []
    if action not in (Action.CHANNEL, Action.KEYS):
        coordinator.open()
        for earlier in range(1, round):
            run_round(coordinator, earlier)

    def stop(site: str, asked: Action, body: bytes) -> bytes:
        if (site, asked) == (first, action):
            caught.append(kinds[action].from_bytes(body))
            raise HaltError
        return body

    sites.alter_request = stop
    try:
        if action in (Action.CHANNEL, Action.KEYS):
            coordinator.open()
        else:
            run_round(coordinator, round)
    except HaltError:
        sites.alter_request = lambda site, asked, body: body
    return sites.sites[first], caught[0], sites


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder that costs no disk flushes, for tests of many rounds that are not about disks."""
    memory = Path("/dev/shm")  # noqa: S108 - a private folder is made inside
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
