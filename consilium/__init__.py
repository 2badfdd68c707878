"""Hospitals train one recurrent model together; patient data stays in the building.

For researchers: many hospitals in one process, on synthetic patients, public collections or records
of one's own, with the code that hospitals run.

Example:
    >>> import consilium
    >>> study = consilium.with_changes(
    ...     consilium.example_study("demo"),
    ...     study={"rounds": 2, "sites": ["north", "east", "south"]},
    ...     model={"hidden": 4},
    ... )
    >>> result = consilium.simulate(study, seed=1)
    >>> result.test.auroc.low < result.test.auroc.value < result.test.auroc.high
    True
    >>> [one.purpose for one in result.rounds_table()]
    ['statistics', 'training', 'training', 'calibration', 'calibration']
    >>> result.epsilon <= study.privacy.epsilon
    True
    >>> result.report().name
    'report.html'
    >>> result.test.mae
    Traceback (most recent call last):
    AttributeError: there is no figure 'mae' here; there is auroc, auprc, brier and accuracy

Importing this package imports nothing else: each name below comes from its room when it is first
used. Every error that is somebody's to mend is a :class:`ConsiliumError`, one plain sentence.
docs/python.md has all objects.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consilium.client.sources.common.source import Patient as Patient
    from consilium.client.sources.common.source import ReadReport as ReadReport
    from consilium.client.sources.common.source import Source as Source
    from consilium.client.sources.common.source import Stay as Stay
    from consilium.server.figures.verdicts import Verdict as Verdict
    from consilium.shared.errors import AuditError as AuditError
    from consilium.shared.errors import AuthenticationError as AuthenticationError
    from consilium.shared.errors import BudgetError as BudgetError
    from consilium.shared.errors import ConsiliumError as ConsiliumError
    from consilium.shared.errors import DataError as DataError
    from consilium.shared.errors import EncodingError as EncodingError
    from consilium.shared.errors import MessageError as MessageError
    from consilium.shared.errors import OldStateError as OldStateError
    from consilium.shared.errors import PolicyError as PolicyError
    from consilium.shared.errors import PrivacyError as PrivacyError
    from consilium.shared.errors import ProtocolError as ProtocolError
    from consilium.shared.errors import RoundVoidError as RoundVoidError
    from consilium.shared.errors import SettingsError as SettingsError
    from consilium.shared.errors import StudyEndedError as StudyEndedError
    from consilium.shared.errors import StudyError as StudyError
    from consilium.shared.errors import UnableError as UnableError
    from consilium.shared.errors import UnreachableError as UnreachableError
    from consilium.shared.study.definition import Study as Study
    from consilium.shared.study.definition import parse_study as parse_study
    from consilium.shared.study.definition import with_changes as with_changes
    from consilium.shared.version import VERSION as __version__  # noqa: N811 - Python's name for it
    from consilium.simulations.api.compare import Comparison as Comparison
    from consilium.simulations.api.compare import Setting as Setting
    from consilium.simulations.api.compare import compare as compare
    from consilium.simulations.api.compare import open_comparison as open_comparison
    from consilium.simulations.api.figures import Figures as Figures
    from consilium.simulations.api.model import Prediction as Prediction
    from consilium.simulations.api.model import TrainedModel as TrainedModel
    from consilium.simulations.api.plan import Plan as Plan
    from consilium.simulations.api.plan import plan as plan
    from consilium.simulations.api.records import DealtRecords as DealtRecords
    from consilium.simulations.api.records import Records as Records
    from consilium.simulations.api.results import Joined as Joined
    from consilium.simulations.api.results import LeftOut as LeftOut
    from consilium.simulations.api.results import SimulationResult as SimulationResult
    from consilium.simulations.api.results import open_run as open_run
    from consilium.simulations.api.rounds import RoundFigures as RoundFigures
    from consilium.simulations.api.simulate import simulate as simulate
    from consilium.simulations.api.study import load_study as load_study
    from consilium.simulations.api.tune import Trial as Trial
    from consilium.simulations.api.tune import Tuning as Tuning
    from consilium.simulations.api.tune import open_tuning as open_tuning
    from consilium.simulations.api.tune import tune as tune
    from consilium.simulations.experiments.planning import Choice as Choice
    from consilium.simulations.experiments.planning import Margin as Margin
    from consilium.simulations.experiments.planning import SumPlan as SumPlan
    from consilium.simulations.experiments.selection_price import SelectionPrice as SelectionPrice
    from consilium.simulations.figures.metrics import Estimate as Estimate
    from consilium.simulations.runs.examples import example_study as example_study

__all__ = [
    "AuditError",
    "AuthenticationError",
    "BudgetError",
    "Choice",
    "Comparison",
    "ConsiliumError",
    "DataError",
    "DealtRecords",
    "EncodingError",
    "Estimate",
    "Figures",
    "Joined",
    "LeftOut",
    "Margin",
    "MessageError",
    "OldStateError",
    "Patient",
    "Plan",
    "PolicyError",
    "Prediction",
    "PrivacyError",
    "ProtocolError",
    "ReadReport",
    "Records",
    "RoundFigures",
    "RoundVoidError",
    "SelectionPrice",
    "Setting",
    "SettingsError",
    "SimulationResult",
    "Source",
    "Stay",
    "Study",
    "StudyEndedError",
    "StudyError",
    "SumPlan",
    "TrainedModel",
    "Trial",
    "Tuning",
    "UnableError",
    "UnreachableError",
    "Verdict",
    "__version__",
    "compare",
    "example_study",
    "load_study",
    "open_comparison",
    "open_run",
    "open_tuning",
    "parse_study",
    "plan",
    "simulate",
    "tune",
    "with_changes",
]

if not TYPE_CHECKING:
    # The same names by the module that has them; a test compares the two lists.
    _ERRORS = (
        "AuditError AuthenticationError BudgetError ConsiliumError DataError EncodingError "
        "MessageError OldStateError PolicyError PrivacyError ProtocolError RoundVoidError "
        "SettingsError StudyEndedError StudyError UnableError UnreachableError"
    )
    _NAMES = {
        "client.sources.common.source": "Patient ReadReport Source Stay",
        "server.figures.verdicts": "Verdict",
        "shared.errors": _ERRORS,
        "shared.study.definition": "Study parse_study with_changes",
        "simulations.api.compare": "Comparison Setting compare open_comparison",
        "simulations.api.figures": "Figures",
        "simulations.api.model": "Prediction TrainedModel",
        "simulations.api.plan": "Plan plan",
        "simulations.api.records": "DealtRecords Records",
        "simulations.api.results": "Joined LeftOut SimulationResult open_run",
        "simulations.api.rounds": "RoundFigures",
        "simulations.api.simulate": "simulate",
        "simulations.api.study": "load_study",
        "simulations.api.tune": "Trial Tuning open_tuning tune",
        "simulations.experiments.planning": "Choice Margin SumPlan",
        "simulations.experiments.selection_price": "SelectionPrice",
        "simulations.figures.metrics": "Estimate",
        "simulations.runs.examples": "example_study",
    }
    _MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name == "__version__":
            found = import_module("consilium.shared.version").VERSION
        elif name in _MODULE_OF:
            found = getattr(import_module(f"consilium.{_MODULE_OF[name]}"), name)
        else:
            raise AttributeError(f"module 'consilium' has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
