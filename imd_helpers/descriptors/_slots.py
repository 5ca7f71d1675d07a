"""What matrices of coordinates share: rows reserved for the atoms of each element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch, elements
from ..crystals.samples import Samples, in_places
from ..runtime import InputError, whole
from .base import Descriptor, atomic_numbers, mark, mark_cells, mark_overlaps, without


class SlotMatrix(Descriptor):
    """A tensor in which each element has rows for its atoms, in the order of the sites.

    A crystal does not fit when it is disordered, holds an element without rows or more atoms of one
    than there are rows, or has too large or too flat a cell, or overlapping atoms.
    """

    numbers: tuple[int, ...]  # atomic numbers of the elements, in the order of their rows
    slots: tuple[int, ...]  # how many rows each has

    def _mark_misfits(self, batch: CrystalBatch, reasons: list[str]) -> None:
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
        mark_cells(reasons, batch.lattice)
        mark_overlaps(reasons, batch)


def check_slots(numbers: Sequence[int], slots: Sequence[int]) -> None:
    """Raise unless there are different elements, each with at least one row.

    Raises:
        InputError: not so.
    """
    atomic_numbers("numbers", numbers)
    if len(numbers) != len(slots):
        raise InputError(f"numbers={tuple(numbers)}, slots={tuple(slots)}: give one of each")
    for z, room in zip(numbers, slots, strict=True):
        whole(f"rows for {elements.SYMBOLS[z]}", room, least=1)


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
    good = np.zeros(len(reasons), dtype=bool)
    good[without(reasons)] = True
    crystals = None
    if good.any():
        keep = present[good]
        numbers = row_numbers.expand(len(keep), -1)[keep]
        crystals = CrystalBatch.from_ragged(lattice[good], frac[good][keep], numbers, keep.sum(1))
    placed = in_places(crystals, good)
    mark_overlaps(reasons, placed)
    return Samples.from_reasons(placed, reasons)
