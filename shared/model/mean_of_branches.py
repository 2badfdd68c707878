"""Several networks as one: each learns by its own loss, and the prediction is their logits' mean.

A stay's training loss is the sum of all networks' losses, so a patient's gradient is one vector
over all their weights, clipped to one norm: what is accounted for is as for a single network.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from consilium.shared.model.bookkeeping import Bookkeeping
from consilium.shared.model.branch import Branch
from consilium.shared.model.layers import Linear
from consilium.shared.study.records import Tokens
from consilium.shared.study.training import Task


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network, its share of the mean, and the places of its inputs among the features."""

    network: Branch
    share: float
    places: list[int]


class MeanOfBranches(Branch):
    """The members of all branches; their shares add up to 1."""

    def __init__(
        self, features: int, task: Task, tokens: Tokens | None, members: list[Member]
    ) -> None:
        most = max(member.network.dropout for member in members)
        super().__init__(features, task, tokens, most)
        self.shares = [member.share for member in members]
        self.places = [member.places for member in members]
        self.branches = nn.ModuleList(member.network for member in members)

    @property
    def networks(self) -> list[Branch]:
        """The members' networks, in order."""
        return [network for network in self.branches if isinstance(network, Branch)]

    def forward(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """See :class:`.Branch`."""
        every = self._each(x_NTF, mask_NT, books, generator, read)
        return _added([share * logits for share, logits in zip(self.shares, every, strict=True)])

    def training_loss(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        y: Tensor,
        *,
        books: Bookkeeping | None = None,
        generator: Generator | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """See :class:`.Branch`."""
        return _added(
            [
                network.training_loss(
                    self._inputs(place, x_NTF),
                    mask_NT,
                    y,
                    books=books,
                    generator=generator,
                    weight=weight,
                )
                for place, network in enumerate(self.networks)
            ]
        )

    def read(self, x_NTF: Tensor, mask_NT: Tensor) -> Tensor:
        """See :class:`.Branch`."""
        return torch.cat(
            [
                network.read(self._inputs(place, x_NTF), mask_NT)
                for place, network in enumerate(self.networks)
            ],
            dim=-1,
        )

    @property
    def read_from(self) -> list[int]:
        """See :class:`.Branch`."""
        return [
            places[feature]
            for places, network in zip(self.places, self.networks, strict=True)
            for feature in network.read_from
        ]

    @property
    def streams(self) -> bool:
        """See :class:`.Branch`."""
        return all(network.streams for network in self.networks)

    @property
    def numbers_kept(self) -> int:
        """See :class:`.Branch`."""
        return sum(network.features + network.numbers_kept for network in self.networks)

    @property
    def output_layers(self) -> list[Linear]:
        """See :class:`.Branch`."""
        return [layer for network in self.networks for layer in network.output_layers]

    @property
    def onnx_obstacle(self) -> str:
        """See :class:`.Branch`."""
        return next((n.onnx_obstacle for n in self.networks if n.onnx_obstacle), "")

    def _each(
        self,
        x_NTF: Tensor,
        mask_NT: Tensor,
        books: Bookkeeping | None,
        generator: Generator | None,
        read: Tensor | None,
    ) -> list[Tensor]:
        """Return each network's logits."""
        parts: tuple[Tensor | None, ...] = (None,) * len(self.networks)
        if read is not None:
            sizes = [len(network.read_from) for network in self.networks]
            parts = torch.split(read, sizes, dim=-1)
        return [
            network(
                self._inputs(place, x_NTF), mask_NT, books=books, generator=generator, read=part
            )
            for place, (network, part) in enumerate(zip(self.networks, parts, strict=True))
        ]

    def _inputs(self, place: int, x_NTF: Tensor) -> Tensor:
        """Return what the network at this place reads of the features."""
        places = self.places[place]
        if len(places) == self.features:
            return x_NTF
        return x_NTF[..., places]


def _added(parts: list[Tensor]) -> Tensor:
    """Return their sum, one after the other: torch's own order depends on where a number stands."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
