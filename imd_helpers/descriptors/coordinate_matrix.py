"""The matrix of the composition-conditioned crystal GAN: a cell and its atoms, row by row.

Row 0 holds the edges a, b, c divided by 30 Å, row 1 the angles divided by 180°. Every further row
belongs to one element and holds the fractional coordinates f of one of its atoms, stored as
``(10 f + 2.5) / 15``, which lies between 1/6 and 5/6, so that a row of zeros can only mean "no
atom". For Mg-Mn-O there are 8, 8 and 12 rows: a 30 x 3 matrix.

The order of rows within an element, the origin and the choice of cell are arbitrary: one
crystal has many matrices.

Source: Kim et al., ACS Cent. Sci. 6 (2020) 1412, and its code,
kaist-amsg/Composition-Conditioned-Crystal-GAN at commit 35cf6d0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch, elements
from ..crystals.batch import wrap
from ..crystals.samples import Samples
from ..runtime import number
from . import _slots
from .base import SMALLEST_VOLUME, mark, mark_long

LENGTH_MAX = 30.0  # Å
ANGLE_MAX = 180.0  # degrees
CELL_ROWS = 2
PRESENT = 0.4  # an atom's row has a larger sum, as published; `encode` writes at least 0.5
SHORTEST = 0.5  # Å, of an edge


@dataclass(frozen=True)
class CoordinateMatrix(_slots.SlotMatrix):
    """Encode crystals of a few elements as (2 + slots, 3) matrices, and decode them.

    Decoding finds an atom in each row whose sum is above 0.4, and fails where there is none, an
    edge is below 0.5 Å, the angles make no cell, or atoms overlap. An element may be missing: the
    published code then puts an atom of it at the origin, which is not done here.

    Attributes:
        numbers: atomic numbers of the elements, in the order of their rows.
        slots: how many rows each has.
        length_max: longest edge that fits, Å; lengths are divided by it.
    """

    numbers: tuple[int, ...] = (12, 25, 8)
    slots: tuple[int, ...] = (8, 8, 12)
    length_max: float = LENGTH_MAX

    def __post_init__(self) -> None:
        _slots.check_slots(self.numbers, self.slots)
        number("length_max", self.length_max, above=0, why="such as 30 Å")

    @classmethod
    def fit(cls, crystals: CrystalBatch) -> CoordinateMatrix:
        """The smallest matrix that holds all of these crystals, whatever their chemical system.

        Elements are in the order of electronegativity.
        """
        most = crystals.counts().amax(0).numpy()  # (119,)
        chosen = np.flatnonzero(most)
        chosen = tuple(chosen[elements.by_electronegativity()[chosen].argsort()].tolist())
        longest = float(crystals.lattice.norm(dim=2).max())
        return cls(chosen, tuple(int(most[z]) for z in chosen), max(LENGTH_MAX, longest))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, 3)."""
        return (CELL_ROWS + sum(self.slots), 3)

    @property
    def row_numbers(self) -> Tensor:
        """(rows - 2,) atomic number that each row below the cell belongs to."""
        return torch.repeat_interleave(torch.tensor(self.numbers), torch.tensor(self.slots))

    # ---- crystal -> tensor

    def _mark_misfits(self, batch: CrystalBatch, reasons: list[str]) -> None:
        super()._mark_misfits(batch, reasons)
        longest = batch.lattice.norm(dim=2).amax(1)
        text = f"an edge of {{:.1f}} Å: the matrix holds {self.length_max:g} Å"
        mark(reasons, longest <= self.length_max, lambda i: text.format(longest[i]))

    def _write(self, crystals: CrystalBatch) -> Tensor:
        lengths, angles = cell_parameters(crystals.lattice)
        cell = torch.stack([lengths / self.length_max, angles / ANGLE_MAX], dim=1)
        frac = squeeze(right_handed(crystals))
        sites = _slots.fill(crystals, frac, self.numbers, self.slots)
        return torch.cat([cell, sites], dim=1)  # (batch, rows, 3)

    # ---- tensor -> crystal

    def _decode(self, rows: Tensor) -> Samples:
        tensor, reasons = rows.cpu().double(), [""] * len(rows)
        lengths, angles = tensor[:, 0] * self.length_max, tensor[:, 1] * ANGLE_MAX
        shortest = lengths.amin(1)
        edge = f"an edge of {{:.2f}} Å: at least {SHORTEST} Å makes a cell"
        mark(reasons, shortest >= SHORTEST, lambda i: edge.format(shortest[i]))
        mark_long(reasons, lengths)
        lattice, closes = lattice_of(lengths, angles)
        text = "angles of {:.0f}°, {:.0f}° and {:.0f}° make no cell"
        mark(reasons, closes, lambda i: text.format(*angles[i].tolist()))
        sites = tensor[:, CELL_ROWS:]
        present = sites.sum(2) > PRESENT
        return _slots.build(lattice, unsqueeze(sites), present, self.row_numbers, reasons)


def squeeze(frac: Tensor) -> Tensor:
    """Fractional coordinates of [0, 1) to [1/6, 5/6), so that zeros are free to mean "no atom".

    Source: Kim et al. (2020): a box of 10 in the middle of one of 15.
    """
    return (10.0 * frac + 2.5) / 15.0


def unsqueeze(rows: Tensor) -> Tensor:
    """The inverse of `squeeze`."""
    return (15.0 * rows - 2.5) / 10.0


def right_handed(crystals: CrystalBatch) -> Tensor:
    """(batch, sites, 3) coordinates with respect to -a, -b, -c where a, b, c are left-handed.

    Lengths and angles do not tell hands apart, so that the coordinates must: without this, a
    crystal written in a left-handed cell would come back as its mirror image.
    """
    left = torch.linalg.det(crystals.lattice) < 0
    return torch.where(left[:, None, None], wrap(-crystals.frac), crystals.frac)


def cell_parameters(lattice: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, 3) edges, Å, and (batch, 3) angles alpha, beta, gamma, degrees, of (batch, 3, 3)."""
    lengths = lattice.norm(dim=2)
    unit = lattice / lengths.clamp_min(1e-12)[:, :, None]
    cosines = unit @ unit.mT  # (batch, 3, 3)
    chosen = torch.stack([cosines[:, 1, 2], cosines[:, 0, 2], cosines[:, 0, 1]], dim=1)
    return lengths, torch.rad2deg(torch.acos(chosen.clamp(-1.0, 1.0)))


def lattice_of(lengths: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Right-handed cells from (batch, 3) edges, Å, and angles, degrees: a along x, b in xy.

    Returns:
        (batch, 3, 3) Å, of use only where the angles make a cell, and (batch,) bool: do they?
    """
    alpha, beta, gamma = torch.cos(torch.deg2rad(angles)).unbind(1)
    sine = torch.sin(torch.deg2rad(angles[:, 2])).clamp_min(1e-6)
    side = (alpha - beta * gamma) / sine
    square = 1.0 - beta**2 - side**2
    height = square.clamp_min(1e-12).sqrt()  # a slope at zero would be infinite
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    rows = [one, zero, zero, gamma, sine, zero, beta, side, height]
    unit = torch.stack(rows, dim=1).view(-1, 3, 3)
    within = ((angles > 0) & (angles < ANGLE_MAX)).all(1)
    closes = within & (sine * height > SMALLEST_VOLUME)
    return lengths[:, :, None] * unit, closes
