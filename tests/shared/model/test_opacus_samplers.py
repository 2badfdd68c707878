"""Our layers inside Opacus's own machinery."""

import pytest
import torch
from opacus import GradSampleModule, PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager

from consilium.shared.model.layers import Embedding, LayerNorm, Linear
from consilium.shared.model.network import build_model
from consilium.shared.model.opacus_samplers import register
from consilium.shared.model.recurrent import GRU, LSTM, RNN
from tests.study_text import small_study

# Opacus's hooks say so where a layer's inputs need no gradient.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")


class Network(torch.nn.Module):
    """Tokens -> recurrent -> norm -> linear."""

    def __init__(self, cell: type[torch.nn.Module]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = Embedding(9, 4, generator=generator)
        self.recurrent = cell(4, 5, layers=2, bidirectional=True, generator=generator)
        self.norm = LayerNorm(10)
        self.head = Linear(10, 1, generator=generator)

    def forward(self, token_NT: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
        states = self.recurrent(self.embedding(token_NT), mask_NT)
        return self.head(self.norm(states))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    token = torch.randint(9, (6, 7), generator=torch.Generator().manual_seed(1))
    return token, torch.arange(7)[None, :] < torch.tensor([7, 1, 3, 5, 7, 2])[:, None]


@pytest.mark.parametrize("cell", [RNN, LSTM, GRU])
def test_grad_sample_module_gives_each_rows_own_gradient(cell):
    register()
    plain = Network(cell)
    wrapped = GradSampleModule(Network(cell), loss_reduction="sum")
    token, mask = batch()
    wrapped(token, mask).square().sum().backward()
    for row in range(6):
        plain.zero_grad()
        plain(token[row : row + 1], mask[row : row + 1]).square().sum().backward()
        for own, sampled in zip(plain.parameters(), wrapped.parameters(), strict=True):
            torch.testing.assert_close(sampled.grad_sample[row], own.grad, rtol=1e-4, atol=1e-5)


def test_the_studys_model_works_in_grad_sample_module():
    register()
    study = small_study(model={"projection": 3, "pooling": "attention", "layer_norm": True})
    model = build_model(study, 4, seed=1)
    wrapped = GradSampleModule(build_model(study, 4, seed=1), loss_reduction="sum")
    x = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(5, 6, dtype=torch.bool)
    wrapped(x, mask).square().sum().backward()
    model(x[:1], mask[:1]).square().sum().backward()
    for own, sampled in zip(model.parameters(), wrapped.parameters(), strict=True):
        torch.testing.assert_close(sampled.grad_sample[0], own.grad, rtol=1e-4, atol=1e-6)


def test_virtual_batches_add_up_to_the_whole_batch():
    register()
    token, mask = batch()
    results = []
    for largest in (6, 2):
        module = GradSampleModule(Network(LSTM), loss_reduction="mean")
        optimizer = DPOptimizer(
            torch.optim.SGD(module.parameters(), lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=0.1,
            expected_batch_size=6,
        )
        data = torch.utils.data.TensorDataset(token, mask)
        loader = torch.utils.data.DataLoader(data, batch_size=6)
        with BatchMemoryManager(
            data_loader=loader, max_physical_batch_size=largest, optimizer=optimizer
        ) as parts:
            for part_token, part_mask in parts:
                optimizer.zero_grad()
                module(part_token, part_mask).square().sum((1, 2)).mean().backward()
                optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


@pytest.fixture
def _the_same_draws():
    """Opacus samples and draws noise from torch's global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


@pytest.mark.usefixtures("_the_same_draws")
def test_the_privacy_engine_trains_our_layers_and_its_accountant_counts_the_steps():
    register()
    token, mask = batch()
    data = torch.utils.data.TensorDataset(token, mask)
    network = Network(GRU)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    engine = PrivacyEngine(accountant="rdp")
    module, optimizer, loader = engine.make_private(
        module=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        data_loader=torch.utils.data.DataLoader(data, batch_size=3),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        loss_reduction="sum",
    )
    steps = 0
    empty = (token[:0], mask[:0])
    for parts in (loader, loader, [empty]):
        for part_token, part_mask in parts:  # Poisson samples; empty ones are legal
            optimizer.zero_grad()
            module(part_token, part_mask).square().sum().backward()
            optimizer.step()
            steps += 1
    assert [entry[2] for entry in engine.accountant.history] == [steps]
    assert engine.get_epsilon(1e-5) > 0
    changed = zip(before, network.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in changed)
