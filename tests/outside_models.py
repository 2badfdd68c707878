"""The package of examples/outside_models, installed as pip does it, and small modules that err."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from consilium.shared.errors import StudyError
from consilium.shared.files.installed_packages import only_entry, package_digest
from consilium.shared.model.branch import Inputs
from consilium.shared.model.installed_module import GROUP, ModuleModel
from consilium.shared.study.training import Task

EXAMPLE = Path(__file__).parents[1] / "examples" / "outside_models"
ENTRIES = "\n".join(
    line.replace('"', "")
    for line in (EXAMPLE / "pyproject.toml").read_text().splitlines()
    if line.startswith("acme-") and "=" in line
)


def install_example(folder: Path, *, name: str = "acme-models", version: str = "1.0") -> Path:
    """Lay out the package in a folder as an installer does; the folder is not on the path yet."""
    shutil.copytree(EXAMPLE / "src" / "acme_models", folder / "acme_models", dirs_exist_ok=True)
    inner = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    inner.mkdir(parents=True)
    (inner / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (inner / "entry_points.txt").write_text(f"[{GROUP}]\n{ENTRIES}\n")
    files = [*folder.glob("acme_models/*.py"), inner / "METADATA", inner / "entry_points.txt"]
    record = [f"{path.relative_to(folder).as_posix()},," for path in files]
    (inner / "RECORD").write_text("\n".join([*record, f"{inner.name}/RECORD,,\n"]))
    return folder


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python find what is installed there, and nothing that it loaded before."""
    monkeypatch.syspath_prepend(str(folder))
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "acme_models"]:
        monkeypatch.delitem(sys.modules, module)
    importlib.invalidate_caches()


def branch(module: str = "acme-transformer", **changes: object) -> dict[str, object]:
    """The table of a study that names the module as it is installed."""
    entry = only_entry(GROUP, module, what="module", raises=StudyError)
    digest = package_digest(entry, what="module", raises=StudyError)
    named = {"kind": "module", "module": module, "version": "1.0", "digest": digest}
    return named | changes


def network(
    module: nn.Module, task: Task | None = None, *, series: int = 2, static: int = 1
) -> ModuleModel:
    """The module as a branch that reads so many series and static variables, on hours."""
    inputs = Inputs(features=6 * series + 2 * static, series=series)
    generator = torch.Generator().manual_seed(1)
    return ModuleModel(module, inputs, task or Task(), generator, name="made-up")


class Plain(nn.Module):
    """A map of the mean of what was measured; the modules that err are made of it."""

    def __init__(self, variables: int = 3, outputs: int = 1, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(2 * variables, width)
        self.last = nn.Linear(width, outputs)

    def hidden(self, values, observed, lengths):
        valid_NT = torch.arange(values.shape[1]) < lengths.unsqueeze(1)
        read = torch.where(valid_NT.unsqueeze(2), torch.cat([values, observed], 2), 0.0)
        return torch.tanh(self.first(read.sum(1) / lengths.unsqueeze(1)))

    def forward(self, values, observed, hours, lengths):
        return self.last(self.hidden(values, observed, lengths))


class Mixing(Plain):
    """Takes the mean of the batch away, as batch norm does."""

    def hidden(self, *parts):
        hidden = super().hidden(*parts)
        return hidden - hidden.mean(0)


class Remembering(Plain):
    """Counts its calls."""

    calls = 0

    def forward(self, *parts):
        self.calls += 1
        return super().forward(*parts) * (1 + 0.1 * self.calls)


class Changing(Plain):
    """Writes into a constant, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, *parts):
        self.seen.add_(1)
        return super().forward(*parts)


class ReadingPadding(Plain):
    def hidden(self, values, observed, lengths):
        return torch.tanh(self.first(torch.cat([values, observed], 2)).mean(1))


class Buffered(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(3))


class Idle(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)


class Normed(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)


class Recurrent(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(6, 4)


class Tied(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.other = self.last


class Frozen(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.first.weight.requires_grad_(False)


class Halved(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.double()


class OfOtherShape(Plain):
    def forward(self, *parts):
        return super().forward(*parts)[:, 0]


class LookingAhead(Plain):
    """Says of every step what it says of the stay."""

    def forward(self, values, *parts):
        return super().forward(values, *parts).unsqueeze(1).repeat(1, values.shape[1], 1)


class Failing(Plain):
    def forward(self, *parts):
        raise RuntimeError("of patient Meier")


class Endless(Plain):
    def forward(self, *parts):
        return super().forward(*parts) / 0.0


class Branching(Plain):
    """Looks at a value to decide what to do: functorch cannot follow it; nor hooks its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, values, observed, hours, lengths):
        said = super().forward(values, observed, hours, lengths) * self.scale
        return said if float(values.sum()) > -1e9 else -said


class Direct(Plain):
    """Has a weight outside of any layer, which only functorch serves."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, *parts):
        return super().forward(*parts) * self.scale


class Refusing(Plain):
    """Fails on a stay whose first value is large, as code that asserts things may."""

    def forward(self, values, *parts):
        assert float(values[0, 0, 0]) < 50, "of patient Meier"
        return super().forward(values, *parts)
