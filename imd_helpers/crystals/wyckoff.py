"""Wyckoff positions: those of a space group, and those that the elements of a crystal take."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..runtime import InputError
from . import symmetry
from .batch import CrystalBatch

FOUND_WITHIN = 0.01  # Å, for the symmetry of crystals whose positions are named
GENERIC = np.array([0.1234567, 0.3141593, 0.2718282])  # parameters without any symmetry
CELLS_3 = np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=float)
CELLS_5 = np.array(list(itertools.product((-2, -1, 0, 1, 2), repeat=3)), dtype=float)

Points = tuple[np.ndarray, np.ndarray]  # points ``origin + u @ directions``: origin, directions


@dataclass(frozen=True, eq=False)
class Wyckoff:
    """A Wyckoff position: points ``origin + u @ directions``, and what symmetry makes of them.

    Uniform u in [0, 1) are uniform over the position.

    Attributes:
        multiplicity: sites in the conventional cell.
        free: number of free parameters.
        origin: (3,) fractional.
        directions: (3, 3) whole numbers, zero in the rows beyond ``free``.
    """

    multiplicity: int
    free: int
    origin: np.ndarray
    directions: np.ndarray


@cache
def wyckoff_positions(space_group: int) -> tuple[Wyckoff, ...]:
    """The Wyckoff positions of a space group, from its operations; the general position last.

    An operation leaves a point, line or plane in place. From the whole space down, each set of
    fixed points is cut with those of all operations; two sets that an operation maps onto each
    other are one Wyckoff position.

    Raises:
        InputError: a number outside 1..230.
    """
    rotations, translations = symmetry.operations(space_group)
    found: list[Wyckoff] = []
    cuts: dict[int, list[Points]] = defaultdict(list)
    cuts[3].append((np.zeros((1, 3)), np.eye(3)))
    for free in (3, 2, 1, 0):
        here: list[Points] = []
        for points, directions in cuts[free]:
            here += _new_sets(points, directions, here, space_group)
        for origin, directions in here:
            for points, kept in _cuts(origin, directions, space_group):
                cuts[len(kept)].append((points, kept))
            generic = origin + GENERIC[:free] @ directions
            images = np.round((rotations @ generic + translations) % 1.0, 6) % 1.0
            sites = len(np.unique(images, axis=0))
            padded = np.concatenate([directions, np.zeros((3 - free, 3))])
            found.append(Wyckoff(sites, free, origin % 1.0, padded))
    return tuple(sorted(found, key=lambda each: (each.free, each.multiplicity)))


def _cuts(origin: np.ndarray, directions: np.ndarray, space_group: int) -> Iterator[Points]:
    """The parts of a set of points that single operations leave in place."""
    rotations, translations = symmetry.operations(space_group)
    for rotation in np.unique(rotations, axis=0):
        moves = rotation - np.eye(3)
        system = moves @ directions.T  # (3, k) u -> how far a point of the set is moved
        _, size, vectors = np.linalg.svd(system)
        rank = int((size > 1e-9).sum())
        if rank == 0:
            continue
        shift = translations[(rotations == rotation).all((1, 2))]
        target = (-(moves @ origin) - shift)[:, None] - CELLS_5  # back into place, up to a cell
        target = target.reshape(-1, 3)
        u = target @ np.linalg.pinv(system, rcond=1e-9).T
        fixed = np.abs(u @ system.T - target).max(1) < 1e-7
        if fixed.any():
            kept = _whole_directions(vectors[rank:] @ directions)
            points = (origin + u[fixed] @ directions) % 1.0
            yield _distinct(points, kept), kept


def _whole_directions(vectors: np.ndarray) -> np.ndarray:
    """Small whole-number vectors that span the same space."""
    if len(vectors) == 0:
        return np.zeros((0, 3))
    rows = np.rint(30 * _projector(vectors))  # denominators are 1, 2, 3, 5 or 6
    picked: list[np.ndarray] = []
    for row in rows:
        if np.linalg.matrix_rank(np.array([*picked, row])) > len(picked):
            picked.append(row / np.gcd.reduce(row.astype(int)))
    return np.array(picked)


def _projector(vectors: np.ndarray) -> np.ndarray:
    """(3, 3) projection onto what the rows span."""
    return np.linalg.pinv(vectors) @ vectors if len(vectors) else np.zeros((3, 3))


def _distinct(points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Points that lie in different sets ``point + u @ directions``, as far as is easy to see."""
    across = np.eye(3) - _projector(directions)
    offsets = np.round((points[:, None] + CELLS_3) @ across, 5) + 0.0
    nearest = np.abs(offsets @ [1e10, 1e5, 1.0]).argmin(1)  # one of the equal ones, always the same
    keys = offsets[np.arange(len(points)), nearest] if len(directions) else np.round(points, 5) % 1
    return points[np.unique(keys, axis=0, return_index=True)[1]]


def _new_sets(
    points: np.ndarray, directions: np.ndarray, known: Sequence[Points], space_group: int
) -> list[Points]:
    """Sets of points that no operation maps onto known ones, or onto one another."""
    rotations, translations = symmetry.operations(space_group)
    generic = points + GENERIC[: len(directions)] @ directions
    images = np.einsum("gij,pj->pgi", rotations, generic) + translations
    out: list[Points] = []
    waiting = list(known)
    while len(points):
        if not waiting:
            waiting = [(points[0], directions)]
            out += waiting
        origin, others = waiting.pop()
        across = np.eye(3) - _projector(others)
        delta = images - origin  # (points, operations, 3)
        delta = (delta - np.round(delta))[:, :, None]
        if len(others):  # the nearest image of a line or plane may lie in another cell
            delta = delta + CELLS_3
        same = (np.abs(delta @ across).max(-1) < 1e-6).any((1, 2))
        points, images = points[~same], images[~same]
    return out


# ---- positions taken


Held = tuple[tuple[str, int], ...]  # Wyckoff letters and how often each is taken


@dataclass(frozen=True)
class Occupation:
    """Which element stands on which Wyckoff positions of a crystal.

    Attributes:
        space_group: ITA number.
        ways: for each choice of origin and axes that gives other letters: (positions, atomic
            number) of each element.
    """

    space_group: int
    ways: tuple[tuple[tuple[Held, int], ...], ...]

    def prototype(self) -> tuple:
        """Equal for crystals with atoms on the same positions, whatever the elements."""
        return self.space_group, min(tuple(sorted(held for held, _ in way)) for way in self.ways)

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
    for i, data in enumerate(symmetry.moyo_datasets(crystals, symprec=FOUND_WITHIN)):
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
