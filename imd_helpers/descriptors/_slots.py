"""What matrices of coordinates share: rows reserved for the atoms of each element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch, elements
from ..crystals.geometry import closest_contact
from ..crystals.samples import Samples, placeholder
from ..runtime import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

SMALLEST_VOLUME = 1e-3  # Å^3 for each Å^3 of the box of the same edges


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


def faults(
    crystals: CrystalBatch, numbers: Sequence[int], slots: Sequence[int], *, closest: float
) -> list[str]:
    """Why each crystal does not fit the rows, ``""`` where it does.

    Args:
        crystals: n crystals.
        numbers: atomic numbers that have rows.
        slots: how many rows each has.
        closest: shortest distance between atoms that counts as real, Å.
    """
    reasons = cell_faults(crystals)
    sound = np.array([reason == "" for reason in reasons])
    if sound.any():
        for i, reason in zip(
            np.flatnonzero(sound), overlaps(crystals[sound], closest), strict=True
        ):
            reasons[i] = reason
    counts = np.zeros((len(crystals), elements.N_COLUMNS), dtype=np.int64)
    mask = (crystals.numbers > 0) & (crystals.numbers < elements.N_COLUMNS)
    row, column = mask.nonzero(as_tuple=True)
    np.add.at(counts, (row.numpy(), crystals.numbers[row, column].numpy()), 1)
    room = np.zeros(elements.N_COLUMNS, dtype=np.int64)
    room[list(numbers)] = list(slots)
    for i, z in np.argwhere(counts > room)[::-1]:  # the first element is told
        symbol = elements.SYMBOLS[z]
        if room[z] == 0:
            listed = " ".join(elements.SYMBOLS[k] for k in numbers)
            reasons[i] = f"{symbol} has no rows: the matrix is made for {listed}"
        else:
            reasons[i] = (
                f"{counts[i, z]} {symbol} atoms: the matrix has {room[z]} rows for {symbol}"
            )
    return reasons


def cell_faults(crystals: CrystalBatch) -> list[str]:
    """Cells and coordinates that are not finite, have no volume, or no atoms."""
    lattice = crystals.lattice
    finite = torch.isfinite(lattice).flatten(1).all(1)
    finite &= torch.isfinite(crystals.frac).flatten(1).all(1)
    safe = torch.where(finite[:, None, None], lattice, torch.zeros_like(lattice))
    box = safe.norm(dim=2).prod(1)  # (batch,)
    flat = torch.linalg.det(safe).abs() <= SMALLEST_VOLUME * box
    mask = crystals.mask
    empty = ~mask.any(1) | (mask[:, 1:] & ~mask[:, :-1]).any(1)
    reasons = []
    for i in range(len(crystals)):
        if not finite[i]:
            reasons.append("NaN or infinity in the cell or the coordinates")
        elif flat[i]:
            reasons.append("the cell is flat: its three vectors must not lie in one plane")
        elif empty[i]:
            reasons.append("no atoms, or padding before an atom")
        else:
            reasons.append("")
    return reasons


def overlaps(crystals: CrystalBatch, closest: float) -> list[str]:
    """Crystals in which atoms, or images of one atom, are closer than ``closest``, Å."""
    contact, pair = closest_contact(crystals)
    return [
        f"sites {i + 1} and {j + 1} are {d:.2f} Å apart: atoms overlap below {closest} Å"
        if d < closest
        else ""
        for d, (i, j) in zip(contact.tolist(), pair.tolist(), strict=True)
    ]


def fill(
    crystals: CrystalBatch, values: Tensor, numbers: Sequence[int], slots: Sequence[int]
) -> Tensor:
    """Put a row for each atom into the rows of its element, in the order of the sites.

    Args:
        crystals: n crystals that fit.
        values: (n, sites, 3) what to write for each site.
        numbers: atomic numbers that have rows.
        slots: how many rows each has.

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
    lattice: Tensor,
    frac: Tensor,
    present: Tensor,
    row_numbers: Tensor,
    reasons: list[str],
    *,
    closest: float,
) -> Samples:
    """Crystals from cells and rows of coordinates; those with a reason keep their place.

    Args:
        lattice: (n, 3, 3) Å.
        frac: (n, rows, 3) fractional coordinates, wrapped here.
        present: (n, rows) bool, is there an atom?
        row_numbers: (rows,) atomic number of each row.
        reasons: n strings, why a sample has failed already; filled further.
        closest: shortest distance between atoms that counts as real, Å.
    """
    mark(reasons, present.any(1), lambda _: "no row holds an atom")
    good = np.array([reason == "" for reason in reasons])
    out = placeholder(len(reasons))
    if good.any():
        rows = torch.as_tensor(np.flatnonzero(good))
        keep = present[rows]
        crystals = CrystalBatch.from_ragged(
            lattice[rows], frac[rows][keep], row_numbers.expand(len(rows), -1)[keep], keep.sum(1)
        )
        for i, reason in zip(rows.tolist(), overlaps(crystals, closest), strict=True):
            reasons[i] = reason
        out = _scatter(out, rows, crystals)
    ok = np.array([reason == "" for reason in reasons])
    return Samples(out, ok, tuple(reasons))


def mark(reasons: list[str], passed: Tensor, text: Callable[[int], str]) -> None:
    """Write a reason where a test has failed and nothing is written yet."""
    for i in (~passed).nonzero()[:, 0].tolist():
        reasons[i] = reasons[i] or text(i)


def _scatter(places: CrystalBatch, rows: Tensor, crystals: CrystalBatch) -> CrystalBatch:
    """Put crystals at the given rows of a batch of placeholders."""
    width = crystals.frac.shape[1]
    wide = CrystalBatch(
        places.lattice.clone(),
        torch.nn.functional.pad(places.frac, (0, 0, 0, width - 1)),
        torch.nn.functional.pad(places.numbers, (0, width - 1)),
    )
    wide.lattice[rows], wide.frac[rows] = crystals.lattice, crystals.frac
    wide.numbers[rows] = crystals.numbers
    return wide
