"""CrystalGAN's descriptor: one block for the cell and one for the atoms of each element.

Four blocks of 18 rows x 3: the lattice vectors, the hydrogen atoms, the first metal, the second
metal. All are Cartesian, in Å, and nothing is scaled; rows that are not needed are zeros. A hydride
of one metal leaves the block of the other empty, which is what the network is to fill.

Zeros have two meanings here: no atom, and an atom at the origin. The published decoding cuts a
block before the first two rows that are equal, so it loses the atom at the origin where it is the
last of its block, and adds one where exactly one row is left over. The rule ``apart`` writes an
atom near the origin at another corner of the cell, where it is the same atom: short rows can then
only be padding.

Source: Nouira, Sokolovska & Crivello, arXiv 1810.11203 (2018), and its code,
asmanouira/CrystalGAN at commit 6b98615.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch, elements
from ..crystals.samples import Samples, assembled
from ..runtime import InputError, lookup, whole
from . import _slots
from .base import NOT_FINITE, mark, mark_cells, mark_overlaps

RULES = ("published", "apart")
ROWS = 18
SHORT = 0.5  # Å; by the rule ``apart`` shorter rows are padding


@dataclass(frozen=True)
class HydrideBlocks(_slots.SlotMatrix):
    """Encode crystals of hydrogen and two metals as (4, 18, 3) tensors, and decode them.

    Decoding fails where there are no three lattice vectors, a flat cell, no hydrogen, no metal, or
    overlapping atoms. One metal may be missing, as it is in the training data.

    Attributes:
        numbers: atomic numbers of the blocks after the cell's: hydrogen, metal, metal.
        rows: rows of each block.
        rule: ``published`` or ``apart``; see the top of the module.
    """

    numbers: tuple[int, ...] = (1, 46, 28)
    rows: int = ROWS
    rule: str = "apart"
    note = "; blocks that differ in length are read by `read`"

    def __post_init__(self) -> None:
        lookup("rule of padding", self.rule, RULES)
        whole("rows", self.rows, least=3)  # of the three lattice vectors
        _slots.check_slots(self.numbers, self.slots)
        if len(self.numbers) < 2:
            raise InputError(f"numbers={self.numbers}: give hydrogen and at least one metal")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(blocks, rows, 3)."""
        return (1 + len(self.numbers), self.rows, 3)

    @property
    def slots(self) -> tuple[int, ...]:
        """How many rows each element has."""
        return (self.rows,) * len(self.numbers)

    # ---- the authors' files

    def read(self, cells: Iterable[Any]) -> Samples:
        """Crystals from blocks of their own length, as the authors' files hold them.

        A cell is a list of blocks in Å: three lattice vectors, then (k, 3) atoms of each element in
        the order of ``numbers``. A block ends where two rows are equal, which is at the zeros of
        padding; one row of zeros is an atom at the origin. So nothing is lost here, as it is once
        all blocks are padded.

        Returns:
            As many as there are cells, with a reason for each that is no crystal.

        Raises:
            InputError: no cell.
        """
        made = assembled([self._one_cell(cell) for cell in cells])
        reasons = list(made.reasons)
        self._mark_missing(made.crystals.counts()[:, list(self.numbers)], reasons)
        mark_overlaps(reasons, made.crystals)
        return Samples.from_reasons(made.crystals, reasons)

    def _one_cell(self, cell: Any) -> CrystalBatch | str:
        """One crystal, or why it is none."""
        try:
            blocks = [np.array(block, dtype=np.float64) for block in cell]
        except (TypeError, ValueError) as error:
            return f"a block is no array of numbers ({error})"
        blocks = [b.reshape(-1, 3) if b.size in (0, 3) else b for b in blocks]
        shapes = [b.shape for b in blocks]
        if len(blocks) != self.shape[0] or any(b.ndim != 2 or b.shape[1] != 3 for b in blocks):
            names = ", ".join(elements.SYMBOLS[z] for z in self.numbers)
            return f"blocks of shapes {shapes}: expected (k, 3) of the cell, {names}, in this order"
        if not all(np.isfinite(b).all() for b in blocks):
            return NOT_FINITE
        lattice, *atoms = (b[: _until_padding(b)] for b in blocks)
        if len(lattice) != 3:
            return f"the first block has {len(lattice)} lattice vectors instead of 3"
        reasons, vectors = [""], torch.as_tensor(lattice)[None]
        mark_cells(reasons, vectors)
        sizes = [len(each) for each in atoms]
        if reasons[0] or sum(sizes) == 0:
            return reasons[0] or "no row holds an atom"
        frac = torch.as_tensor(np.concatenate(atoms)) @ torch.linalg.inv(vectors[0])
        return CrystalBatch.from_ragged(vectors, frac, np.repeat(self.numbers, sizes), [sum(sizes)])

    # ---- crystal -> tensor

    def _mark_misfits(self, batch: CrystalBatch, reasons: list[str]) -> None:
        super()._mark_misfits(batch, reasons)
        self._mark_missing(batch.counts()[:, list(self.numbers)], reasons)

    def _mark_missing(self, counts: Tensor, reasons: list[str]) -> None:
        """Write which of (n, elements) atoms are no hydride: padding may hide an atom of it."""
        first, *metals = (elements.SYMBOLS[z] for z in self.numbers)
        text = "no atom of {}: its block is empty, which an atom at the origin leaves too; write "
        text += "it at another corner of the cell, as rule='apart' does"
        mark(reasons, counts[:, 1:].any(1), lambda _: text.format(" or ".join(metals)))
        mark(reasons, counts[:, 0] > 0, lambda _: text.format(first))

    def _write(self, batch: CrystalBatch) -> Tensor:
        cart = batch.cart if self.rule == "published" else off_origin(batch.lattice, batch.cart)
        sites = _slots.fill(batch, cart, self.numbers, self.slots)
        blocks = torch.zeros(len(batch), *self.shape, dtype=torch.float64)
        blocks[:, 0, :3] = batch.lattice
        blocks[:, 1:] = sites.view(-1, len(self.numbers), self.rows, 3)
        return blocks

    # ---- tensor -> crystal

    def _decode(self, rows: Tensor) -> Samples:
        tensor, reasons = rows.cpu().double(), [""] * len(rows)
        kept = self.rows_kept(tensor)  # (batch, blocks, rows)
        vectors = kept[:, 0].sum(1)
        text = "the first block has {} lattice vectors instead of 3"
        mark(reasons, vectors == 3, lambda i: text.format(int(vectors[i])))
        mark_cells(reasons, tensor[:, 0, :3])
        bad = torch.tensor([reason != "" for reason in reasons])[:, None, None]
        lattice = torch.where(bad, torch.eye(3, dtype=torch.float64), tensor[:, 0, :3])
        frac = tensor[:, 1:].flatten(1, 2) @ torch.linalg.inv(lattice)  # (batch, sites, 3)
        row_numbers = torch.tensor(self.numbers).repeat_interleave(self.rows)
        made = _slots.build(lattice, frac, kept[:, 1:].flatten(1), row_numbers, reasons)
        reasons = list(made.reasons)
        self._mark_missing(kept[:, 1:].sum(2), reasons)
        return Samples.from_reasons(made.crystals, reasons)

    def rows_kept(self, tensor: Tensor) -> Tensor:
        """(batch, blocks, rows) bool: which rows are read as vectors, and not as padding.

        Padding ends a block, so zeros before an atom are an atom at the origin.
        """
        if self.rule == "apart":
            long = tensor.norm(dim=3) >= SHORT
            before = long.flip(2).cumsum(2).flip(2) > 0
            before[:, 0] = False  # no lattice vector is zero
            return long | (before & (tensor == 0).all(3))
        equal = (tensor[:, :, 1:] == tensor[:, :, :-1]).all(3)  # (batch, blocks, rows - 1)
        last = torch.ones_like(equal[:, :, :1], dtype=torch.bool)
        first = torch.cat([equal, last], dim=2).long().argmax(2)  # first of two equal rows
        length = torch.where(equal.any(2), first, self.rows)
        return torch.arange(self.rows) < length[:, :, None]


def _until_padding(block: np.ndarray) -> int:
    """How many rows of (k, 3) come before two that are equal."""
    equal = (block[1:] == block[:-1]).all(1)
    return int(equal.argmax()) if equal.any() else len(block)


def off_origin(lattice: Tensor, cart: Tensor) -> Tensor:
    """(batch, sites, 3) Cartesian coordinates, Å, none of an atom within 0.5 Å of the origin.

    An atom nearer than 1 Å is written at the corner of the cell (batch, 3, 3) that is farthest
    from the origin.
    """
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3))).to(lattice)
    corner = corners @ lattice  # (batch, 8, 3)
    farthest = corner.norm(dim=2).argmax(1)
    shift = corner[torch.arange(len(corner)), farthest]  # (batch, 3)
    near = cart.norm(dim=2, keepdim=True) < 2 * SHORT
    return torch.where(near, cart + shift[:, None], cart)
