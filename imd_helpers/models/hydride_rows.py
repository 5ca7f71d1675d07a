"""Blocks of hydrides as whole crystals: where each atom's neighbours are, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..descriptors.hydride_blocks import ROWS, SHORT, off_origin
from .periodic import FAR, Near, nearest

KINDS = ("H", "first metal", "second metal")  # blocks 1, 2, 3; block 0 is the cell
PUBLISHED = (1.8, 3.0)  # Å, the bounds of the paper
PUBLISHED_PAIRS = ((0, 0), (1, 1), (1, 2), (2, 1), (2, 2))  # kinds whose distances it bounds


def is_atom(blocks: Tensor) -> Tensor:
    """(n, 54) bool: which rows of (n, 4, 18, 3) blocks hold an atom; padding is short."""
    return blocks[:, 1:].flatten(1, 2).norm(dim=2) >= SHORT


def in_cell(blocks: Tensor) -> Tensor:
    """(n, 54, 3) fractional coordinates of the rows of (n, 4, 18, 3) blocks."""
    return blocks[:, 1:].flatten(1, 2) @ inverse(blocks[:, 0, :3])


def inverse(lattice: Tensor) -> Tensor:
    """(n, 3, 3) inverse cells; NaN for a flat one, which must not stop the others."""
    found, flat = torch.linalg.inv_ex(lattice)
    return torch.where(flat[:, None, None] > 0, torch.nan, found)


def with_cell(lattice: Tensor, frac: Tensor, present: Tensor) -> Tensor:
    """(n, 4, 18, 3) blocks from cells (n, 3, 3) Å and fractional rows (n, 54, 3).

    No atom lies near the origin, where it would be taken for padding; rows without an atom are
    zeros.
    """
    rows = off_origin(lattice, frac @ lattice)
    rows = torch.where(present[:, :, None], rows, torch.zeros_like(rows))
    cell = functional.pad(lattice, (0, 0, 0, ROWS - 3))
    return torch.cat([cell[:, None], rows.unflatten(1, (-1, ROWS))], dim=1)


def neighbours(blocks: Tensor) -> Near:
    """Where the neighbours of the atoms of (n, 4, 18, 3) blocks are, see `periodic.nearest`."""
    kind = torch.arange(len(KINDS), device=blocks.device).repeat_interleave(ROWS)
    return nearest(blocks[:, 0, :3], in_cell(blocks), is_atom(blocks), kind)


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
