"""Networks of CrystalGAN: those that see one row, as published, and those that see crystals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..descriptors.base import for_network
from ..descriptors.hydride_blocks import ROWS
from ..networks.layers import mlp, spectral_norm
from .hydride_rows import KINDS, in_cell, inverse, is_atom, neighbours, with_cell
from .periodic import NEAREST, features

if TYPE_CHECKING:
    from .crystalgan import CrystalGanConfig

SHAPE = (1 + len(KINDS), ROWS, 3)  # of the blocks of a crystal
LAYERS = 10  # hidden ones of a network of rows; 5 in the published third step
STRETCH = 0.1  # largest logarithm of the factor by which a step of a map scales an edge
ROUNDS = 3  # steps of a map
CENTRES, BELL = (1.0, 2.0, 3.0, 4.0), 0.7  # Å


class RowNetwork(nn.Module):
    """Each row of three coordinates alone, as published: to three others, or to a logit."""

    def __init__(self, config: CrystalGanConfig, outputs: int) -> None:
        super().__init__()
        hidden = [config.channels(100)] * LAYERS
        self.body = mlp([3, *hidden, outputs], activation=nn.ReLU())

    def forward(self, blocks: Tensor) -> Tensor:
        """(n, 4, 18, 3) Å to (n, 4, 18, outputs)."""
        return self.body(for_network(blocks, SHAPE, self))


class Trunk(nn.Module):
    """What each atom knows of the whole crystal: its surroundings, and the mean of all atoms."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, atom: Tensor) -> tuple[Tensor, Tensor]:
        """(n, atoms, inputs) to (n, atoms, width) of each atom and (n, width) of the crystal."""
        share = (atom / atom.sum(1, keepdim=True)).unsqueeze(2)  # (n, atoms, 1)
        one = functional.leaky_relu(self.first(x), 0.2)
        mean = (share * one).sum(1, keepdim=True).expand_as(one)
        two = functional.leaky_relu(self.second(torch.cat([one, mean], dim=2)), 0.2)
        return two, (share * two).sum(1)


class WholeMap(nn.Module):
    """A crystal to another with as many atoms: the cell is scaled, every atom is moved.

    An atom moves towards its nearest neighbours or away from them, so that a turned or shifted
    crystal becomes the same crystal, turned or shifted. The step is taken a few times.
    """

    def __init__(self, config: CrystalGanConfig) -> None:
        super().__init__()
        width, self.latent = config.channels(96), config.latent
        self.trunk = Trunk(len(KINDS) * (1 + NEAREST) + config.latent, width)
        self.move = nn.Linear(2 * width, len(KINDS) * len(CENTRES))
        self.scale = nn.Linear(width, 3)

    def basis(self, distance: Tensor) -> Tensor:
        """(..., 4) bells over a distance: equally near neighbours pull alike."""
        centres = torch.tensor(CENTRES).to(distance)
        return (-((distance[..., None] - centres) / BELL).square()).exp()

    def forward(self, blocks: Tensor) -> Tensor:
        """(n, 4, 18, 3) Å to the same, with noise drawn here; rows that are empty stay so."""
        blocks = for_network(blocks, SHAPE, self)
        present = is_atom(blocks)  # (n, 54)
        noise = torch.randn(*present.shape, self.latent).to(blocks)
        for _ in range(ROUNDS):
            near = neighbours(blocks)
            seen = torch.cat([features(near), noise[:, near.used]], dim=2)
            atoms, crystal = self.trunk(seen, present[:, near.used].float())
            about = crystal[:, None].expand_as(atoms)
            weight = self.move(torch.cat([atoms, about], dim=2)).unflatten(2, (len(KINDS), 1, -1))
            pull = (weight * self.basis(near.distance)).sum(4)  # (n, atoms, 3, 5)
            last = near.distance[..., -1:]  # (n, atoms, 3, 1); beyond it nothing pulls
            pull = pull * (1 / near.distance - 1 / last)
            move = (pull[..., None] * near.vector).sum((2, 3))  # (n, atoms, 3) Å
            stretch = (STRETCH * torch.tanh(self.scale(crystal))).exp()  # (n, 3), of the vectors
            frac = in_cell(blocks).index_add(1, near.used, move @ inverse(blocks[:, 0, :3]))
            blocks = with_cell(blocks[:, 0, :3] * stretch[:, :, None], frac, present)
        return blocks


class WholeDiscriminator(nn.Module):
    """One logit for a crystal, from the distances of its atoms over all periodic images."""

    def __init__(self, config: CrystalGanConfig) -> None:
        super().__init__()
        width = config.channels(96)
        self.trunk = Trunk(len(KINDS) * (1 + NEAREST), width)
        self.head = mlp([width, width, 1], activation=nn.LeakyReLU(0.2))
        spectral_norm(self)

    def forward(self, blocks: Tensor) -> Tensor:
        """(n, 4, 18, 3) Å to (n,)."""
        blocks = for_network(blocks, SHAPE, self)
        near = neighbours(blocks)
        _, crystal = self.trunk(features(near), is_atom(blocks)[:, near.used].float())
        return self.head(crystal).squeeze(1)
