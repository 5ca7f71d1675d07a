"""Checks of the chapter on coordinates."""

from __future__ import annotations

import math

from .base import Check


def placements(atoms: tuple[int, ...], rows: tuple[int, ...]) -> int:
    """Ways to give each atom of each element a row of its own among those of its element."""
    return math.prod(math.perm(room, n) for n, room in zip(atoms, rows, strict=True))


def _mirrored_quartz() -> float:
    """Space group of quartz after two columns of its matrix have changed places."""
    from .. import datasets
    from ..crystals import symmetry
    from ..descriptors.coordinate_matrix import CoordinateMatrix

    quartz = datasets.load("oqmd_icsd").select(formulas=["SiO2"], space_groups=[154])[0].crystals
    descriptor = CoordinateMatrix.fit(quartz)
    swapped = descriptor.decode(descriptor.encode(quartz)[:, :, [1, 0, 2]]).crystals
    return float(symmetry.space_group_numbers(swapped, symprec=0.01)[0])


CHECKS = {
    "coordinates.1": Check(
        lambda: placements((6, 1, 8), (8, 8, 12)),
        "The first atom of an element may take any of its rows, the next any that is left; "
        "empty rows may lie between atoms. Multiply over the elements.",
        tolerance=1e-9,
    ),
    "coordinates.2": Check(
        _mirrored_quartz,
        "Exchange columns 0 and 1 of the whole matrix, decode, and ask "
        "symmetry.space_group_numbers with symprec=0.01.",
    ),
}
