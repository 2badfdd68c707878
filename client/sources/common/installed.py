"""Sources that a hospital's own installed package adds, by entry points of ``consilium.sources``.

No code from outside runs at a site. The one exception is what the hospital's people install and
their ``policy.toml`` names in ``[sources] installed``: nothing of it is loaded before both are so,
whatever a study or ``site.toml`` says. What such a source gives is checked, not trusted::

    [project.entry-points."consilium.sources"]          # the package's pyproject.toml
    acme-lis = "acme_lis:SOURCE"

    SOURCE = SourceKind(AcmeSettings, open_acme)        # acme_lis.py

``AcmeSettings`` is a subclass of :class:`consilium.client.sources.common.settings.DataSettings`,
``open_acme(settings, study)`` returns a :class:`consilium.client.sources.common.source.Source`, and
``SourceKind`` is :class:`consilium.client.sources.registry.SourceKind`.
"""

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from consilium.client.sources.common.reasons import KEPT
from consilium.client.sources.common.settings import DataSettings
from consilium.client.sources.common.source import Patient, ReadReport, Source, Stay
from consilium.shared.errors import ConsiliumError, DataError, SettingsError
from consilium.shared.files import installed_packages
from consilium.shared.files.installed_packages import only_entry, package_of
from consilium.shared.study.definition import Study
from consilium.shared.study.input_names import token_names

GROUP = "consilium.sources"
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class InstalledSource:
    """A source of an installed package, loaded.

    Attributes:
        name: the value of ``[data] source``.
        distribution: the package that added it.
        version: the package's version.
        settings: the model of its settings.
        open: opens it.
    """

    name: str
    distribution: str
    version: str
    settings: type[DataSettings]
    open: Callable[[DataSettings, Study], Source]

    def __str__(self) -> str:
        return f"{self.name}, of the installed package {self.distribution} {self.version}"


def is_installed(name: str) -> bool:
    """Return whether a package adds a source of this name; nothing of it is loaded."""
    return installed_packages.is_installed(GROUP, name)


def owners_of(name: str) -> list[str]:
    """Return the packages that add a source of this name, with their versions; loads nothing."""
    return installed_packages.owners_of(GROUP, name)


def load(name: str, allowed: Set[str]) -> InstalledSource:
    """Load a source that the policy allows.

    Args:
        name: the value of ``[data] source``.
        allowed: what the policy lists in ``[sources] installed``.

    Raises:
        SettingsError: the policy does not allow it, two packages add it, or it cannot be loaded.
    """
    owners = owners_of(name)
    if name not in allowed:
        raise SettingsError(
            f"source {name!r} is of an installed package ({'; '.join(owners)}), and this site's "
            "policy does not allow it; if it is your hospital's own, add it to [sources] installed "
            "in policy.toml"
        )
    entry = only_entry(GROUP, name, what="source", raises=SettingsError)
    model, opens = installed_packages.load(
        entry, what="source", raises=SettingsError, take=attrgetter("settings", "open")
    )
    if not (isinstance(model, type) and issubclass(model, DataSettings) and callable(opens)):
        raise SettingsError(
            f"source {name!r} of {owners[0]} gives no SourceKind with settings and a function that "
            "opens it; ask who wrote it"
        )
    return InstalledSource(name, *package_of(entry), model, opens)


def opened(installed: InstalledSource, chosen: DataSettings, study: Study) -> Source:
    """Open an installed source, so that what it gives is checked.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        source = installed.open(chosen, study)
    except ConsiliumError:
        raise
    except Exception as error:  # whatever another's code raises is told in one sentence
        raise DataError(
            f"source {installed} cannot be opened ({type(error).__name__}); ask who wrote it"
        ) from error
    return Checked(installed, source)


class Checked:
    """An installed source whose patients are checked, and whose failures are one sentence.

    Guarantee: what passes has finite values inside the study's ranges, in order of time, labels of
    the study's task, and every patient once. The events of each variable that pass are counted; how
    many rows the source left out only it can say, with a funnel of its own.

    Args:
        installed: where it is from.
        source: the source that it opened.
    """

    def __init__(self, installed: InstalledSource, source: Source) -> None:
        self._installed, self._source = installed, source
        self._kept: dict[str, int] = {}

    @property
    def name(self) -> str:
        """See :class:`consilium.client.sources.common.source.Source`."""
        return self._installed.name

    @property
    def report(self) -> ReadReport:
        """See :class:`consilium.client.sources.common.source.Source`."""
        report = self._source.report
        if not isinstance(report, ReadReport):
            raise self._wrong("gives no ReadReport")
        if report.funnel:
            return report
        kept = {name: {KEPT: number} for name, number in self._kept.items()}
        return replace(report, funnel=kept, counts_rows=False)

    def read_patients(self, study: Study) -> Iterator[Patient]:
        """Yield every patient that the source gives.

        Raises:
            DataError: the source failed, or gives what no source may give.
        """
        seen: set[str] = set()
        self._kept = dict.fromkeys((*study.variables, *token_names(study)), 0)
        try:
            for patient in self._source.read_patients(study):
                if not isinstance(patient, Patient) or not patient.stays:
                    raise self._wrong("gives a patient without stays, or what is no Patient")
                if not isinstance(patient.patient_id, str) or patient.patient_id in seen:
                    raise self._wrong("gives a patient twice, or without an identifier")
                seen.add(patient.patient_id)
                for stay in patient.stays:
                    self._check(stay, study)
                yield patient
        except ConsiliumError:
            raise
        except Exception as error:  # whatever another's code raises is told in one sentence
            raise DataError(
                f"source {self._installed} failed while it read ({type(error).__name__}); ask who "
                "wrote it"
            ) from error

    def _wrong(self, what: str) -> DataError:
        return DataError(f"source {self._installed} {what}; ask who wrote it")

    def _check(self, stay: Stay, study: Study) -> None:
        hours_E = np.asarray(stay.hours_E, dtype=np.float64)
        variable_E = np.asarray(stay.variable_E, dtype=np.int64)
        value_E = np.asarray(stay.value_E, dtype=np.float32)
        if not (len(hours_E) == len(variable_E) == len(value_E)):
            raise self._wrong("gives events whose columns differ in length")
        if not (np.isfinite(hours_E).all() and np.isfinite(value_E).all()):
            raise self._wrong("gives times or values that are not finite")
        if (hours_E < 0).any() or (np.diff(hours_E) < 0).any():
            raise self._wrong("gives events before their stay or not in order of time")
        kinds = len(study.variables) + (len(study.tokens.names) if study.tokens else 0)
        if ((variable_E < 0) | (variable_E >= kinds)).any():
            raise self._wrong("gives events of variables that the study does not have")
        for index, spec in enumerate(study.variables.values()):
            value_K = value_E[variable_E == index]
            if ((value_K < np.float32(spec.low)) | (value_K > np.float32(spec.high))).any():
                raise self._wrong("gives values outside the study's ranges")
        for name, number in zip(self._kept, np.bincount(variable_E, minlength=kinds), strict=True):
            self._kept[name] += int(number)
        label = np.asarray(stay.label, dtype=np.float64)
        known = label[~np.isnan(label)] if label.ndim else label.reshape(1)
        classes = max(2, study.task.outputs) if study.task.kind == "multiclass" else 2
        if study.task.kind == "regression":
            fits = bool(np.isfinite(known).all())
        else:
            fits = bool(np.isin(known, np.arange(classes)).all())
        if not fits:
            raise self._wrong("gives labels that the study's task does not have")
