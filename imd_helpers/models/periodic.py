"""Nearest neighbours in crystals of three kinds of atoms, as networks see them: with gradients."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

N_KINDS = 3
NEAREST = 5  # neighbours of each kind that a network sees
FAR = 6.0  # Å; a neighbour beyond counts as here
SHIFTS = torch.tensor(list(itertools.product((0.0, -1.0, 1.0), repeat=3)))  # itself first
ALONG = torch.tensor([[k, 0.0, 0.0] for k in (-3.0, -2.0, 2.0, 3.0)])  # of a short first edge


class Near(NamedTuple):
    """The nearest neighbours of each kind of the atoms of n crystals."""

    distance: Tensor  # (n, atoms, 3, 5) Å, at most 6, which also says that there is none
    vector: Tensor  # (n, atoms, 3, 5, 3) Å, from the atom to the neighbour
    used: Tensor  # (atoms,) which of the rows these are: all that any of the crystals uses
    kind: Tensor  # (atoms,) 0, 1, 2

    @property
    def nearness(self) -> Tensor:
        """(n, atoms, 15) 1 where a neighbour is on the atom, 0 where it is 6 Å away or lacks."""
        return (1 - self.distance / FAR).flatten(2)


def nearest(
    lattice: Tensor, frac: Tensor, present: Tensor, kind: Tensor, *, shifts: Tensor = SHIFTS
) -> Near:
    """Where the nearest neighbours of atoms are, over 27 cells, with gradients.

    A row without an atom has no neighbours, and is none. Over 27 cells the nearest of a kind is
    right in a reduced cell; the others may lie further along an edge below 3 Å.

    Args:
        lattice: (n, 3, 3) Å.
        frac: (n, rows, 3).
        present: (n, rows) bool, which rows hold an atom.
        kind: (rows,) 0, 1 or 2.
        shifts: (cells, 3) the cells that are looked into, itself first.
    """
    used = present.any(0).nonzero()[:, 0]
    frac, kind = frac[:, used], kind[used]
    with torch.no_grad():  # who is near; the distances below have gradients
        shifts = shifts.to(frac)
        partner, shift, missing = _search(lattice, frac, present[:, used], kind, shifts)
    n = len(partner)
    there = frac.gather(1, partner.view(n, -1, 1).expand(-1, -1, 3)).view_as(shift)
    vector = (there - frac[:, :, None, None] + shift).flatten(1, 3)
    vector = (vector @ lattice).view_as(shift)  # one product a crystal, not one a neighbour
    distance = vector.square().sum(-1).clamp(min=1e-4).sqrt().clamp(max=FAR)
    return Near(distance.masked_fill(missing, FAR), vector, used, kind)


def _search(
    lattice: Tensor, frac: Tensor, present: Tensor, kind: Tensor, shifts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Partners (n, atoms, 3, 5), the cells they lie in (n, atoms, 3, 5, 3), and which lack."""
    delta = frac[:, None] - frac[:, :, None]  # (n, atoms, atoms, 3)
    home = -delta.round()
    cart, images = (delta + home).flatten(1, 2) @ lattice, shifts @ lattice  # (n, cells, 3)
    both = (present[:, :, None] & present[:, None, :]).flatten(1)
    apart = cart.square().sum(2).masked_fill(~both, torch.inf)[..., None]  # inf: not a pair
    squared = apart + torch.baddbmm(images.square().sum(2)[:, None], cart, images.mT, alpha=2)
    squared = squared.unflatten(1, delta.shape[1:3])  # (n, atoms, atoms, cells)
    squared[..., 0].diagonal(dim1=1, dim2=2).fill_(torch.inf)
    values, places = [], []
    for k in range(N_KINDS):
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
    kind = functional.one_hot(near.kind, N_KINDS).to(near.distance)
    how = near.nearness
    return torch.cat([kind.expand(len(how), -1, -1), how], dim=2)
