"""Blocks of hydrides as whole crystals: where each atom's neighbours are, with gradients."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..descriptors.hydride_blocks import ROWS, SHORT, off_origin

KINDS = ("H", "first metal", "second metal")  # blocks 1, 2, 3; block 0 is the cell
NEAREST = 5  # neighbours of each kind that a network sees
FAR = 6.0  # Å; a neighbour beyond counts as here
SHIFTS = torch.tensor(list(itertools.product((0.0, -1.0, 1.0), repeat=3)))  # itself first
PUBLISHED = (1.8, 3.0)  # Å, the bounds of the paper
PUBLISHED_PAIRS = ((0, 0), (1, 1), (1, 2), (2, 1), (2, 2))  # kinds whose distances it bounds


def is_atom(blocks: Tensor) -> Tensor:
    """(n, 54) bool: which rows of (n, 4, 18, 3) blocks hold an atom; padding is short."""
    return blocks[:, 1:].flatten(1, 2).norm(dim=2) >= SHORT


def in_cell(blocks: Tensor) -> Tensor:
    """(n, 54, 3) fractional coordinates of the rows of (n, 4, 18, 3) blocks."""
    return blocks[:, 1:].flatten(1, 2) @ torch.linalg.inv(blocks[:, 0, :3])


def with_cell(lattice: Tensor, frac: Tensor, present: Tensor) -> Tensor:
    """(n, 4, 18, 3) blocks from cells (n, 3, 3) Å and fractional rows (n, 54, 3).

    No atom lies near the origin, where it would be taken for padding; rows without an atom are
    zeros.
    """
    rows = off_origin(lattice, frac @ lattice)
    rows = torch.where(present[:, :, None], rows, torch.zeros_like(rows))
    cell = functional.pad(lattice, (0, 0, 0, ROWS - 3))
    return torch.cat([cell[:, None], rows.unflatten(1, (-1, ROWS))], dim=1)


class Near(NamedTuple):
    """The nearest neighbours of each kind of the atoms of n crystals."""

    distance: Tensor  # (n, atoms, 3, 5) Å, at most 6, which also says that there is none
    vector: Tensor  # (n, atoms, 3, 5, 3) Å, from the atom to the neighbour
    used: Tensor  # (atoms,) which of the 54 rows these are: all that any of the crystals uses

    @property
    def kind(self) -> Tensor:
        """(atoms,) 0, 1, 2 as in `KINDS`."""
        return self.used // ROWS


def neighbours(blocks: Tensor) -> Near:
    """Where the neighbours of the atoms of (n, 4, 18, 3) blocks are, over 27 cells.

    A row without an atom has no neighbours, and is none. Right for reduced cells.
    """
    present = is_atom(blocks)
    used = present.any(0).nonzero()[:, 0]
    lattice, frac = blocks[:, 0, :3], in_cell(blocks)[:, used]
    with torch.no_grad():  # who is near; the distances below have gradients
        partner, shift, missing = _search(lattice, frac, present[:, used], used // ROWS)
    n = len(partner)
    there = frac.gather(1, partner.view(n, -1, 1).expand(-1, -1, 3)).view_as(shift)
    vector = (there - frac[:, :, None, None] + shift) @ lattice[:, None, None]
    distance = vector.square().sum(-1).clamp(min=1e-4).sqrt().clamp(max=FAR)
    return Near(distance.masked_fill(missing, FAR), vector, used)


def _search(
    lattice: Tensor, frac: Tensor, present: Tensor, kind: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Partners (n, atoms, 3, 5), the cells they lie in (n, atoms, 3, 5, 3), and which lack."""
    shifts = SHIFTS.to(frac)
    delta = frac[:, None] - frac[:, :, None]  # (n, atoms, atoms, 3)
    home = -delta.round()
    cart, images = (delta + home) @ lattice[:, None], shifts @ lattice  # (n, 27, 3)
    squared = 2 * cart @ images[:, None].mT + images.square().sum(2)[:, None, None]
    squared = squared + cart.square().sum(3, keepdim=True)  # (n, atoms, atoms, 27)
    squared.masked_fill_(~(present[:, :, None] & present[:, None, :])[..., None], torch.inf)
    squared[..., 0].diagonal(dim1=1, dim2=2).fill_(torch.inf)
    values, places = [], []
    for k in range(len(KINDS)):
        columns = (kind == k).nonzero()[:, 0]
        some = squared[:, :, columns].flatten(2)
        lacking = NEAREST - some.shape[2]
        value, place = functional.pad(some, (0, max(lacking, 0)), value=torch.inf).topk(
            NEAREST, dim=2, largest=False
        )
        columns = torch.cat([columns, columns.new_zeros(1)])  # of what is padded
        values.append(value)
        places.append(
            columns[(place // len(shifts)).clamp(max=len(columns) - 1)] * len(shifts)
            + place % len(shifts)
        )
    found = torch.stack(places, dim=2)  # (n, atoms, 3, 5), index of a pair of partner and cell
    partner, image = found // len(shifts), found % len(shifts)
    flat = home.gather(2, partner.flatten(2)[..., None].expand(-1, -1, -1, 3))
    shift = flat.view(*partner.shape, 3) + shifts[image]
    return partner, shift, torch.stack(values, dim=2).isinf()


def features(near: Near) -> Tensor:
    """(n, atoms, 18): the kind of each atom, and how near its neighbours of each kind are."""
    kind = functional.one_hot(near.kind, len(KINDS)).to(near.distance)
    how = (1 - near.distance / FAR).flatten(2)
    return torch.cat([kind.expand(len(how), -1, -1), how], dim=2)


def closest(blocks: Tensor) -> Tensor:
    """(n, 3, 3) shortest distance between atoms of two kinds in each crystal, Å, at most 6."""
    near = neighbours(blocks)
    rows = [near.distance[:, near.kind == k, :, 0] for k in range(len(KINDS))]
    far = near.distance.new_full((len(blocks), 1, len(KINDS)), FAR)
    return torch.stack([torch.cat([row, far], dim=1).amin(1) for row in rows], dim=1)


def limits(first: Tensor, second: Tensor) -> Tensor:
    """(3, 3) shortest distances, Å, in hydrides of either metal; between the metals the mean."""
    low = torch.minimum(closest(first).amin(0), closest(second).amin(0))
    low[1, 2] = low[2, 1] = (low[1, 1] + low[2, 2]) / 2
    return low


def out_of_bounds(blocks: Tensor, shortest: Tensor) -> Tensor:
    """Mean square, Å^2, by which an atom's neighbours are too near, or its nearest too far."""
    near = neighbours(blocks)
    atom = is_atom(blocks)[:, near.used]
    low = shortest[near.kind][None, :, :, None]
    short = (low - near.distance).clamp(min=0).square().sum((2, 3))
    far = (near.distance[..., 0].amin(2) - PUBLISHED[1]).clamp(min=0).square()
    return (short + far)[atom].mean()


def published_squares(blocks: Tensor) -> Tensor:
    """Mean of (d - 1.8)^2 + (3 - d)^2, Å^2, of nearest H-H and metal-metal distances.

    It is smallest at 2.4 Å, and not zero anywhere. Pairs beyond 6 Å are left out.

    Source: step 3 of the published code, where it has no gradient.
    """
    near = neighbours(blocks)
    pairs = [near.distance[:, near.kind == a, b, 0] for a, b in PUBLISHED_PAIRS]
    found = torch.cat([pair.flatten() for pair in pairs])
    found = found[found < FAR]
    low, high = PUBLISHED
    return ((found - low).square() + (high - found).square()).mean()


def keeps_published_bounds(blocks: Tensor) -> Tensor:
    """(n,) bool: the shortest H-H and metal-metal distances lie between 1.8 and 3 Å."""
    found = closest(blocks)
    pairs = torch.stack([found[:, a, b] for a, b in PUBLISHED_PAIRS], dim=1)
    low, high = PUBLISHED
    return ((pairs >= low) & (pairs <= high)).all(1)
