"""Networks of the Mg-Mn-O GAN: rows that are read alone, then together.

Source: Kim et al., ACS Cent. Sci. 6 (2020) 1412, and its code
kaist-amsg/Composition-Conditioned-Crystal-GAN at commit 35cf6d0.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..descriptors.base import for_network
from ..networks import layers
from .coordinate_rows import CELL_ROWS, DESCRIPTOR, N_ATOMS, SLOTS, neighbours
from .periodic import NEAREST

if TYPE_CHECKING:
    from .mg_mn_o import MgMnOConfig

N_SCORES = 10  # outputs of the critic, of which the mean is its score
STEEP, STEEPNESS = 10.0, 6  # 10 for atoms on each other, 0.9 at 2 Å, 0.01 at 4 Å


class Pointwise(nn.Sequential):
    """A dense layer with batch norm and activation on the last axis: a convolution of 1 x 1."""

    def __init__(self, into: int, out: int, *, eps: float, activation: nn.Module) -> None:
        super().__init__(nn.Linear(into, out), nn.BatchNorm1d(out, eps=eps), activation)

    def forward(self, x: Tensor) -> Tensor:
        """(…, into) to (…, out), normalised over all other axes."""
        return super().forward(x.flatten(0, -2)).view(*x.shape[:-1], -1)


class Generator(nn.Module):
    """Noise and how many atoms of each element to a (30, 3) matrix."""

    def __init__(self, config: MgMnOConfig) -> None:
        super().__init__()
        c = [config.channels(n) for n in (128, 256, 512, 256)]
        norm = {"eps": config.norm_eps, "activation": nn.ReLU()}
        self.first = nn.Linear(config.latent + 1 + N_ATOMS, c[0] * N_ATOMS)
        self.spread = nn.Linear(c[0], 3 * c[1])  # a transposed convolution of 1 x 3
        self.norm = nn.BatchNorm1d(c[1], eps=config.norm_eps)
        self.rows = nn.Sequential(Pointwise(c[1], c[2], **norm), Pointwise(c[2], c[3], **norm))
        self.last = nn.Linear(c[3], 1)
        self.cell = nn.Sequential(Pointwise(3 * N_ATOMS, 30, **norm), nn.Linear(30, 6))
        layers.draw_weights(self, nn.init.xavier_uniform_)  # as published

    def forward(self, noise: Tensor, counts: Tensor) -> Tensor:
        """(batch, latent) and (batch, 3) numbers of atoms to (batch, 30, 3) in [0, 1]."""
        asked = [
            functional.one_hot(counts[:, k] - 1, most).to(noise)  # (batch, 8), (batch, 8), (…, 12)
            for k, most in enumerate(SLOTS)
        ]
        size = counts.sum(1, keepdim=True) / N_ATOMS
        x = torch.relu(self.first(torch.cat([noise, size, *asked], dim=1)))
        x = x.view(len(x), -1, N_ATOMS).mT  # (batch, 28, channels)
        x = self.spread(x).view(len(x), N_ATOMS, 3, -1)
        x = torch.relu(self.norm(x.flatten(0, 2)).view_as(x))
        x = self.last(self.rows(x)).squeeze(-1)  # (batch, 28, 3)
        cell = self.cell(x.flatten(1)).view(-1, CELL_ROWS, 3)
        return torch.sigmoid(torch.cat([cell, x], dim=1))


class ConstantSlope(nn.LeakyReLU):
    """A leaky ReLU by a factor that is constant to autograd.

    Torch's own sends zeros back through all layers when a gradient penalty is differentiated.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(…) to (…), the same numbers."""
        return x * x.detach().sign().clamp_(min=self.negative_slope)


class RowDense(nn.Linear):
    """A dense layer as a convolution of 1 x 1.

    Torch hands convolutions to another library than products, which on some processors is faster,
    see `benchmarks/gan_step.py`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, rows, into) to (batch, rows, out)."""
        weight = self.weight[:, :, None, None]
        return functional.conv2d(x.mT[..., None], weight, self.bias)[..., 0].mT


class Critic(nn.Module):
    """(batch, 30, 3) to ten scores; the order of the rows of an element makes no difference."""

    def __init__(self, config: MgMnOConfig) -> None:
        super().__init__()
        c = [config.channels(n) for n in (512, 512, 256)]
        self.far, self.reduced = config.sees == "distances", config.cells == "reduced"
        inputs = 3 + 2 * NEAREST * len(SLOTS) * self.far
        bent = ConstantSlope(0.2)
        steps = [(RowDense(a, b), bent) for a, b in itertools.pairwise([inputs, *c])]
        self.rows = nn.Sequential(*itertools.chain(*steps))
        towers = [config.channels(n) for n in (1000, 200)]
        sizes = [(CELL_ROWS + len(SLOTS)) * c[2], *towers, N_SCORES]
        self.scores = layers.mlp(sizes, activation=bent)
        layers.draw_weights(self, nn.init.xavier_uniform_)  # as published

    def see(self, matrix: Tensor) -> Tensor:
        """(batch, 30, 3) as it is, or (batch, 30, 33): the cell, and distances for coordinates.

        How near the neighbours of each atom are, on an even and on a steep scale, which tells atoms
        that meet from all others. What has been seen already stays as it is.
        """
        if self.far and matrix.shape[1:] == (CELL_ROWS + N_ATOMS, self.rows[0].in_features):
            return matrix
        matrix = for_network(matrix, DESCRIPTOR.shape, self)
        if not self.far:
            return matrix
        near = neighbours(matrix, reduced=self.reduced)
        atoms = torch.cat([near, STEEP * near**STEEPNESS], dim=2)
        cell = functional.pad(matrix[:, :CELL_ROWS], (0, atoms.shape[2]))
        return torch.cat([cell, functional.pad(atoms, (3, 0))], dim=1)

    def forward(self, matrix: Tensor) -> Tensor:
        """(batch, 30, 3), seen or not, to (batch, 10)."""
        x = self.rows(self.see(matrix))  # (batch, 30, channels)
        parts = x[:, CELL_ROWS:].split(SLOTS, dim=1)
        whole = [part.sum(1) if self.far else part.mean(1) for part in parts]
        return self.scores(torch.cat([x[:, :CELL_ROWS].flatten(1), *whole], dim=1))


class Classifier(nn.Module):
    """Which rows hold an atom, and how many atoms of each element there are.

    The published one has a further branch, whose loss is commented out.
    """

    def __init__(self, config: MgMnOConfig) -> None:
        super().__init__()
        c = [config.channels(n) for n in (512, 256, 256)]
        norm = {"eps": config.norm_eps, "activation": nn.LeakyReLU(0.2)}
        self.states, self.counts = nn.ModuleList(), nn.ModuleList()
        for most in SLOTS:
            steps = [Pointwise(a, b, **norm) for a, b in zip((3, *c[:-1]), c, strict=True)]
            self.states.append(nn.Sequential(*steps, nn.Linear(c[-1], 2)))
            tower = [Pointwise(2 * most, 300, **norm), Pointwise(300, 100, **norm)]
            self.counts.append(nn.Sequential(*tower, nn.Linear(100, most)))
        layers.draw_weights(self, nn.init.xavier_uniform_)  # as published

    def forward(self, matrix: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, 28, 2) logits of empty and atom, and (batch, most) logits of each count."""
        matrix = for_network(matrix, DESCRIPTOR.shape, self)
        parts = matrix[:, CELL_ROWS:].split(SLOTS, dim=1)
        states = [branch(part) for branch, part in zip(self.states, parts, strict=True)]
        counts = [f(s.flatten(1)) for f, s in zip(self.counts, states, strict=True)]
        return torch.cat(states, dim=1), counts
