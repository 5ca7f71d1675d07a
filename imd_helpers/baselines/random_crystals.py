"""Random crystals: on a grid, anywhere in a random cell, or on Wyckoff positions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..crystals import CrystalBatch, elements, geometry, symmetry
from ..crystals.compositions import integer_amounts
from ..crystals.samples import Samples
from ..crystals.wyckoff import Wyckoff, wyckoff_positions
from ..descriptors.symmetry_sites import GRID, SPACE_GROUPS, Sites, decode_sites, smallest_site
from ..runtime import InputError
from .cells import atomic_volumes, random_cells
from .known import Baseline, Templates, elements_of

MAX_SITES = 20  # of a primitive cell
MIN_CONTACT = 0.65  # of the sum of two covalent radii: atoms that are closer overlap
LARGEST_RADIUS = 1.7  # Å, for elements without a covalent radius
TRIES = 200  # how often a crystal that is refused is drawn again
COMPOSITIONS = 20  # drawn for one try, until the space group can hold one

Plan = list[tuple[int, Wyckoff]]  # element and position of each orbit
STUCK = Wyckoff(1, 0, np.zeros(3), np.zeros((3, 3)))  # a draw that did not find its places


class RandomCubic(Baseline):
    """Random cubic ternaries on CubicGAN's grid, with no knowledge of which atoms go together.

    The space group (225, 216 or 221) is drawn with its share in the training set; three different
    elements uniformly from those of the training set; three different orbits uniformly from
    those with coordinates at multiples of 1/4; the lattice length from the training crystals of
    the same space group.
    """

    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples:
        keep = np.isin(self.training.space_group, SPACE_GROUPS)
        rows = self.training.choose(n, condition, rng, keep=keep)
        groups = self.training.space_group[rows]
        wanted = elements_of(condition)
        pool = self.training.known if wanted is None else np.array(wanted)
        if len(np.unique(pool)) < 3:
            raise InputError(f"{len(pool)} elements given: a ternary needs three different ones")
        grid = np.stack([rng.permutation(grid_orbits(int(g)))[:3] for g in groups])
        numbers = np.stack([rng.permutation(pool)[:3] for _ in range(n)])
        length = self.training.crystals.lattice[rows, 0].norm(dim=1).numpy()
        crystals = decode_sites(Sites(groups, numbers, grid, length)).crystals
        return Samples.of(crystals, asked={"space_group": groups})


@cache
def grid_orbits(space_group: int) -> np.ndarray:
    """(orbits, 3) one position, in quarters, of each orbit of the grid of multiples of 1/4."""
    points = itertools.product(range(GRID), repeat=3)
    return np.array(sorted({smallest_site(space_group, point) for point in points}))


class Recipes(NamedTuple):
    """Proportions of atoms, and elements for them: any, or all of them in their order."""

    proportions: list[tuple[int, ...]]
    pool: np.ndarray
    ordered: bool = False

    def draw(self, rng: np.random.Generator) -> tuple[list[int], tuple[int, ...]]:
        """Elements, and how many atoms of each a formula unit has."""
        counts = self.proportions[rng.integers(len(self.proportions))]
        if self.ordered:
            return self.pool.tolist(), counts
        return rng.choice(self.pool, size=len(counts), replace=False).tolist(), counts


class RandomCrystals(Baseline):
    """What `RandomP1` and `RandomWyckoff` share: compositions and volumes.

    A composition is the proportions of a training crystal (such as 1:1:3), given to different
    elements that are drawn uniformly from those of the training set, times a number of formula
    units that keeps the primitive cell within 20 sites. With ``condition={"formula": "CsPbI3"}``
    it is that one. The volume is the sum of the volumes of its atoms times a factor. Volumes of the
    elements are those that describe the training cells best (see `atomic_volumes`); the factor is
    the ratio of true to described volume of a training crystal drawn at random, so that densities
    scatter as they do there.
    """

    def __init__(self, training: Templates | CrystalBatch) -> None:
        super().__init__(training)
        self.volumes, self.ratios = atomic_volumes(self.training.crystals)
        counts = self.training.crystals.counts().numpy()
        self.proportions = [
            tuple(int(k) for k in row[row > 0] // np.gcd.reduce(row)) for row in counts
        ]

    def _recipes(self, condition: Mapping[str, Any]) -> Recipes:
        found, wanted = Recipes(self.proportions, self.training.known), elements_of(condition)
        if "formula" in condition:
            if wanted is not None:
                raise InputError("a formula names its elements: give one of the two conditions")
            atoms = integer_amounts(condition["formula"])
            found = Recipes([tuple(atoms.values())], np.array(list(atoms)), ordered=True)
        elif wanted is not None:
            pool = np.unique(wanted)
            found = Recipes([each for each in self.proportions if len(each) == len(pool)], pool)
        fitting = [each for each in found.proportions if sum(each) <= MAX_SITES]
        if not fitting:
            raise InputError(
                f"no composition of at most {MAX_SITES} sites for {condition}: ask for a smaller "
                "formula, or as many elements as some training crystal has"
            )
        return found._replace(proportions=fitting)

    def _cells(
        self, groups: np.ndarray, volumes: np.ndarray, sizes: list[int], rng: np.random.Generator
    ) -> np.ndarray:
        """(n, 3, 3) cells from the volumes of atoms or orbits, ``sizes`` of them in a crystal."""
        factor = rng.choice(self.ratios, size=len(groups))
        return random_cells(groups, _sums(volumes, sizes) * factor, rng)


def _sums(values: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Sum of the first ``sizes[0]`` values, of the next ``sizes[1]``, and so on."""
    return np.add.reduceat(values, np.concatenate([[0], np.cumsum(sizes)[:-1]]))


class RandomP1(RandomCrystals):
    """Atoms at random places of a random cell: nothing is known but compositions and densities.

    Edges and angles as in `random_cells` for triclinic crystals, coordinates uniform. Nothing is
    refused, so that most samples hold atoms that overlap.
    """

    conditions: ClassVar[tuple[str, ...]] = ("elements", "formula")

    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples:
        recipes = self._recipes(condition)
        drawn = [self._atoms(recipes, rng) for _ in range(n)]
        numbers, sizes = np.concatenate(drawn), [*map(len, drawn)]
        ones = np.ones(n, dtype=np.int64)
        cells = self._cells(ones, self.volumes[numbers], sizes, rng)
        frac = rng.random((len(numbers), 3))
        crystals = CrystalBatch.from_ragged(cells, frac, numbers, sizes)
        return Samples.of(crystals, asked={"space_group": ones})

    def _atoms(self, recipes: Recipes, rng: np.random.Generator) -> np.ndarray:
        chosen, counts = recipes.draw(rng)
        units = int(rng.integers(1, MAX_SITES // sum(counts) + 1))
        return np.repeat(chosen, np.array(counts) * units)


class RandomWyckoff(RandomCrystals):
    """Random crystals of a given symmetry.

    The space group is drawn with its share in the training set. Each element gets orbits, drawn
    uniformly among the Wyckoff positions that still fit its number of atoms (one without free
    parameters only once); then free parameters, and the cell of the crystal system (`random_cells`)
    are drawn. A try is refused if two atoms are closer, own images included, than 0.65 of the sum
    of their covalent radii, or if moyopy finds another space group (at 0.01 Å): atoms in special
    positions alone often have a higher symmetry.

    What is easy to place is more frequent among the samples than among the draws: a refused try
    draws everything anew but the space group, and what was asked for. After 200 tries the sample
    fails with a reason.
    """

    conditions: ClassVar[tuple[str, ...]] = ("space_group", "elements", "formula")

    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples:
        recipes = self._recipes(condition)
        groups = self._groups(n, condition, recipes, rng)
        left, parts = np.arange(n), []
        for _ in range(TRIES):
            tried, good = self._attempt(groups[left], recipes, rng)
            parts.append((left[good], tried[good]))
            left, rest = left[~good], tried[~good]
            if len(left) == 0:
                break
        parts.append((left, rest))
        places = np.concatenate([rows for rows, _ in parts])
        crystals = CrystalBatch.cat([part for _, part in parts if len(part)])[np.argsort(places)]
        why = f"no crystal of the space group without overlap in {TRIES} tries"
        reasons = np.where(np.isin(np.arange(n), left), why, "").tolist()
        return Samples.from_reasons(crystals, reasons, asked={"space_group": groups})

    def _attempt(
        self, groups: np.ndarray, recipes: Recipes, rng: np.random.Generator
    ) -> tuple[CrystalBatch, np.ndarray]:
        """One crystal for each space group, and which are good."""
        plans = [_plan(int(group), recipes, rng) for group in groups]
        tried, good = self._built(groups, plans, rng)
        good &= contacts(tried) >= MIN_CONTACT
        if good.any():
            found = symmetry.space_group_numbers(tried[good], symprec=symmetry.FOUND_WITHIN)
            good[good] = found == groups[good]
        return tried, good

    def _groups(
        self, n: int, condition: Mapping[str, Any], recipes: Recipes, rng: np.random.Generator
    ) -> np.ndarray:
        """(n,) space groups that can hold some composition that was asked for."""
        known, place = np.unique(self.training.space_group, return_inverse=True)
        if "space_group" in condition:
            number = int(condition["space_group"])
            symmetry.operations(number)  # raises where there is no such group
            known, place = np.array([number]), np.zeros(1, dtype=np.int64)
        wanted = set(recipes.proportions)
        fits = np.array([any(_units(int(g), each) for each in wanted) for g in known])
        if not fits[place].any():
            raise InputError(
                f"no cell of at most {MAX_SITES} sites holds {condition}: the Wyckoff positions "
                "have too many sites; ask for another space group"
            )
        return known[rng.choice(place[fits[place]], size=n)]

    def _built(
        self, groups: np.ndarray, plans: Sequence[Plan], rng: np.random.Generator
    ) -> tuple[CrystalBatch, np.ndarray]:
        """Crystals with random parameters and cells, and whether each orbit has its size."""
        flat = [orbit for plan in plans for orbit in plan]
        rooms = np.array([self.volumes[z] * position.multiplicity for z, position in flat])
        free = rng.random((len(flat), 3))
        cells = self._cells(groups, rooms, [len(plan) for plan in plans], rng)
        crystals, good = placed(groups, plans, cells, free)
        stuck = np.array([plan[0][1] is STUCK for plan in plans])
        return crystals, ~stuck & good


def placed(
    groups: np.ndarray, plans: Sequence[Plan], cells: np.ndarray, free: np.ndarray
) -> tuple[CrystalBatch, np.ndarray]:
    """Crystals of given free parameters, and (n,) whether each orbit has all its sites.

    Args:
        groups: (n,) space groups.
        plans: element and position of each orbit of each crystal.
        cells: (n, 3, 3) conventional cells, Å.
        free: (orbits, 3) parameters of all orbits, 0 to 1; those that are not free do not count.
    """
    flat = [orbit for plan in plans for orbit in plan]
    origins = np.stack([position.origin for _, position in flat])
    directions = np.stack([position.directions for _, position in flat])  # (orbits, 3, 3)
    moved = np.einsum("oi,oij->oj", free, directions)
    sizes, numbers = [len(plan) for plan in plans], np.array([z for z, _ in flat])
    # a batch of orbits has the form of a batch of crystals
    padded = CrystalBatch.from_ragged(cells, origins + moved, numbers, sizes)
    crystals, _ = symmetry.expand(groups, cells, padded.frac.numpy(), padded.numbers.numpy())
    sites = np.array([position.multiplicity for _, position in flat])
    return crystals, crystals.n_sites.numpy() == _sums(sites, sizes)


def contacts(crystals: CrystalBatch) -> np.ndarray:
    """(n,) the shortest distance of two atoms over the sum of their covalent radii."""
    radius = np.nan_to_num(elements.column("covalent_radius"), nan=LARGEST_RADIUS)
    return geometry.closest_contact(crystals, scale=np.maximum(radius, 1e-6))[0]


def _plan(group: int, recipes: Recipes, rng: np.random.Generator) -> Plan:
    """Element and position of each orbit; one atom where no composition finds its places."""
    for _ in range(COMPOSITIONS):
        chosen, counts = recipes.draw(rng)
        units = _units(group, counts)
        if units:
            times = units[rng.integers(len(units))]
            atoms = [(z, times * k) for z, k in zip(chosen, counts, strict=True)]
            orbits = _assigned(group, atoms, rng)
            if orbits is not None:
                return orbits
    return [(chosen[0], STUCK)]


def _assigned(
    group: int, atoms: Sequence[tuple[int, int]], rng: np.random.Generator
) -> Plan | None:
    """Orbits for so many atoms of each element, or None where the draw got stuck."""
    positions, reached = wyckoff_positions(group), _reachable(group, max(k for _, k in atoms))
    free = list(range(len(positions)))
    orbits = []
    for at in rng.permutation(len(atoms)):
        z, wanted = atoms[at]
        while wanted:
            sizes = ((w, positions[w].multiplicity) for w in free)
            fitting = [w for w, size in sizes if size <= wanted and reached[wanted - size]]
            if not fitting:
                return None
            w = fitting[rng.integers(len(fitting))]
            orbits.append((z, positions[w]))
            wanted -= positions[w].multiplicity
            if positions[w].free == 0:
                free.remove(w)  # a second atom would stand in the same place
    return orbits


@cache
def _units(group: int, proportions: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of formula units that fit a conventional cell; `MAX_SITES` is for a primitive."""
    rotations, _ = symmetry.operations(group)
    centring = int((rotations == np.eye(3)).all((1, 2)).sum())
    most = MAX_SITES // sum(proportions) * centring
    reached = _reachable(group, most * max(proportions))
    return tuple(
        units
        for units in range(centring, most + 1, centring)
        if all(reached[units * k] for k in proportions)
    )


@cache
def _reachable(group: int, most: int) -> np.ndarray:
    """(most + 1,) bool: Wyckoff positions can add up to so many sites."""
    reached = np.zeros(most + 1, dtype=bool)
    reached[0] = True
    sizes = {position.multiplicity for position in wyckoff_positions(group)}
    for total in range(1, most + 1):
        reached[total] = any(size <= total and reached[total - size] for size in sizes)
    return reached
