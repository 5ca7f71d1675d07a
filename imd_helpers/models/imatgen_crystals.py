"""What iMatGen asks of crystals and grids: variations, errors, what came back, the real oxides."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import datasets
from ..crystals import CrystalBatch
from ..crystals.samples import Samples
from ..descriptors.coordinate_matrix import cell_parameters
from ..descriptors.voxel_grid import CUBE, VoxelGrid, largest_site_error
from .imatgen_networks import cell_of

TOLERANCES = (0.1, 2.0, 0.2)  # Å of an edge, degrees of an angle, Å of a site; as published
STRAIN, RATTLE = 0.03, 0.1  # of a varied crystal: of each number of the strain; Å of each atom


def answers() -> CrystalBatch:
    """The 28 real oxides of vanadium, which no training sees: are they found again?"""
    return datasets.load("oqmd_icsd").select(elements=["V", "O"], nelements=2).crystals


def cell_grids(voxels: VoxelGrid, numbers: Tensor) -> Tensor:
    """(batch, points^3) grids of cells from six numbers each; empty where there is no cell."""
    lattice = cell_of(numbers, voxels.max_edge)
    no_cell = lattice.isnan().flatten(1).any(1)[:, None, None]
    grids = voxels.cell_grids(torch.where(no_cell, CUBE.to(lattice.device), lattice))
    return grids.masked_fill(no_cell[..., None], 0.0)


def relative(made: Tensor, wanted: Tensor) -> Tensor:
    """Squared error, 1 if nothing is drawn."""
    return (made - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)


def varied(crystals: CrystalBatch) -> CrystalBatch:
    """The same crystals with another origin, a little strained, and each atom a little moved."""
    n, device = len(crystals), crystals.frac.device
    strain = STRAIN * torch.randn(n, 3, 3, dtype=torch.float64)
    lattice = crystals.lattice @ (torch.eye(3, dtype=torch.float64) + strain).to(device)
    steps = RATTLE * torch.randn(crystals.frac.shape, dtype=torch.float64).to(device)
    origin = torch.rand(n, 1, 3, dtype=torch.float64).to(device)
    frac = (crystals.frac + steps @ torch.linalg.inv(lattice) + origin) % 1.0
    return CrystalBatch(lattice, frac * crystals.mask[..., None], crystals.numbers)


def turned(grids: Tensor) -> Tensor:
    """Periodic grids (batch, 1, n, n, n): another origin, axes in another order, some flipped."""
    shift = torch.randint(grids.shape[-1], (3,)).tolist()
    order = (torch.randperm(3) + 2).tolist()
    flipped = [axis for axis in (2, 3, 4) if torch.rand(()) < 0.5]
    return grids.roll(shift, (2, 3, 4)).permute(0, 1, *order).flip(flipped).contiguous()


def within_tolerances(written: CrystalBatch, back: Samples) -> np.ndarray:
    """(n,) bool: came back within 0.1 Å of each edge, 2° of each angle, 0.2 Å of each site.

    Args:
        written: crystals as the grids hold them, see `VoxelGrid.written`.
        back: what was decoded; what failed did not come back.

    Source: Noh et al. (2019); the tolerances by which 10,079 of 10,981 came back.
    """
    (edges, angles), (edges_back, angles_back) = (
        cell_parameters(each.lattice) for each in (written, back.crystals)
    )
    right = (edges - edges_back).abs().amax(1) <= TOLERANCES[0]
    right &= (angles - angles_back).abs().amax(1) <= TOLERANCES[1]
    near = torch.as_tensor(largest_site_error(written, back) <= TOLERANCES[2])
    return (right.cpu() & near & torch.as_tensor(back.ok)).numpy()
