"""Coordinate matrices of Mg-Mn-O and the crystals that they stand for: other axes, rows, cells.

Source: Kim et al., ACS Cent. Sci. 6 (2020) 1412, and its code
kaist-amsg/Composition-Conditioned-Crystal-GAN at commit 35cf6d0 (data augmentation, supercells).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..crystals.geometry import reduce_lattice
from ..descriptors.base import SMALLEST_VOLUME
from ..descriptors.coordinate_matrix import (
    ANGLE_MAX,
    CELL_ROWS,
    LENGTH_MAX,
    CoordinateMatrix,
    lattice_of,
    squeeze,
    unsqueeze,
)
from .periodic import ALONG, SHIFTS, nearest

DESCRIPTOR = CoordinateMatrix()
NUMBERS, SLOTS = DESCRIPTOR.numbers, DESCRIPTOR.slots  # Mg, Mn, O: 8, 8 and 12 rows
N_ATOMS = sum(SLOTS)
AXES = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1], [1, 0, 2], [0, 2, 1], [2, 1, 0]])


def n_atoms(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 28) bool, which rows of (n, 30, 3) hold an atom, and (n, 3) atoms of each element."""
    present = matrix[:, CELL_ROWS:].sum(2) > 0
    counts = [part.sum(1) for part in present.split(SLOTS, dim=1)]
    return present, torch.stack(counts, dim=1)


def neighbours(matrix: Tensor, *, reduced: bool = True) -> Tensor:
    """(n, 28, 15) how near the neighbours of each row of (n, 30, 3) are, 0 at 6 Å and beyond.

    Five of each element; zeros for rows without an atom.

    Args:
        matrix: (n, 30, 3).
        reduced: look into the 27 cells around the reduced cell and four more along its shortest
            edge; else into 27 cells as they come, which misses neighbours in skewed and in thin
            cells.
    """
    present, _ = n_atoms(matrix)
    lattice, closes = lattice_of(matrix[:, 0] * LENGTH_MAX, matrix[:, 1] * ANGLE_MAX)
    frac, shifts = unsqueeze(matrix[:, CELL_ROWS:]), SHIFTS
    if reduced:
        lattice, frac = in_reduced(lattice, frac, closes)
        shifts = torch.cat([SHIFTS, ALONG])
    kind = torch.arange(len(SLOTS)).repeat_interleave(torch.tensor(SLOTS)).to(matrix.device)
    near = nearest(lattice, frac, present, kind, shifts=shifts)
    how = near.nearness * present[:, near.used, None]
    return how.new_zeros(len(how), N_ATOMS, how.shape[2]).index_copy(1, near.used, how)


def in_reduced(lattice: Tensor, frac: Tensor, closes: Tensor) -> tuple[Tensor, Tensor]:
    """The same crystals in reduced cells, their shortest edge first, with gradients.

    Of (n, 3, 3) and (n, rows, 3); where (n,) says that the angles make no cell, and where there is
    no volume, as they came.
    """
    volume = lattice.detach().det()
    whole = closes & (volume > SMALLEST_VOLUME) & (volume < torch.inf)
    one = torch.eye(3).to(lattice)
    _, change = reduce_lattice(torch.where(whole[:, None, None], lattice.detach(), one))
    return change @ lattice, frac @ torch.linalg.inv(change.double()).round().to(frac)


def augmented(matrix: Tensor, copies: int, *, skip_populous: bool, rng: torch.Generator) -> Tensor:
    """Matrices of the same crystals with other axes, origins and orders of rows.

    Args:
        matrix: (n, 30, 3).
        copies: how many of each composition.
        skip_populous: leave out compositions of at least so many crystals, as published.
        rng: draws them.

    Returns:
        (compositions x copies, 30, 3).
    """
    _, counts = n_atoms(matrix)
    _, kind, size = torch.unique(counts, dim=0, return_inverse=True, return_counts=True)
    rows = []
    for k, n in enumerate(size.tolist()):
        if n >= copies and skip_populous:
            continue
        mine = (kind == k).nonzero()[:, 0]
        rows.append(mine[torch.randperm(n, generator=rng)].repeat(-(-copies // n))[:copies])
    return moved(matrix[torch.cat(rows)], rng)


def moved(matrix: Tensor, rng: torch.Generator) -> Tensor:
    """(n, 30, 3) with random axes, a random origin, and rows in random order within an element."""
    n = len(matrix)
    axes = torch.randint(len(AXES), (n,), generator=rng)
    matrix = matrix.gather(2, AXES[axes][:, None].expand(-1, matrix.shape[1], -1))
    cell, rows = matrix[:, :CELL_ROWS], matrix[:, CELL_ROWS:]
    # an exchange of two axes makes a mirror image: an inversion takes it back
    hand = torch.where(axes < 3, 1.0, -1.0)[:, None, None]
    frac = (hand * unsqueeze(rows) + torch.rand(n, 1, 3, generator=rng)) % 1.0
    rows = torch.where(rows.sum(2, keepdim=True) > 0, squeeze(frac), rows)
    parts = []
    for part in rows.split(SLOTS, dim=1):
        order = torch.rand(part.shape[:2], generator=rng).argsort(1)
        parts.append(part.gather(1, order[:, :, None].expand(-1, -1, 3)))
    return torch.cat([cell, *parts], dim=1)


def doubled(matrix: Tensor, *, right: bool) -> Tensor:
    """Cells doubled along each axis, of all (n, 30, 3) that fit with at most half of the rows.

    The published script writes the atoms of the doubled cell image after image, and cuts the
    list as if it were element after element, so that the elements are mixed up; ``right`` keeps
    them.
    """
    parts = matrix[:, CELL_ROWS:].split(SLOTS, dim=1)
    half = [(part.sum(2) > 0).sum(1) <= most // 2 for part, most in zip(parts, SLOTS, strict=True)]
    longest = matrix[:, 0].amax(1) <= 0.5
    out = [
        _double(one, axis, right)
        for one in matrix[torch.stack([*half, longest]).all(0)]
        for axis in range(3)
    ]
    return torch.stack(out) if out else matrix[:0]


def _double(one: Tensor, axis: int, right: bool) -> Tensor:
    """(30, 3) of one cell doubled along an axis."""
    cell = one[:CELL_ROWS].clone()
    cell[0, axis] *= 2
    step = torch.eye(3)[axis]
    images: list[list[Tensor]] = []
    for part in one[CELL_ROWS:].split(SLOTS):
        frac = unsqueeze(part[part.sum(1) > 0])
        frac = frac / (1 + step)
        images.append([squeeze(frac), squeeze(frac + step / 2)])
    by_element = [torch.cat(pair) for pair in images]
    if not right:  # Mg, Mn, O of one image, then of the other, cut where the elements should end
        mixed = torch.cat([image for pair in zip(*images, strict=True) for image in pair])
        by_element = list(mixed.split([len(part) for part in by_element]))
    rows = [
        functional.pad(part, (0, 0, 0, most - len(part)))
        for part, most in zip(by_element, SLOTS, strict=True)
    ]
    return torch.cat([cell, *rows])
