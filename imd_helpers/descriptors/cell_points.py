"""Crystals of one formula as points of the unit cube: a cell of any shape, atoms anywhere in it.

A point holds the volume and the shape of the cell, and the places of all atoms but the first,
which stands at the origin. Nothing known about the compound goes in: the scale of the volume is
that of spheres with the elements' covalent radii.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from ..crystals import CrystalBatch, compositions, elements, geometry
from ..crystals.rules import geometry_valid
from ..runtime import InputError, whole
from .coordinate_matrix import cell_parameters, lattice_of, right_handed

CELL = 6  # numbers of a point that are the cell's
VOLUMES = (0.5, 3.0)  # of the cell, over that of the spheres of its atoms
LONGEST_RATIO = 3.5  # of two edges
ANGLES = (50.0, 130.0)  # degrees; a reduced cell has 60 to 120
MOST_SITES = 40
FLATTEST = 0.3  # volume of a cell, over that of a box with its edges
TRIES = 50  # how often a crystal whose atoms overlap is drawn again
SHELLS = 6  # neighbours whose distances tell a crystal from another


class CellPoints:
    """Crystals with ``units`` formula units in the cell.

    Args:
        formula: e.g. ``SrTiO3``.
        units: how many of it; more of them can hold more structures, and take longer.

    Raises:
        InputError: no formula, or more than `MOST_SITES` atoms.
    """

    def __init__(self, formula: str, *, units: int = 1) -> None:
        counts = compositions.integer_amounts(formula)
        times = {z: k * whole("units", units, least=1) for z, k in sorted(counts.items())}
        self.numbers = np.repeat(list(times), list(times.values()))
        n = len(self.numbers)
        if not 1 <= n <= MOST_SITES:
            raise InputError(
                f"{units} × {formula} are {n} atoms: at most {MOST_SITES}, take fewer units"
            )
        self.formula, self.units, self.dimensions = formula, units, CELL + 3 * (n - 1)
        radius = np.nan_to_num(elements.column("covalent_radius")[self.numbers], nan=1.7)
        self.volume = float((4 / 3 * np.pi * radius**3).sum())  # Å^3

    def decode(self, points: np.ndarray) -> CrystalBatch:
        """Crystals of (n, dimensions) points."""
        n, sites = len(points), len(self.numbers)
        low, high = np.log(VOLUMES)
        volume = self.volume * np.exp(low + points[:, 0] * (high - low))
        ratio = np.exp((2 * points[:, 1:3] - 1) * np.log(LONGEST_RATIO))
        edges = np.concatenate([np.ones((n, 1)), ratio], axis=1)
        angles = ANGLES[0] + points[:, 3:CELL] * (ANGLES[1] - ANGLES[0])
        shape, _ = lattice_of(torch.from_numpy(edges), torch.from_numpy(angles))
        size = torch.linalg.det(shape).abs().clamp_min(1e-12).numpy()
        lattice = shape * torch.from_numpy((volume / size) ** (1 / 3))[:, None, None]
        frac = np.concatenate([np.zeros((n, 1, 3)), points[:, CELL:].reshape(n, -1, 3)], axis=1)
        flat = frac.reshape(-1, 3)
        return CrystalBatch.from_ragged(lattice, flat, np.tile(self.numbers, n), [sites] * n)

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Random cells of middling volume with atoms anywhere, but not on top of each other.

        They grow from try to try, because many atoms find no room in a small one.
        """
        points, left = np.empty((n, self.dimensions)), np.arange(n)
        for k in range(10 * TRIES):
            some = rng.random((len(left), self.dimensions))
            some[:, :CELL] = 0.25 + 0.5 * some[:, :CELL]
            some[:, 0] += 0.25 * min(1.0, k / TRIES)
            points[left] = some
            left = left[~self.sound(some)]
            if not len(left):
                break
        return points

    def sound(self, points: np.ndarray) -> np.ndarray:
        """(n,) bool: do the angles make a cell that is not flat, and do the atoms have room?"""
        alpha, beta, gamma = np.cos(np.radians(ANGLES[0] + points[:, 3:CELL] * np.ptp(ANGLES))).T
        square = 1 + 2 * alpha * beta * gamma - alpha**2 - beta**2 - gamma**2
        good = square > FLATTEST**2
        if good.any():
            good[good] = geometry_valid(self.decode(points[good]))
        return good

    def encode(self, crystals: CrystalBatch) -> np.ndarray:
        """(n, dimensions) points of crystals; NaN where a cell is longer or flatter than allowed.

        The cell is reduced first, so that crystals that are alike have points that are alike.
        """
        reduced, change = geometry.reduce_lattice(crystals.lattice)
        frac = crystals.frac @ torch.linalg.inv(change).round()
        crystals = CrystalBatch(reduced, frac, crystals.numbers)
        frac = right_handed(crystals)
        edges, angles = (each.numpy() for each in cell_parameters(reduced))
        low, high = np.log(VOLUMES)
        volume = torch.linalg.det(reduced).abs().numpy()
        cell = np.empty((len(crystals), CELL))
        cell[:, 0] = (np.log(volume / self.volume) - low) / (high - low)
        cell[:, 1:3] = (np.log(edges[:, 1:] / edges[:, :1]) / np.log(LONGEST_RATIO) + 1) / 2
        cell[:, 3:] = (angles - ANGLES[0]) / (ANGLES[1] - ANGLES[0])
        cell[((cell < 0) | (cell > 1)).any(1)] = np.nan
        sites = (frac[:, 1:] - frac[:, :1]).numpy().reshape(len(crystals), -1) % 1.0
        return np.concatenate([cell, sites], axis=1)

    def features(self, points: np.ndarray) -> np.ndarray:
        """(n, f) inverse mean distances to the 1st, 2nd, … neighbour, for each pair of elements."""
        crystals = self.decode(points)
        lattice, change = geometry.reduce_lattice(crystals.lattice)
        frac = crystals.frac @ torch.linalg.inv(change).round()
        step = frac[:, None] - frac[:, :, None]  # (n, sites, sites, 3)
        shifts = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))
        away = (step - step.round())[..., None, :] + shifts.double()
        distance = (away @ lattice[:, None, None]).norm(dim=-1).numpy()  # (n, sites, sites, 27)
        distance[distance < 1e-6] = np.inf  # an atom and itself
        found, kinds = [], np.unique(self.numbers)
        for a, b in itertools.product(kinds, repeat=2):
            some = distance[:, self.numbers == a][:, :, self.numbers == b]
            some = np.sort(some.reshape(*some.shape[:2], -1), axis=2)[..., :SHELLS]
            found.append((1 / some).mean(1))
        return np.concatenate(found, axis=1)

    def exchanged(self, point: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Two atoms of different elements change places."""
        kinds = np.unique(self.numbers)
        if len(kinds) == 1:
            return point
        pair = [
            rng.choice(np.flatnonzero(self.numbers == z))
            for z in rng.choice(kinds, size=2, replace=False)
        ]
        frac = self._places(point)
        frac[pair] = frac[pair[::-1]]
        return self._point(point[:CELL], frac)

    def spliced(
        self, mother: np.ndarray, father: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """A child of two crystals: below a plane of the cell the one, above it the other."""
        axis, cut = rng.integers(3), rng.uniform(0.2, 0.8)
        halves = [(self._places(each) + rng.random(3)) % 1.0 for each in (mother, father)]
        below = halves[0][:, axis] < cut, halves[1][:, axis] >= cut
        frac = np.empty_like(halves[0])
        for z in np.unique(self.numbers):
            mine = self.numbers == z
            inside = [half[mine & part] for half, part in zip(halves, below, strict=True)]
            outside = [half[mine & ~part] for half, part in zip(halves, below, strict=True)]
            pool = [rng.permutation(np.concatenate(each)) for each in (inside, outside)]
            frac[mine] = np.concatenate(pool)[: mine.sum()]  # too many are cut, too few filled up
        return self._point(cut * mother[:CELL] + (1 - cut) * father[:CELL], frac)

    def _places(self, point: np.ndarray) -> np.ndarray:
        """(sites, 3) fractional coordinates."""
        return np.concatenate([np.zeros((1, 3)), point[CELL:].reshape(-1, 3)])

    def _point(self, cell: np.ndarray, frac: np.ndarray) -> np.ndarray:
        return np.concatenate([cell, ((frac[1:] - frac[0]) % 1.0).ravel()])
