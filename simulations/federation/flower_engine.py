"""The sites compute on Flower's simulation runtime: on this machine or on a cluster of Ray.

Each site's state (identity, ledger, journal, own part of the model) stays in the run's folder with
the process that runs the study. What a round computes at a site goes as a Flower message to a
ClientApp in one of the runtime's Ray actors, on whichever machine is free, and its vector comes
back. The ClientApp keeps nothing between messages, so results do not depend on who computed what.

Records travel through Ray's store, once to each machine.
"""

import platform
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.app.typing import ConfigRecordValues
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY
from numpy.typing import NDArray

from consilium.client.hospital.personal_store import KeepsParts, Kept
from consilium.client.hospital.policy import Policy
from consilium.client.records.cohort import Cohort
from consilium.client.round.contribution import Contributor
from consilium.client.round.round_model import RoundModel
from consilium.client.round.training import FirstStep
from consilium.shared.errors import SettingsError, UnreachableError
from consilium.shared.rounds.contents import RoundConfiguration
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study
from consilium.shared.wire.flower_body import array_records
from consilium.simulations.federation.far_site import FarSite
from consilium.simulations.federation.local_grid import send_as_coordinator
from consilium.simulations.federation.ray_cluster import Cluster, connected
from consilium.simulations.federation.threads import one_thread_from_now_on

COMPUTE = "compute"
RESOURCES: dict[str, ConfigRecordValues] = {
    "num_cpus": 1,
    "num_gpus": 0,
}  # of an actor, which computes one site at a time
LOST = "a machine of the Ray cluster was lost; the same command goes on from the last whole round"


class FlowerEngine:
    """Flower's Ray actors, from :meth:`running` on.

    Args:
        cluster: where they run.
        workers: actors, if Ray is started here; a cluster has one for each of its cores.
    """

    def __init__(self, cluster: Cluster, *, workers: int) -> None:
        self._cluster, self._own_workers = cluster, workers
        self._backend: Any = None  # Flower's RayBackend, once it runs
        self._sites: list[str] = []
        self._lock = threading.Lock()
        self._computed: Counter[str] = Counter()
        self._lost = False

    @contextmanager
    def running(self, sites: Mapping[str, FarSite]) -> Iterator[int]:
        """Connect to Ray, hand it the sites' records, and start the actors; stop them at the end.

        Yields how many sites compute at the same time.

        Raises:
            SettingsError: Ray is not installed, or the cluster cannot be reached or has no cores.
        """
        with connected(self._cluster, workers=self._own_workers):
            import ray
            from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

            given = [ray.put(one) for one in sites.values()]
            study = ray.put(next(iter(sites.values())).study)
            self._sites, self._lost = list(sites), False
            send_as_coordinator()
            self._backend = RayBackend({"init_args": {}, "client_resources": RESOURCES})
            try:
                self._backend.build(partial(make_far_app, given, study))
            except ValueError as error:
                raise SettingsError(
                    "--engine flower: the Ray cluster has no core to compute on; start its nodes "
                    "with 'ray start --num-cpus N'"
                ) from error
            try:
                yield int(self._backend.num_workers)
            finally:
                self._backend.pool.terminate_all_actors()

    @property
    def computed(self) -> Mapping[str, int]:
        """By machine, as NODE at HOST, how many vectors it has computed."""
        return dict(sorted(self._computed.items()))

    def contributor(
        self,
        site: str,
        study: Study,
        cohort: Cohort,
        policy: Policy,
        store: KeepsParts,
        model: RoundModel | None = None,
    ) -> Contributor:
        """Return a site's contributor that computes on this engine."""
        return _FarContributor(self, site, study, cohort, policy, store, model)

    def check(self) -> None:
        """Check that no machine was lost.

        Raises:
            UnreachableError: one was; what it computed is lost, and the round with it.
        """
        if self._lost:
            raise UnreachableError(LOST)

    def compute(self, site: str, question: RecordDict) -> RecordDict:
        """Let an actor answer; called by as many threads at a time as :meth:`running` yields."""
        import ray

        self.check()
        number = self._sites.index(site)
        message = Message(question, number, f"query.{COMPUTE}")
        context = Context(
            run_id=0,
            node_id=number,
            node_config={PARTITION_ID_KEY: number},
            state=RecordDict(),
            run_config={},
        )
        try:
            reply, _ = self._backend.process_message(message, context)
        except ray.exceptions.RayError as error:
            if not isinstance(error, ray.exceptions.RayTaskError):
                self._lost = True
            raise
        with self._lock:
            self._computed[cast(str, reply.content["where"]["machine"])] += 1
        return cast(RecordDict, reply.content)


class _FarContributor(Contributor):
    """A site's contributor whose vector is computed on an engine; its own part is kept here."""

    def __init__(
        self,
        engine: FlowerEngine,
        site: str,
        study: Study,
        cohort: Cohort,
        policy: Policy,
        store: KeepsParts,
        model: RoundModel | None,
    ) -> None:
        super().__init__(site, study, cohort, policy, store, model)
        self._engine = engine

    def vector(
        self,
        asked: RoundConfiguration,
        received: NDArray[np.float32],
        round_number: int,
        parameters: SumParameters,
        first: FirstStep | None = None,
    ) -> NDArray[np.uint32]:
        """As :meth:`.Contributor.vector`, computed elsewhere."""
        del first  # see first_sample
        self._own.begin_round(parameters.study_hash, round_number, run_id=parameters.run_id)
        question = RecordDict(
            {
                "round": ConfigRecord(
                    {
                        "number": round_number,
                        "study_hash": parameters.study_hash,
                        "configuration": asked.to_bytes(),
                    }
                ),
                "received": _record({"D": received}),
                "own": _record(self._own.part.kept),
            }
        )
        answer = self._engine.compute(self._site, question)
        for name, value in _arrays(answer, "own").items():
            self._own.change(name, value)
        return _arrays(answer, "vector")["D"]

    def first_sample(
        self, asked: RoundConfiguration, round_number: int, parameters: SumParameters
    ) -> None:
        """Sites on an engine compute no step together, since they are on several machines."""
        del asked, round_number, parameters


def make_far_app(given: list[Any], study: Any) -> ClientApp:
    """Return the ClientApp of Ray's actors: it computes the vector of the site it is asked for.

    Args:
        given: references to the sites' :class:`FarSite` in Ray's store.
        study: reference to their study there.
    """
    app = ClientApp()

    @app.query(COMPUTE)
    def compute(message: Message, context: Context) -> Message:
        far = _fetched(given[int(context.node_config[PARTITION_ID_KEY])])
        answer = _computed(far, message.content, _network(study), _machine())
        return Message(answer, reply_to=message)

    return app


def _computed(far: FarSite, question: RecordDict, model: RoundModel, machine: str) -> RecordDict:
    asked = cast(Mapping[str, Any], question["round"])
    if asked["study_hash"] != far.parameters.study_hash:
        raise ValueError("a question of another run")
    store = _CarriedStore(_arrays(question, "own"))
    contributor = Contributor(far.site, far.study, far.cohort, far.policy, store, model)
    vector = contributor.vector(
        RoundConfiguration.from_bytes(asked["configuration"]),
        _arrays(question, "received")["D"],
        asked["number"],
        far.parameters,
    )
    return RecordDict(
        {
            "vector": _record({"D": vector}),
            "own": _record(contributor.changes),
            "where": ConfigRecord({"machine": machine}),
        }
    )


class _CarriedStore:
    """A site's own part that came with the question; what changes goes back with the answer."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def of_run(self, study_digest: bytes, study_hash: bytes, run_id: bytes) -> tuple[Kept, bytes]:
        """See :meth:`.PersonalStore.of_run`; there is no file."""
        del study_digest, study_hash, run_id
        return self._kept, b""

    def save(
        self, study_digest: bytes, study_hash: bytes, kept: Kept, *, round: int, run_id: bytes
    ) -> bytes:
        """Nothing is kept where a site only computes."""
        raise NotImplementedError("what changes goes back with the answer")


@cache
def _fetched(reference: Any) -> FarSite:
    """Fetch a site's records, once in each actor."""
    import ray

    one_thread_from_now_on()
    return cast(FarSite, ray.get(reference))


@cache
def _network(reference: Any) -> RoundModel:
    """Build the study's network, once in each actor."""
    import ray

    return RoundModel(cast(Study, ray.get(reference)))


@cache
def _machine() -> str:
    import ray

    node: Callable[[], str] = ray.get_runtime_context().get_node_id
    return f"{node()[:8]} at {platform.node()}"


def _record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(one)) for name, one in arrays.items()})


def _arrays(content: RecordDict, name: str) -> dict[str, NDArray[Any]]:
    record = array_records(content)[name]
    return {key: array.numpy() for key, array in record.items()}
