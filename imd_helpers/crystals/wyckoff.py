"""Wyckoff positions: those of a space group, and those that the elements of a crystal take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..runtime import InputError, data_path
from . import symmetry
from .batch import CrystalBatch

PARTS = 120  # of an edge, in which the table counts origins


@dataclass(frozen=True, eq=False)
class Wyckoff:
    """A Wyckoff position: points ``origin + u @ directions``, and what symmetry makes of them.

    Uniform u in [0, 1) are uniform over the position.
    """

    multiplicity: int  # sites in the conventional cell
    free: int  # parameters
    origin: np.ndarray  # (3,) fractional
    directions: np.ndarray  # (3, 3) whole numbers, zero in the rows beyond ``free``


@cache
def _table() -> np.ndarray:
    """(1731, 15) whole numbers; the columns are on the card, `data/wyckoff/README.md`."""
    path = data_path("wyckoff", "positions.csv")
    return np.loadtxt(path, dtype=np.int64, delimiter=",", skiprows=1)


@cache
def wyckoff_positions(space_group: int) -> tuple[Wyckoff, ...]:
    """The Wyckoff positions of a space group; the general position last.

    Raises:
        InputError: a number outside 1..230.
    """
    symmetry.operations(space_group)  # raises where there is no such group
    return tuple(
        Wyckoff(int(row[1]), int(row[2]), row[3:6] / PARTS, row[6:].reshape(3, 3).astype(float))
        for row in _table()[_table()[:, 0] == space_group]
    )


# ---- positions taken

Held = tuple[tuple[str, int], ...]  # Wyckoff letters and how often each is taken


@dataclass(frozen=True)
class Occupation:
    """Which element stands on which Wyckoff positions of a crystal."""

    space_group: int  # ITA number
    # for each choice of origin and axes that gives other letters: positions and atomic number of
    # each element
    ways: tuple[tuple[tuple[Held, int], ...], ...]

    def prototype(self) -> tuple:
        """Equal for crystals with atoms on the same positions, whatever the elements."""
        return self.space_group, min(tuple(sorted(held for held, _ in way)) for way in self.ways)

    def first(self) -> tuple[tuple[Held, int], ...]:
        """The way that sorts first, by its positions and then its elements."""
        ordered = (tuple(sorted(way)) for way in self.ways)
        return min(ordered, key=lambda way: (tuple(held for held, _ in way), way))

    def places(self) -> tuple[int, ...]:
        """Atomic numbers in an order of the places that crystals of one prototype share."""
        return tuple(z for _, z in self.first())

    def without(self, number: int) -> tuple:
        """Equal for crystals that are the same but for this element of each."""
        hidden = (
            tuple(sorted((held, 0 if z == number else z) for held, z in way)) for way in self.ways
        )
        return self.space_group, min(hidden)


def occupations(crystals: CrystalBatch) -> list[Occupation]:
    """Occupation of each crystal, from moyopy, at 0.01 Å.

    Raises:
        InputError: moyopy finds no symmetry.
    """
    out = []
    for i, data in enumerate(symmetry.moyo_datasets(crystals, symprec=symmetry.FOUND_WITHIN)):
        if data is None:
            raise InputError(f"crystal {i}: moyopy finds no symmetry; drop it")
        ways = data.normalizer_wyckoff_positions().coset_representatives
        held = {_held(data.std_cell.numbers, positions) for _, positions in ways}
        out.append(Occupation(data.number, tuple(sorted(held))))
    return out


def _held(numbers: Sequence[int], positions: Sequence[Any]) -> tuple[tuple[Held, int], ...]:
    """(positions, atomic number) of each element, from the position of each site."""
    sites: dict[int, Counter] = defaultdict(Counter)
    for z, position in zip(numbers, positions, strict=True):
        sites[z][position.letter, position.multiplicity] += 1
    return tuple(
        (tuple(sorted((letter, k // size) for (letter, size), k in taken.items())), z)
        for z, taken in sorted(sites.items())
    )
