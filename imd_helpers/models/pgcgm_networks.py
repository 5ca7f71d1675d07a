"""Networks of PGCGM: those that were published, and those that see everything.

Source: MilesZhao/PGCGM at commit ab38ec6 (the two network classes; no training code).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..crystals import CrystalBatch
from ..crystals.geometry import min_image_distances
from ..networks.layers import mlp
from .pgcgm_sites import N_ROWS, ONE, PAIRS, TWO, Distances, affine, coded

if TYPE_CHECKING:
    from .pgcgm import PgcgmConfig

N_FEATURES, N_SETS = 23, 3
PICTURE = (3, 8, 8)
TEN = 10.0  # Å; scale of distances in a picture
SEEN = 2 * 3 * N_ROWS + 3 + len(PAIRS) + N_ROWS + 1  # numbers that `WholeCritic` sees of a crystal
REACH = 0.75  # of a cell edge, by which `WholeGenerator` reaches from the middle of the cell


class Symmetry(nn.Module):
    """Operations of a space group (batch, 192, 4, 4) to features, by convolutions of width 2."""

    def __init__(self, config: PgcgmConfig, *, norm: bool) -> None:
        super().__init__()
        sizes = [192, *(config.channels(n) for n in (64, 128, 256))]
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise(sizes):
            layers += [nn.Conv2d(into, out, 2), *([nn.BatchNorm2d(out)] if norm else [])]
            layers.append(nn.LeakyReLU(0.2))
        self.body, self.width = nn.Sequential(*layers, nn.Flatten()), sizes[-1]

    def forward(self, operations: Tensor) -> Tensor:
        """(batch, 192, 4, 4) to (batch, width)."""
        return self.body(operations)


class PublishedGenerator(nn.Module):
    """Coordinates from noise and elements, lengths from noise and group, as published."""

    def __init__(self, config: PgcgmConfig) -> None:
        super().__init__()
        w = config.channels(256)
        self.symmetry = Symmetry(config, norm=True)
        a, b = config.channels(64), config.channels(128)
        self.elements = nn.Sequential(
            nn.Conv1d(N_FEATURES, a, 2), nn.BatchNorm1d(a), nn.ReLU(),
            nn.Conv1d(a, b, 2), nn.BatchNorm1d(b), nn.ReLU(), nn.Flatten(), nn.Linear(b, w),
        )  # fmt: skip
        self.noise = nn.Sequential(nn.Linear(config.latent, w), nn.BatchNorm1d(w), nn.ReLU())
        c = [2 * w, *(config.channels(n) for n in (1024, 512, 256, 128, 64))]
        layers: list[nn.Module] = []
        for k, (into, out) in enumerate(itertools.pairwise(c)):
            conv = nn.ConvTranspose2d(into, out, 2) if k < 2 else nn.Conv2d(into, out, 1)
            layers += [conv, nn.BatchNorm2d(out), nn.ReLU()]
        self.sites = nn.Sequential(*layers, nn.Conv2d(c[-1], 3, 1), nn.Tanh())
        hidden = [config.channels(n) for n in (128, 64, 32, 16)]
        sizes = [w + self.symmetry.width, *hidden, 3]
        self.lengths = mlp(sizes, activation=nn.ReLU(), norm=nn.BatchNorm1d, last=nn.Tanh())

    def forward(self, noise: Tensor, group: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Three sets of base sites (batch, 3, 3, 3) and lengths (batch, 3), both in [-1, 1].

        Args:
            noise: (batch, latent).
            group: (batch,) places in the list of space groups.
            features: (batch, 3, 23).
        """
        z, e = self.noise(noise), self.elements(features.mT)
        sites = self.sites(torch.cat([z, e], dim=1)[..., None, None])  # (batch, xyz, sets, atoms)
        s = self.symmetry(affine().to(noise)[group])
        return sites.permute(0, 2, 3, 1), self.lengths(torch.cat([z, s], dim=1))


class PublishedCritic(nn.Module):
    """A picture (batch, 3, 8, 8) and the operations (batch, 192, 4, 4) to a score."""

    def __init__(self, config: PgcgmConfig) -> None:
        super().__init__()
        c = [3, *(config.channels(n) for n in (16, 32, 64, 96, 128, 192, 256))]
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise(c):
            layers += [nn.Conv2d(into, out, 2), nn.LeakyReLU(0.2)]
        self.crystal = nn.Sequential(*layers, nn.Flatten())
        self.symmetry = Symmetry(config, norm=False)
        self.score = mlp([c[-1] + self.symmetry.width, config.channels(256), 1])

    def forward(self, crystal: Tensor, operations: Tensor) -> Tensor:
        """(batch, 1)."""
        both = [self.crystal(crystal), self.symmetry(operations)]
        return self.score(torch.cat(both, dim=1))


class Condition(nn.Module):
    """Space group and elements as one row."""

    def __init__(self, config: PgcgmConfig) -> None:
        super().__init__()
        self.symmetry = Symmetry(config, norm=False)
        self.width = self.symmetry.width + N_ROWS * N_FEATURES

    def forward(self, group: Tensor, features: Tensor) -> Tensor:
        """(batch,) and (batch, 3, 23) to (batch, width)."""
        each = self.symmetry(affine().to(features))  # (20, width)
        return torch.cat([each[group], features.flatten(1)], dim=1)


class WholeGenerator(nn.Module):
    """One set of base sites and three lengths, both from noise, group and elements."""

    def __init__(self, config: PgcgmConfig) -> None:
        super().__init__()
        self.condition = Condition(config)
        w = config.channels(1024)
        into = config.latent + self.condition.width + (N_ROWS * 12 if config.placed else 0)
        self.body = mlp([into, w, w, w, 3 * N_ROWS + 3])

    def forward(
        self, noise: Tensor, group: Tensor, features: Tensor, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sites (batch, 3, 3) in fractions of the edges, and lengths (batch, 3) in [-1, 1].

        Given (batch, 3, 3, 4) positions, see `pgcgm_crystals.positions`, the sites are on them.
        """
        seen = [noise, self.condition(group, features)]
        seen += [] if positions is None else [positions.flatten(1)]
        out = self.body(torch.cat(seen, dim=1)).tanh()
        sites = 0.5 + REACH * out[:, :-3].unflatten(1, (N_ROWS, 3))
        if positions is not None:
            sites = (positions[..., :3] @ sites[..., None])[..., 0] + positions[..., 3]
        return sites, out[:, -3:]


class WholeCritic(nn.Module):
    """What a crystal is (batch, 31), with group and elements, to a score."""

    def __init__(self, config: PgcgmConfig) -> None:
        super().__init__()
        self.condition = Condition(config)
        w = config.channels(1024)
        self.score = mlp([SEEN + self.condition.width, w, w, w, 1])

    def forward(self, crystal: Tensor, group: Tensor, features: Tensor) -> Tensor:
        """(batch, 1)."""
        return self.score(torch.cat([crystal, self.condition(group, features)], dim=1))


def base_distances(sites: Tensor, lattice: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of base sites over 27 cells, with gradients, as published.

    Args:
        sites: (n, sets, 3, 3) fractional; three sets of a site of each element.
        lattice: (n, 3, 3) Å.

    Returns:
        (n, 3, sets) of the pairs 0-1, 0-2, 1-2 of elements in each set, and (n, 3, 3) of the same
        pairs of sets for each element.
    """
    flat = sites.flatten(1, 2)  # (n, 9, 3), set by set
    apart = min_image_distances(CrystalBatch(lattice, flat, torch.ones_like(flat[..., 0]).long()))
    sets = sites.shape[1]
    apart = apart.view(-1, sets, N_ROWS, sets, N_ROWS)
    in_set, of_element = apart.diagonal(dim1=1, dim2=3), apart.diagonal(dim1=2, dim2=4)
    one, two = ONE[:N_ROWS], TWO[:N_ROWS]
    return in_set[:, one, two], of_element[:, one, two]


def picture(
    sites: Tensor, lengths: Tensor, lattice: Tensor, radius: Tensor, features: Tensor
) -> tuple[Tensor, Distances, Distances]:
    """(n, 3, 8, 8): 175 numbers of a crystal and 17 zeros, in the order of the paper's figure.

    Coordinates, the same as codes, Cartesian, both kinds of distances, element features, lengths,
    volume, angles. The figure has no scales: distances count here in units of 10 Å.

    Args:
        sites: (n, 3, 3, 3) fractional: sets, elements, axes.
        lengths: (n, 3) Å.
        lattice: (n, 3, 3) Å.
        radius: (n, 3) atomic radii, Å.
        features: (n, 3, 23) in [-1, 1].

    Returns:
        The pictures, and the distances of `base_distances` with the sums of radii of each.
    """
    inter, intra = base_distances(sites, lattice)
    a, b = lattice[:, 0], lattice[:, 1]
    gamma = ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).detach().acos()
    angles = torch.stack([torch.full_like(gamma, math.pi / 2)] * 2 + [gamma], dim=1)
    parts = [
        sites, 2 * sites - 1, sites @ lattice[:, None] / TEN, inter / TEN, intra / TEN, features,
        coded(lengths), torch.linalg.det(lattice)[:, None] / TEN**3, angles / math.pi,
    ]  # fmt: skip
    numbers = torch.cat([part.flatten(1) for part in parts], dim=1)  # (n, 175)
    seen = functional.pad(numbers, (0, math.prod(PICTURE) - numbers.shape[1]))
    sums = (radius[:, ONE] + radius[:, TWO])[:, :N_ROWS, None].expand_as(inter)
    of_element = 2 * radius[:, None].expand_as(intra)
    return seen.unflatten(1, PICTURE), (inter, sums), (intra, of_element)
