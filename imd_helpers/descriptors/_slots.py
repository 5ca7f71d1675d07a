"""What matrices of coordinates share: rows reserved for the atoms of each element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch, elements
from ..crystals.samples import Samples, in_places
from ..runtime import InputError
from .base import (
    Descriptor,
    check_batch,
    finite_rows,
    mark,
    mark_broken,
    mark_overlaps,
    read_crystals,
)

if TYPE_CHECKING:
    from pymatgen.core import Structure

SMALLEST_VOLUME = 1e-3  # Å^3 for each Å^3 of the box of the same edges


class SlotMatrix(Descriptor):
    """A tensor in which each element has rows for its atoms, in the order of the sites.

    Attributes:
        numbers: atomic numbers of the elements, in the order of their rows.
        slots: how many rows each has.
    """

    numbers: tuple[int, ...]
    slots: tuple[int, ...]

    def encode_all(self, crystals: CrystalBatch | Sequence[Structure]) -> Samples:
        """(batch, *shape) float32: crystals that do not fit are zeros, with a reason.

        A crystal fails when it is disordered, holds an element without rows or more atoms of one
        than there are rows, or has too large or too flat a cell, or overlapping atoms.

        Raises:
            InputError: nothing given.
        """
        batch, reasons = read_crystals(crystals)
        self._mark_misfits(batch, reasons)
        good = torch.tensor([reason == "" for reason in reasons])
        tensor = torch.zeros(len(batch), *self.shape, dtype=torch.float64)
        if good.any():
            tensor[good] = self._write(batch[good])
        return Samples.from_reasons(tensor.float(), reasons)

    def _mark_misfits(self, batch: CrystalBatch, reasons: list[str]) -> None:
        """Write why crystals do not fit the rows."""
        room = np.zeros(elements.N_COLUMNS, dtype=np.int64)
        room[list(self.numbers)] = list(self.slots)
        counts = batch.counts().numpy()
        listed = " ".join(elements.SYMBOLS[k] for k in self.numbers)
        for i, z in np.argwhere(counts > room):  # the first element is told
            symbol = elements.SYMBOLS[z]
            reasons[i] = reasons[i] or (
                f"{counts[i, z]} {symbol} atoms: the matrix has {room[z]} rows for {symbol}"
                if room[z] > 0
                else f"{symbol} has no rows: the matrix is made for {listed}"
            )
        box = batch.lattice.norm(dim=2).prod(1)  # (batch,) Å^3
        flat = torch.linalg.det(batch.lattice).abs() <= SMALLEST_VOLUME * box
        text = "the cell is flat: its three vectors must not lie in one plane"
        mark(reasons, ~flat, lambda _: text)
        mark_broken(reasons, batch)
        mark_overlaps(reasons, batch)

    def _write(self, crystals: CrystalBatch) -> Tensor:
        """(batch, *shape) of crystals that fit."""
        raise NotImplementedError

    def _begin(self, tensor: Tensor) -> tuple[Tensor, list[str]]:
        """A finite (batch, *shape) float64 on the CPU to decode, and which rows were not."""
        check_batch(tensor, self.shape)
        tensor = tensor.detach().cpu().double()
        reasons = [""] * len(tensor)
        mark(reasons, finite_rows(tensor), lambda _: "the tensor holds NaN or infinity")
        return torch.nan_to_num(tensor), reasons


def check_slots(numbers: Sequence[int], slots: Sequence[int]) -> None:
    """Raise unless there are different elements, each with at least one row.

    Raises:
        InputError: not so.
    """
    good = len(numbers) == len(slots) > 0 and len(set(numbers)) == len(numbers)
    if not good or min(slots) < 1 or not all(1 <= z < elements.N_COLUMNS for z in numbers):
        raise InputError(
            f"elements {tuple(numbers)} with {tuple(slots)} rows: give different atomic numbers "
            "from 1 to 118, and at least one row for each"
        )


def fill(
    crystals: CrystalBatch, values: Tensor, numbers: Sequence[int], slots: Sequence[int]
) -> Tensor:
    """Values (n, sites, 3) in the rows of each site's element, in the order of the sites.

    Returns:
        (n, sum of slots, 3), zeros in the rows that are left.
    """
    out = torch.zeros(len(crystals), sum(slots), 3, dtype=values.dtype)
    start = 0
    for z, room in zip(numbers, slots, strict=True):
        mine = crystals.numbers == z  # (n, sites)
        place = mine.long().cumsum(1) - 1
        row, site = mine.nonzero(as_tuple=True)
        out[row, start + place[row, site]] = values[row, site]
        start += room
    return out


def build(
    lattice: Tensor, frac: Tensor, present: Tensor, row_numbers: Tensor, reasons: list[str]
) -> Samples:
    """Crystals from cells and rows of coordinates; those with a reason keep their place.

    Lattices are (n, 3, 3) Å, coordinates (n, rows, 3), wrapped here; ``present`` (n, rows) says
    where there is an atom, of the ``row_numbers`` (rows,). The n reasons are filled further.
    """
    mark(reasons, present.any(1), lambda _: "no row holds an atom")
    good = torch.tensor([reason == "" for reason in reasons])
    crystals = None
    if good.any():
        keep = present[good]
        numbers = row_numbers.expand(len(keep), -1)[keep]
        crystals = CrystalBatch.from_ragged(lattice[good], frac[good][keep], numbers, keep.sum(1))
    placed = in_places(crystals, good.numpy())
    mark_overlaps(reasons, placed)
    return Samples.from_reasons(placed, reasons)
