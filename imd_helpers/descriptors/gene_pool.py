"""Cubic ternaries as points of the unit cube: a prototype, and what stands on its three sites.

The lattice constant is no part of a point: for given elements and sites it is a property.
"""

from __future__ import annotations

import numpy as np

from ..crystals import elements
from ..runtime import InputError, whole
from .symmetry_sites import N_ROWS, Sites, arranged, prototype


class GenePool:
    """Prototypes filled with three different elements.

    The first number of a point chooses the prototype, the others the elements, in the order of
    their Mendeleev numbers: near in number is near in chemistry.

    Args:
        space_group: (prototypes,) ITA numbers.
        grid: (prototypes, 3, 3) sites in units of 1/4.
        numbers: (elements,) atomic numbers.
    """

    dimensions = 1 + N_ROWS  # numbers of a point

    def __init__(self, space_group: np.ndarray, grid: np.ndarray, numbers: np.ndarray) -> None:
        place = np.nan_to_num(elements.column("mendeleev_number"))[numbers]
        self.space_group, self.grid = space_group, grid
        self.elements = numbers[np.argsort(place, kind="stable")]

    @classmethod
    def from_sites(cls, sites: Sites, *, min_count: int = 1) -> GenePool:
        """Prototypes that at least ``min_count`` crystals have, and all elements of ``sites``.

        Raises:
            InputError: no prototype is that frequent.
        """
        rows, which = np.unique(sites.patterns(), axis=0, return_inverse=True)
        named = [prototype(int(row[0]), row[1:].reshape(N_ROWS, 3)) for row in rows]
        one = np.array([[group, *np.ravel(orbits)] for group, orbits in named])[which.ravel()]
        patterns, counts = np.unique(one, axis=0, return_counts=True)
        patterns = patterns[counts >= whole("min_count", min_count, least=1)]
        if len(patterns) == 0:
            raise InputError(
                f"no prototype occurs {min_count} times: the most frequent occurs {counts.max()} "
                "times, lower min_count"
            )
        return cls(patterns[:, 0], patterns[:, 1:].reshape(-1, N_ROWS, 3), np.unique(sites.numbers))

    @property
    def size(self) -> int:
        """Ways to fill all prototypes; crystals are fewer where two sites are alike."""
        k = len(self.elements)
        return len(self.space_group) * k * (k - 1) * (k - 2)

    def decode(self, points: np.ndarray) -> Sites:
        """The crystals of (n, 4) points; their length is NaN, because it is not known."""
        sizes = self._sizes
        genes = np.minimum((points * sizes).astype(np.int64), sizes - 1)
        for j in range(2, 1 + N_ROWS):  # the second and third element skip what is taken
            for taken in np.sort(genes[:, 1:j], axis=1).T:
                genes[:, j] += genes[:, j] >= taken
        return self.sites(genes)

    def genes(self, sites: Sites) -> np.ndarray:
        """(n, 4) whole numbers of crystals: a prototype, and elements by their place.

        All are -1 where the prototype or an element is not of this space.
        """
        kinds = zip(self.space_group.tolist(), self.grid, strict=True)
        kind_of = {prototype(group, grid): k for k, (group, grid) in enumerate(kinds)}
        place = np.full(elements.N_COLUMNS, -1)
        place[self.elements] = np.arange(len(self.elements))
        patterns, which = np.unique(sites.patterns(), axis=0, return_inverse=True)
        ways = [arranged(int(row[0]), row[1:].reshape(N_ROWS, 3)) for row in patterns]
        kind = np.array([kind_of.get(name, -1) for name, _ in ways])[which.ravel()]
        order = np.array([rows for _, rows in ways])[which.ravel()]
        filled = place[np.take_along_axis(sites.numbers, order, axis=1)]
        genes = np.concatenate([kind[:, None], filled], axis=1)
        genes[(genes < 0).any(1)] = -1
        return genes

    def sites(self, genes: np.ndarray) -> Sites:
        """The crystals of (n, 4) genes."""
        kind, unknown = genes[:, 0], np.full(len(genes), np.nan)
        return Sites(self.space_group[kind], self.elements[genes[:, 1:]], self.grid[kind], unknown)

    def encode(self, sites: Sites) -> np.ndarray:
        """(n, 4) points that `decode` to the crystals; NaN where they are not of this space."""
        genes = self.genes(sites)
        taken = genes[:, None, 1:] < genes[:, 1:, None]  # (n, site, an other)
        ranks = genes.astype(float)
        ranks[:, 1:] -= np.tril(taken, -1).sum(2)
        points = (ranks + 0.5) / self._sizes
        points[(genes < 0).any(1)] = np.nan
        return points

    @property
    def _sizes(self) -> np.ndarray:
        return np.array([len(self.space_group), *(len(self.elements) - np.arange(N_ROWS))])
