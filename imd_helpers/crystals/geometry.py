"""Periodic geometry of whole batches: distances with own images, volume, density.

Two roads to the same distances: torch, differentiable and on any device, for losses; and compiled
loops on the CPU for judging, an order of magnitude faster.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..runtime import InputError
from . import elements

if TYPE_CHECKING:
    from .batch import CrystalBatch

AMU_PER_A3_IN_G_PER_CM3 = 1.66053906660  # CODATA 2018: 1 u / Å^3 in g/cm^3


def volume(crystals: CrystalBatch) -> Tensor:
    """(batch,) cell volumes, Å^3."""
    return torch.linalg.det(crystals.lattice).abs()


def mass(crystals: CrystalBatch) -> Tensor:
    """(batch,) mass of the cell's atoms, u; NaN where an element has no mass."""
    per_element = elements.column("mass").copy()
    per_element[0] = 0.0
    masses = torch.as_tensor(per_element, device=crystals.numbers.device)
    return masses[elements.checked(crystals.numbers)].sum(1)


def density(crystals: CrystalBatch) -> Tensor:
    """(batch,) mass densities, g/cm^3."""
    return mass(crystals) / volume(crystals) * AMU_PER_A3_IN_G_PER_CM3


def reduce_lattice(lattice: Tensor) -> tuple[Tensor, Tensor]:
    """Minkowski-reduce cells, so that the nearest image is among the 27 neighbouring cells.

    Args:
        lattice: (batch, 3, 3) Å; gradients pass through.

    Returns:
        The reduced cells (batch, 3, 3) and the integer change of basis (batch, 3, 3) with
        ``reduced = change @ lattice``.

    Raises:
        InputError: a cell without volume.

    Source: Nguyen and Stehle, ACM Trans. Algorithms 5 (2009) 46 (greedy reduction, dimension 3).
    """
    from ..kernels.crystals import minkowski_batch

    plain = lattice.detach().cpu().double().numpy()
    _, change = minkowski_batch(np.ascontiguousarray(plain))
    change = torch.as_tensor(change, device=lattice.device, dtype=lattice.dtype)
    return change @ lattice, change


def min_image_distances(crystals: CrystalBatch) -> Tensor:
    """Shortest distance of every pair of sites over all periodic images, with gradients.

    The diagonal holds the distance of an atom to its own nearest image. Right for skewed cells.

    Returns:
        (batch, sites, sites) Å; infinity where either site is padding.
    """
    from .batch import check_shapes

    check_shapes(crystals)
    reduced, change = reduce_lattice(crystals.lattice)
    frac = crystals.frac @ torch.linalg.inv(change).round()  # (batch, sites, 3)
    delta = frac[:, None, :, :] - frac[:, :, None, :]  # (batch, sites, sites, 3)
    delta = (delta - delta.round()) @ reduced[:, None]  # Cartesian
    sites = delta.shape[1]
    diagonal = torch.eye(sites, dtype=torch.bool, device=delta.device)
    best = delta.square().sum(-1).masked_fill(diagonal, torch.inf)
    for shift in itertools.product((-1.0, 0.0, 1.0), repeat=3):
        if any(shift):
            vector = torch.tensor(shift, dtype=delta.dtype, device=delta.device) @ reduced
            image = (delta + vector[:, None, None, :]).square().sum(-1)
            best = torch.minimum(best, image)
    pairs = crystals.mask[:, :, None] & crystals.mask[:, None, :]
    distances = best.clamp_min(1e-12).sqrt()  # clamp: the square root has no slope at zero
    return torch.where(pairs, distances, torch.inf)


def closest_contact(
    crystals: CrystalBatch, *, scale: np.ndarray | None = None, own_images: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Closest contact of each crystal over all periodic images, by compiled loops.

    Args:
        crystals: on any device; computed on the CPU.
        scale: (119,) length of each element, Å, index = atomic number. With it the result is the
            smallest ``d_ij / (s_i + s_j)``; without it the smallest distance in Å.
        own_images: count the distance of an atom to its own images too.

    Returns:
        (batch,) the closest contact, infinity where there is none, and (batch, 2) the two sites
        (equal for an own image).

    Raises:
        InputError: a cell without volume, or a scale that is not positive.
    """
    from ..kernels.crystals import closest_batch

    if scale is None:
        scale = np.full(elements.N_COLUMNS, 0.5)
    elif scale.shape != (elements.N_COLUMNS,) or not np.all(scale[1:] > 0):
        raise InputError(
            f"scale has shape {scale.shape} with minimum {np.min(scale[1:]):.3g}: give one "
            f"positive length for each atomic number, shape ({elements.N_COLUMNS},)"
        )
    return closest_batch(
        np.ascontiguousarray(crystals.lattice.detach().cpu().numpy(), dtype=np.float64),
        np.ascontiguousarray(crystals.frac.detach().cpu().numpy(), dtype=np.float64),
        np.ascontiguousarray(crystals.numbers.cpu().numpy()),
        np.ascontiguousarray(scale, dtype=np.float64),
        own_images,
    )
