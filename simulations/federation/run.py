"""A whole study in one process: the sites, the coordinator, and its checkpoints.

The researcher of a simulation holds all data, so beside what the federation learns from its sums,
the model is also judged directly on held-out patients in every round.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from consilium.client.hospital.known_sizes import KnownSizes
from consilium.client.hospital.policy import Policy
from consilium.client.hospital.state import SiteState
from consilium.client.ledger.store import Ledger
from consilium.client.records.cohort import read_cohort, require_suitable
from consilium.client.records.declared_size import usual_size
from consilium.client.records.features import TimeGrid
from consilium.client.round.charges import round_charges
from consilium.client.round.contribution import Contributor
from consilium.client.round.own_part import OwnPart
from consilium.client.round.round_model import RoundModel
from consilium.client.round.session import Session
from consilium.client.service.flower_app import make_client_app
from consilium.client.sources.common.source import Source
from consilium.server.flower.app import make_server_app
from consilium.server.secure_sum.group_sums import GroupSums, identities
from consilium.server.secure_sum.site_heads import SiteHeads
from consilium.server.secure_sum.sites import Sites
from consilium.server.study.checkpoints import Checkpoint, begin, load_checkpoint, save_checkpoint
from consilium.server.study.round_record import round_record
from consilium.server.study.run import RoundResult, RunState, run_rounds, run_study
from consilium.shared.crypto.transcript import digest
from consilium.shared.errors import SettingsError
from consilium.shared.model.module_check import check_modules
from consilium.shared.rounds.contents import Purpose, RoundConfiguration, group_parameters
from consilium.shared.secure_sum.parameters import SumParameters
from consilium.shared.study.definition import Study
from consilium.simulations.federation.clear_site import ClearSite
from consilium.simulations.federation.clear_sum import CLEAR, PROTOCOL, ClearSum
from consilium.simulations.federation.far_site import FarSite, travelling
from consilium.simulations.federation.faults import Fault
from consilium.simulations.federation.flower_engine import FlowerEngine
from consilium.simulations.federation.local_grid import LocalGrid, run_server_app
from consilium.simulations.federation.out_folder import SITES
from consilium.simulations.federation.site_folders import (
    ClearState,
    leave_ledger,
    open_in_memory,
    open_site,
    roster_of,
)
from consilium.simulations.federation.site_processes import site_processes, worth_processes
from consilium.simulations.federation.vector_sums import SumsHere, VectorSums
from consilium.simulations.figures.answer_tables import final_tables
from consilium.simulations.figures.held_out import HeldOut, OwnStates, Scores
from consilium.simulations.figures.metrics import HeldOutMetrics
from consilium.simulations.figures.subgroups import FiguresByGroup, figures_by_group


def by_site(groups: Iterable[SumParameters]) -> dict[str, SumParameters]:
    """Return the parameters of each site's group."""
    return {site: group for group in groups for site in group.roster.names}


Show = Callable[[dict[str, Any]], None]
Follow = Callable[[Iterator[RoundResult]], None]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run: the model, its figures on the test patients, and a record for each round.

    Attributes:
        state: the final global model.
        test: figures on all test patients.
        by_site: figures on each hospital's test patients, if there are several hospitals.
        by_group: figures of every group of test patients.
        tables: from :func:`consilium.simulations.figures.answer_tables.final_tables`.
        scores: the final model's, of each test stay, (N, K) or (N, T, K).
        training: each site's training records.
        validation: each site's validation records, if it has any.
        own: the final state as each site uses it; empty if sites keep no weights of their own.
        history: the rounds' records.
    """

    state: RunState
    test: HeldOutMetrics
    by_site: Mapping[str, HeldOutMetrics]
    by_group: FiguresByGroup
    tables: dict[str, Any]
    scores: Scores
    training: Mapping[str, TimeGrid]
    validation: Mapping[str, TimeGrid | None]
    own: OwnStates
    history: tuple[dict[str, Any], ...]


class Federation:
    """All sites of a study in this process, and the folder that holds their state.

    Args:
        study: what to run.
        sources: each site's records.
        folder: holds the sites' state and the coordinator's checkpoint.
        workers: sites that work at the same time.
        protocol: whether all messages of the secure sum are sent, through Flower, and every
            charge is on disk before anything leaves. Otherwise the sites' vectors are added as
            they are: the results are the same, and nothing is hidden from anybody.
        faults: faults to inject, for tests.
        engine: where the sites compute, if not on this machine.
        processes: whether sites that are summed in the clear compute in processes and not in
            threads; by default where that is sooner.
    """

    def __init__(
        self,
        study: Study,
        sources: Mapping[str, Source],
        folder: Path,
        *,
        workers: int,
        protocol: bool = False,
        faults: Iterable[Fault] = (),
        engine: FlowerEngine | None = None,
        processes: bool | None = None,
    ) -> None:
        check_modules(study)
        if processes is None:
            processes = worth_processes(len(study.sites), study.rounds, workers)
        self._processes = processes
        self._study, self._folder, self._protocol = study, folder, protocol
        self._engine = engine
        self._contribute = Contributor if engine is None else engine.contributor
        self._workers, self._faults = workers, tuple(faults)
        # Nobody vouches for anybody: all sites are made here, on one machine, from one roster.
        self._policy = Policy(
            largest_study_epsilon=study.privacy.epsilon,
            lifetime_epsilon=study.privacy.epsilon,
            delta=study.privacy.delta,
            allow_without_privacy=True,
            minimum_patients=1,
            smallest_group=1,
            release_own_figures=True,
            installed_models=frozenset(module.module for module in study.model.modules),
        )
        self._states = {site: self._open(site) for site in study.sites}
        self._cohorts = {
            site: read_cohort(
                sources[site], study, site=site, split_key=self._states[site].split_key
            )
            for site in study.sites
        }
        for site, cohort in self._cohorts.items():
            least = self._policy.minimum_patients
            require_suitable(cohort, study, site=site, minimum_patients=least)
        sizes = {
            site: usual_size(cohort.training.patients, study)
            for site, cohort in self._cohorts.items()
        }
        self._roster = roster_of(self._states, sizes, study.digest)

    def train(self, show: Show, test: HeldOut) -> Finished:
        """Run the study to its end, from its checkpoint if there is one.

        Args:
            show: called with each round's record when it is finished.
            test: the researcher's own test patients.

        Raises:
            RoundVoidError: the sites could not start the study.
            SettingsError: the folder belongs to another study, or is not a run's folder.
        """
        checkpoint = self._checkpoint()
        for record in checkpoint.history:
            show(record)
        progress = [checkpoint]

        def follow(rounds: Iterator[RoundResult]) -> None:
            for result in rounds:
                if self._engine is not None:
                    self._engine.check()
                record = self._record(result, test)
                progress.append(
                    replace(
                        progress[-1],
                        state=result.state,
                        history=(*progress[-1].history, record),
                    )
                )
                save_checkpoint(self._folder, progress[-1])
                show(record)

        if not checkpoint.state.finished:
            run = self._run_protocol if self._protocol else self._run_in_clear
            run(checkpoint, follow)
        state = replace(progress[-1].state, finished=True)
        save_checkpoint(self._folder, replace(progress[-1], state=state))
        own = self.own_states(state)
        scores = test.scores(state, own)
        metrics, by_site = test.metrics([scores]), test.by_group([scores])
        return Finished(
            state=state,
            test=metrics,
            by_site=by_site,
            by_group=figures_by_group(test, scores, metrics, by_site),
            tables=final_tables(test, scores),
            scores=scores,
            training={site: cohort.training for site, cohort in self._cohorts.items()},
            validation={site: cohort.validation for site, cohort in self._cohorts.items()},
            own=own,
            history=progress[-1].history,
        )

    def ledger(self, site: str) -> Ledger:
        """Return the privacy ledger of a site."""
        return self._states[site].ledger

    def own_states(self, state: RunState) -> OwnStates:
        """Return the state as each site uses it; empty if sites keep no weights of their own."""
        study = self._study
        if not study.personalisation.active:
            return {}
        found: dict[str, RunState] = {}
        for site, opened in self._states.items():
            own = OwnPart(study, opened.personal.latest(study.digest))
            weights_D = own.used(state.server.model_weights)
            normalisation = own.normalisation()
            found[site] = replace(
                state,
                server=replace(state.server, average_D=weights_D.astype(np.float64)),
                normalisation=(
                    state.normalisation if normalisation is None else normalisation.to_bytes()
                ),
            )
        return found

    def _open(self, site: str) -> SiteState | ClearState:
        folder = self._folder / SITES / site
        split_key = digest("split", self._study.seed, site)
        if self._protocol:
            return open_site(folder, self._policy, split_key=split_key)
        seed = digest("simulated in the clear", self._study.digest, site)
        return open_in_memory(folder, self._policy, split_key=split_key, identity_seed=seed)

    def _computing(self, parameters: tuple[SumParameters, ...]) -> AbstractContextManager[int]:
        """Return the context in which the sites can compute; it gives how many at the same time."""
        if self._engine is None:
            return nullcontext(self._workers)
        return self._engine.running(self._far_sites(parameters))

    def _far_sites(self, groups: tuple[SumParameters, ...]) -> dict[str, FarSite]:
        of_site = by_site(groups)
        return {
            site: FarSite(
                site=site,
                study=self._study,
                cohort=self._cohorts[site],
                policy=self._policy,
                parameters=travelling(of_site[site]),
            )
            for site in self._study.sites
        }

    def _parameters(self, checkpoint: Checkpoint) -> tuple[SumParameters, ...]:
        return tuple(group_parameters(self._study, self._roster, checkpoint.run_id))

    def _run_in_clear(self, checkpoint: Checkpoint, follow: Follow) -> None:
        """Run the rounds without the protocol; leave the ledgers behind, however they end."""
        study, parameters = self._study, self._parameters(checkpoint)
        self._charge_past_rounds(checkpoint, parameters)
        model, of_site = RoundModel(study), by_site(parameters)
        sites = {
            site: ClearSite(
                site,
                study,
                self._cohorts[site],
                self._policy,
                state.personal,
                of_site[site],
                model,
                self._contribute,
            )
            for site, state in self._states.items()
        }
        ledgers = {site: state.ledger for site, state in self._states.items()}
        try:
            with self._adding(sites, parameters, model) as adding:
                sums = [
                    ClearSum(
                        study,
                        group,
                        sites,
                        ledgers,
                        adding,
                        timeout_s=study.aggregation.round_timeout_s,
                        faults=[fault for fault in self._faults if fault.site in group.roster],
                    )
                    for group in parameters
                ]
                group_sums = GroupSums(sums, SiteHeads(identities(parameters)))
                follow(run_rounds(study, group_sums, checkpoint.state))
        finally:
            for site, state in self._states.items():
                leave_ledger(self._folder / SITES / site, state.ledger)

    @contextmanager
    def _adding(
        self, sites: Mapping[str, ClearSite], groups: tuple[SumParameters, ...], model: RoundModel
    ) -> Iterator[VectorSums]:
        """Give what lets the sites compute: processes where that pays, or threads."""
        apart = self._engine is None and self._processes
        with (
            nullcontext(1) if apart else self._computing(groups) as threads,
            ThreadPoolExecutor(threads, thread_name_prefix="site") as pool,
        ):
            clip_norm = self._study.privacy.clip_norm
            here = SumsHere(sites, model=model, clip_norm=clip_norm, pool=pool, workers=threads)
            if not apart:
                yield here
                return
            far = list(self._far_sites(groups).values())
            with site_processes(far, self._folder, here, workers=self._workers) as processes:
                yield processes

    def _charge_past_rounds(
        self, checkpoint: Checkpoint, parameters: tuple[SumParameters, ...]
    ) -> None:
        """Charge what the run had released before it was cut off."""
        groups = by_site(parameters)
        for record in checkpoint.history:
            purpose = Purpose(record["purpose"])
            evaluated = purpose is Purpose.TRAINING and record["validation"] is not None
            asked = RoundConfiguration(purpose=purpose, evaluate=evaluated)
            for site in record["sites"]:
                charges = round_charges(
                    self._study, asked, record["round"], groups[site].study_hash
                )
                for release in charges:
                    self._states[site].ledger.charge_again(
                        release,
                        study_epsilon=self._study.privacy.epsilon,
                        study_delta=self._study.privacy.delta,
                    )

    def _run_protocol(self, checkpoint: Checkpoint, follow: Follow) -> None:
        study, parameters = self._study, self._parameters(checkpoint)
        timeout_s = study.aggregation.round_timeout_s

        def coordinate(sites: Sites) -> None:
            follow(run_study(study, parameters, sites, checkpoint.state))

        app = make_server_app(coordinate, study.sites, timeout_s=timeout_s)
        starts = {
            site: lambda site=site: make_client_app(self._session(site)) for site in study.sites
        }
        with (
            self._computing(parameters) as workers,
            LocalGrid(starts, workers=workers, faults=self._faults) as grid,
        ):
            run_server_app(app, grid)

    def _session(self, site: str) -> Session:
        """Start a site's session on records that were read and checked before."""
        state = self._states[site]
        if not isinstance(state, SiteState):
            raise TypeError(f"site {site} keeps no files, so it cannot run the protocol")
        return Session(
            site=site,
            study=self._study,
            roster=self._roster,
            sizes=KnownSizes(self._roster.sizes),
            read=lambda: self._cohorts[site],
            policy=self._policy,
            state=state,
            contribute=self._contribute,
        )

    def _checkpoint(self) -> Checkpoint:
        """Return the checkpoint to go on from, or a new one."""
        found = load_checkpoint(self._folder)
        if found is None:
            return begin(self._folder, self._study)
        if found.study_digest != self._study.digest:
            raise SettingsError(
                f"{self._folder}: holds a run of another study or of an earlier version of this "
                f"one (digest {found.study_digest.hex()[:12]}, not "
                f"{self._study.digest.hex()[:12]}); choose another --out"
            )
        begun = {record.get("sum", PROTOCOL) for record in found.history}
        if not found.state.finished and not begun <= {self._sum}:
            option = "without" if self._protocol else "with"
            raise SettingsError(
                f"{self._folder}: holds a run that was begun {option} the protocol (--protocol); "
                "go on with it in the same way, or choose another --out"
            )
        return found.resumed(self._study)

    @property
    def _sum(self) -> str:
        return PROTOCOL if self._protocol else CLEAR

    def _record(self, result: RoundResult, test: HeldOut) -> dict[str, Any]:
        """Return a round's record, as ``run.json`` holds it; see docs/run-json.md."""
        record = round_record(self._study, result) | {"sum": self._sum}
        if result.state.normalisation and result.purpose is Purpose.TRAINING:
            record["test"] = test.quick(result.state, self.own_states(result.state))
        return record
