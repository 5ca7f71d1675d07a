"""Generators without a network, a ladder from pure chance to copies of what is known.

`RandomP1` knows densities; `RandomWyckoff` symmetry as well; `RandomCubic` the grid of CubicGAN;
`PrototypeEnumeration` the structures of known crystals; `Substitution` the groups of the periodic
table; `IonExchange` counts which elements replace each other; `TrainingCopies` repeats. A model
that does not beat them has learned nothing that counts. They have the interface of the models,
and go through the same judge.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from ..crystals import CrystalBatch, elements, geometry, symmetry
from ..crystals.samples import Samples
from ..descriptors.symmetry_sites import GRID, SPACE_GROUPS, Sites, decode_sites
from ..runtime import InputError, lookup

CONDITIONS = ("space_group", "elements")
FOUND_WITHIN = 0.01  # Å, in which random crystals must have their space group
LARGEST_RADIUS = 1.7  # Å, for elements without a covalent radius
LONGEST_RATIO = 3.0  # of two edges of a random cell
FLATTEST = 0.3  # volume of a random triclinic cell over that of a box with its edges
COMPOSITIONS = 20  # drawn for one try, until the space group can hold one
GENERIC = np.array([0.1234567, 0.3141593, 0.2718282])  # parameters without any symmetry
CELLS_3 = np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=float)
CELLS_5 = np.array(list(itertools.product((-2, -1, 0, 1, 2), repeat=3)), dtype=float)


@dataclass(frozen=True, eq=False)
class Templates:
    """Known crystals in standard conventional cells, with their space groups.

    Attributes:
        crystals: n crystals.
        space_group: (n,) ITA numbers.
    """

    crystals: CrystalBatch
    space_group: np.ndarray

    @classmethod
    def of(cls, crystals: CrystalBatch, *, symprec: float = 0.01) -> Templates:
        """Standardise crystals; those whose symmetry is not found are left out.

        Raises:
            InputError: no crystal is left.
        """
        found = [orbit for orbit in symmetry.orbits(crystals, symprec=symprec) if orbit is not None]
        if not found:
            raise InputError(f"moyopy finds a space group in none of {len(crystals)} crystals")
        groups = np.array([orbit.space_group for orbit in found])
        return cls(symmetry.from_orbits(found)[0], groups)

    def __len__(self) -> int:
        return len(self.crystals)

    @cached_property
    def occupations(self) -> list[Occupation]:
        """Which element stands on which Wyckoff positions; 3 ms a crystal, once."""
        return occupations(self.crystals)

    def has(self, symbols: Sequence[str]) -> np.ndarray:
        """(n,) bool: made of exactly these elements."""
        wanted = np.zeros(elements.N_COLUMNS, dtype=bool)
        wanted[[elements.number(symbol) for symbol in symbols]] = True
        return ((self.crystals.counts().numpy() > 0) == wanted).all(1)


class Baseline(ABC):
    """What all of them share.

    Args:
        training: the crystals that a model would train on, as `Templates` or any `CrystalBatch`.

    Attributes:
        conditions: the kinds of condition that `sample` takes.
    """

    conditions: ClassVar[tuple[str, ...]] = CONDITIONS

    def __init__(self, training: Templates | CrystalBatch) -> None:
        self.training = training if isinstance(training, Templates) else Templates.of(training)

    def sample(
        self, n: int, *, condition: Mapping[str, Any] | None = None, seed: int = 0
    ) -> Samples:
        """Draw n crystals, with the space groups they were asked to have.

        Args:
            n: how many.
            condition: ``{"space_group": 225, "elements": ("Cs", "Pb", "I")}``, either or both;
                random crystals also take ``{"formula": "CsPbI3"}``, see `conditions`.
            seed: of the random choices.

        Raises:
            InputError: n below 1, or a condition that nothing satisfies.
            UnknownNameError: a condition of unknown kind, or an unknown element.
        """
        if n < 1:
            raise InputError(f"n = {n}: ask for at least one sample")
        condition = dict(condition or {})
        for name in condition:
            lookup("condition", name, self.conditions)
        made, group = self._draw(n, condition, np.random.default_rng(seed))
        return replace(made, asked={"space_group": group})

    @abstractmethod
    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Samples, np.ndarray]: ...

    def _choose(
        self, n: int, keep: np.ndarray, condition: dict[str, Any], rng: np.random.Generator
    ) -> np.ndarray:
        """(n,) rows of the training set, drawn with replacement."""
        if "space_group" in condition:
            keep = keep & (self.training.space_group == condition["space_group"])
        if not keep.any():
            raise InputError(
                f"no training crystal satisfies {condition}: this baseline only varies "
                f"{len(self.training)} known crystals, so ask for something among them"
            )
        return rng.choice(np.flatnonzero(keep), size=n)


class TrainingCopies(Baseline):
    """Copies of training crystals, drawn with replacement: valid, stable, and never novel."""

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Samples, np.ndarray]:
        keep = np.ones(len(self.training), dtype=bool)
        if "elements" in condition:
            keep = self.training.has(condition["elements"])
        rows = self._choose(n, keep, condition, rng)
        return Samples.of(self.training.crystals[rows]), self.training.space_group[rows]


class Substitution(Baseline):
    """Training crystals with every element swapped for another of its group of the periodic table.

    The new elements are drawn from those of the training set, and no two elements become one; an
    element with no other of its group stays. Lanthanides are swapped among themselves, and so are
    actinides. The cell is scaled by the ratio of the sums of covalent radii over all atoms.

    With ``condition={"elements": ...}`` those elements take the places of the template's instead,
    in order of electronegativity.
    """

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Samples, np.ndarray]:
        present = self.training.crystals.counts().numpy() > 0
        keep = np.ones(len(present), dtype=bool)
        given = None
        if "elements" in condition:
            given = _by_electronegativity([elements.number(s) for s in condition["elements"]])
            keep = present.sum(1) == len(given)
        rows = self._choose(n, keep, condition, rng)
        families = _families(np.flatnonzero(present.any(0)))
        swap = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        for i, row in enumerate(rows):
            old = _by_electronegativity(np.flatnonzero(present[row]).tolist())
            swap[i, old] = _relatives(old, families, rng) if given is None else given
        return Samples.of(_swapped(self.training.crystals[rows], swap)), self.training.space_group[
            rows
        ]


class RandomCubic(Baseline):
    """Random cubic ternaries on CubicGAN's grid, with no knowledge of which atoms go together.

    The space group (225, 216 or 221) is drawn with its share in the training set; three different
    elements uniformly from those of the training set; three different orbits uniformly from
    those with coordinates at multiples of 1/4; the lattice length from the training crystals of
    the same space group.
    """

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Samples, np.ndarray]:
        rows = self._choose(n, np.isin(self.training.space_group, SPACE_GROUPS), condition, rng)
        groups = self.training.space_group[rows]
        known = np.flatnonzero(self.training.crystals.counts().numpy().any(0))
        if "elements" in condition:
            known = np.array([elements.number(symbol) for symbol in condition["elements"]])
        if len(set(known.tolist())) < 3:
            raise InputError(f"{len(known)} elements given: a ternary needs three different ones")
        grid = np.stack([rng.permutation(grid_orbits(int(g)))[:3] for g in groups])
        numbers = np.stack([rng.permutation(known)[:3] for _ in range(n)])
        length = self.training.crystals.lattice[rows, 0].norm(dim=1).numpy()
        return decode_sites(Sites(groups, numbers, grid, length)), groups


class IonExchange(Baseline):
    """Training crystals with elements exchanged as often as the training set exchanges them.

    Two training crystals that are equal but for one element (same space group, same Wyckoff
    positions up to the choice of origin and axes, all other elements in the same places) are
    a pair. ``pairs[a, b]`` counts the contexts, that is the crystals without that element, in which
    both a and b occur. An element a of a crystal becomes b with probability
    ``pairs[a, b] / sum_c pairs[a, c]`` over the elements c that the crystal does not hold. Which of
    its elements is exchanged is drawn uniformly among those that have a partner; a
    crystal without any is never drawn. The cell is scaled by the volumes of the elements, see
    `atomic_volumes`.

    No probabilities are fitted, and common elements are common partners. Elements count,
    not ions: no oxidation states are assigned. With ``condition={"elements": ...}`` the crystals
    are those from which one exchange leads to exactly these elements.

    Args:
        training: as for every baseline.
        swaps: how many elements of a crystal are exchanged, one after another.

    Attributes:
        pairs: (119, 119) int64, symmetric.

    Raises:
        InputError: swaps below 1, or a training set without any pair.

    Source:
        The idea: Hautier et al., Inorg. Chem. 50 (2011) 656, who fit probabilities for ions.
    """

    def __init__(self, training: Templates | CrystalBatch, *, swaps: int = 1) -> None:
        super().__init__(training)
        if swaps < 1:
            raise InputError(f"swaps = {swaps}: exchange at least one element")
        self.swaps = swaps
        self.volumes, _ = atomic_volumes(self.training.crystals)
        self.pairs = exchange_pairs(self.training.occupations)
        if not self.pairs.any():
            raise InputError(
                f"no two of {len(self.training)} training crystals differ by one element alone: "
                "there is nothing to count, so give more crystals, or use Substitution"
            )

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Samples, np.ndarray]:
        present = self.training.crystals.counts().numpy() > 0
        wanted = None
        if "elements" in condition:
            wanted = np.zeros(elements.N_COLUMNS, dtype=bool)
            wanted[[elements.number(symbol) for symbol in condition["elements"]]] = True
        rows = self._choose(n, self._possible(present, wanted), condition, rng)
        swap = np.tile(np.arange(elements.N_COLUMNS), (n, 1))
        for i, row in enumerate(rows):
            self._exchange(np.flatnonzero(present[row]), swap[i], wanted, rng)
        crystals = _exchanged(self.training.crystals[rows], swap, self.volumes)
        return Samples.of(crystals), self.training.space_group[rows]

    def _possible(self, present: np.ndarray, wanted: np.ndarray | None) -> np.ndarray:
        """(templates,) bool: an exchange is known, and leads to the elements that are wanted."""
        if wanted is None:
            return ((present @ self.pairs > 0) & ~present).any(1)
        lost, won = present & ~wanted, wanted & ~present
        one = (lost.sum(1) == 1) & (won.sum(1) == 1)
        return one & (self.pairs[lost.argmax(1), won.argmax(1)] > 0)

    def _exchange(
        self,
        old: np.ndarray,
        swap: np.ndarray,
        wanted: np.ndarray | None,
        rng: np.random.Generator,
    ) -> None:
        """Fill in what becomes of each element of one crystal."""
        if wanted is not None:
            new = np.flatnonzero(wanted)
            swap[np.setdiff1d(old, new)] = np.setdiff1d(new, old)
            return
        for a in rng.permutation(old):
            chance = self.pairs[a].astype(float)
            chance[swap[old]] = 0.0  # no two elements become one
            if chance.any():
                swap[a] = rng.choice(len(chance), p=chance / chance.sum())
            if (swap[old] != old).sum() == self.swaps:
                return


class PrototypeEnumeration(Baseline):
    """The structures of the training set, each once, filled with elements.

    A prototype is a space group with Wyckoff positions and which of them hold the same element, up
    to the choice of origin and axes; the first training crystal of each gives the coordinates
    and the shape of the cell. `sample` draws a prototype uniformly, and different elements for its
    places uniformly from those of the training set; `enumerate` goes through all fillings with
    given elements. The cell is scaled by the volumes of the elements, see `atomic_volumes`.

    By default nothing is filtered. The rule of charge neutrality belongs to the judge, and a
    generator that has been filtered by it passes that stage by construction; to do so all the
    same, give ``accept=imd.judge.charge_neutral``.

    Args:
        training: as for every baseline.
        accept: (n, 119) counts -> (n,) bool; fillings that it refuses are drawn again.
        tries: how often at most; what is then still refused fails with a reason.

    Attributes:
        prototypes: one `Templates` crystal for each prototype.
    """

    def __init__(
        self,
        training: Templates | CrystalBatch,
        *,
        accept: Callable[[np.ndarray], np.ndarray] | None = None,
        tries: int = 100,
    ) -> None:
        super().__init__(training)
        self.accept, self.tries = accept, tries
        first: dict[tuple, int] = {}
        for i, each in enumerate(self.training.occupations):
            first.setdefault(each.prototype(), i)
        rows = list(first.values())
        self.prototypes = Templates(self.training.crystals[rows], self.training.space_group[rows])
        self.volumes, _ = atomic_volumes(self.training.crystals)

    def enumerate(self, symbols: Sequence[str]) -> tuple[CrystalBatch, np.ndarray]:
        """All prototypes with as many elements, filled with these in every order.

        Returns:
            The crystals that ``accept`` lets through, and their (n,) space groups.

        Raises:
            InputError: no prototype has so many elements, or none is accepted.
        """
        numbers = sorted({elements.number(symbol) for symbol in symbols})
        present = self.prototypes.crystals.counts().numpy() > 0
        rows = np.flatnonzero(present.sum(1) == len(numbers))
        orders = list(itertools.permutations(numbers))
        rows = np.repeat(rows, len(orders))
        swap = np.zeros((len(rows), elements.N_COLUMNS), dtype=np.int64)
        for i, (row, order) in enumerate(zip(rows, itertools.cycle(orders), strict=False)):
            swap[i, np.flatnonzero(present[row])] = order
        kept = self._accepted(rows, swap)
        if not kept.any():
            raise InputError(
                f"{len(rows)} fillings of {len(self.prototypes)} prototypes with {list(symbols)}, "
                "and none is accepted: give another number of elements, or other ones"
            )
        rows = rows[kept]
        crystals = _exchanged(self.prototypes.crystals[rows], swap[kept], self.volumes)
        return crystals, self.prototypes.space_group[rows]

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Samples, np.ndarray]:
        present = self.prototypes.crystals.counts().numpy() > 0
        pool = np.flatnonzero(self.training.crystals.counts().numpy().any(0))
        keep = present.sum(1) <= len(pool)
        if "elements" in condition:
            pool = np.array(sorted({elements.number(s) for s in condition["elements"]}))
            keep = present.sum(1) == len(pool)
        if "space_group" in condition:
            keep = keep & (self.prototypes.space_group == condition["space_group"])
        if not keep.any():
            raise InputError(
                f"none of {len(self.prototypes)} prototypes satisfies {condition}: ask for a space "
                "group, and a number of elements, that the training set has"
            )
        rows = np.zeros(n, dtype=np.int64)
        swap = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        left = np.arange(n)
        for _ in range(self.tries):
            rows[left] = rng.choice(np.flatnonzero(keep), size=len(left))
            for i in left:
                old = np.flatnonzero(present[rows[i]])
                swap[i, old] = rng.choice(pool, size=len(old), replace=False)
            left = left[~self._accepted(rows[left], swap[left])]
            if len(left) == 0:
                break
        crystals = _exchanged(self.prototypes.crystals[rows], swap, self.volumes)
        reason = f"no filling accepted in {self.tries} tries"
        return _decoded(crystals, left, reason), self.prototypes.space_group[rows]

    def _accepted(self, rows: np.ndarray, swap: np.ndarray) -> np.ndarray:
        if self.accept is None or len(rows) == 0:
            return np.ones(len(rows), dtype=bool)
        counts = _refilled(self.prototypes.crystals[rows], swap).counts().numpy()
        return np.asarray(self.accept(counts), dtype=bool)


@dataclass(frozen=True, eq=False)
class Recipes:
    """What a composition is drawn from.

    Attributes:
        proportions: atoms of each element in a formula unit.
        pool: elements for them.
        ordered: the elements take the proportions in their order; else any different ones do.
    """

    proportions: list[tuple[int, ...]]
    pool: np.ndarray
    ordered: bool = False

    def draw(self, rng: np.random.Generator) -> tuple[list[int], tuple[int, ...]]:
        """Elements, and how many atoms of each a formula unit has."""
        counts = self.proportions[rng.integers(len(self.proportions))]
        if self.ordered:
            return self.pool.tolist(), counts
        return rng.choice(self.pool, size=len(counts), replace=False).tolist(), counts


def _recipe(condition: dict[str, Any]) -> Recipes:
    """The one composition that a formula leaves."""
    if "elements" in condition:
        raise InputError("a formula names its elements: give one of the two conditions")
    amounts = elements.parse_formula(condition["formula"])
    counts = np.array(list(amounts.values()))
    whole = counts.astype(int)
    if (whole != counts).any() or whole.min() < 1:
        raise InputError(f"formula {condition['formula']!r}: counts must be whole numbers, from 1")
    lowest = tuple((whole // np.gcd.reduce(whole)).tolist())
    return Recipes([lowest], np.array(list(amounts)), ordered=True)


class RandomCrystals(Baseline):
    """What `RandomP1` and `RandomWyckoff` share: compositions, volumes, rejection.

    A composition is the proportions of a training crystal (such as 1:1:3), given to different
    elements that are drawn uniformly from those of the training set, times a number of formula
    units that keeps the primitive cell within ``max_sites``. The volume is the sum of the volumes
    of its atoms times a factor. Volumes of the elements are those that describe the training cells
    best (see `atomic_volumes`); the factor is the ratio of true to described volume of a training
    crystal drawn at random, so that densities scatter as they do there.

    Args:
        training: as for every baseline.
        max_sites: most sites of a primitive cell.
        min_contact: closest allowed distance of two atoms, own images included, as a fraction of
            the sum of their covalent radii; 0 allows everything.
        tries: how often a sample that is refused is drawn again, all but what was asked for and
            its space group; then it fails with a reason.
    """

    conditions: ClassVar[tuple[str, ...]] = ("elements", "formula")

    def __init__(
        self,
        training: Templates | CrystalBatch,
        *,
        max_sites: int = 20,
        min_contact: float = 0.65,
        tries: int = 200,
    ) -> None:
        super().__init__(training)
        if min(max_sites, tries) < 1 or min_contact < 0:
            raise InputError(
                f"max_sites = {max_sites}, tries = {tries}, min_contact = {min_contact}: give at "
                "least one site, one try, and no negative distance"
            )
        self.max_sites, self.min_contact, self.tries = max_sites, min_contact, tries
        counts = self.training.crystals.counts().numpy()
        self.volumes, self.ratios = atomic_volumes(self.training.crystals)
        self.known = np.flatnonzero(counts.any(0))
        self.proportions = [
            tuple(int(k) for k in row[row > 0] // np.gcd.reduce(row)) for row in counts
        ]

    def _recipes(self, condition: dict[str, Any]) -> Recipes:
        if "formula" in condition:
            found = _recipe(condition)
        elif "elements" in condition:
            pool = np.array(sorted({elements.number(s) for s in condition["elements"]}))
            found = Recipes([each for each in self.proportions if len(each) == len(pool)], pool)
        else:
            found = Recipes(self.proportions, self.known)
        fitting = [each for each in found.proportions if sum(each) <= self.max_sites]
        if not fitting:
            raise InputError(
                f"no composition of at most {self.max_sites} sites for {condition}: the training "
                "set has none with so many elements, or max_sites is too small"
            )
        return Recipes(fitting, found.pool, found.ordered)

    def _cells(
        self,
        groups: np.ndarray,
        numbers: np.ndarray,
        sites: np.ndarray,
        orbits: Sequence[int],
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(n, 3, 3) cells with random volumes; for flat orbits: elements, sites, orbits of each."""
        starts = np.concatenate([[0], np.cumsum(orbits)[:-1]])
        described = np.add.reduceat(self.volumes[numbers] * sites, starts)
        return random_cells(groups, described * rng.choice(self.ratios, size=len(groups)), rng)

    def _until_accepted(
        self, n: int, attempt: Callable[[np.ndarray], tuple[CrystalBatch, np.ndarray]], reason: str
    ) -> Samples:
        """Try all places that are left, again and again; ``attempt`` says which are good."""
        left, parts = np.arange(n), []
        for _ in range(self.tries):
            tried, good = attempt(left)
            parts.append((left[good], tried[good]))
            left, rest = left[~good], tried[~good]
            if len(left) == 0:
                break
        parts.append((left, rest))
        places = np.concatenate([rows for rows, _ in parts])
        crystals = CrystalBatch.cat([part for _, part in parts if len(part)])
        return _decoded(crystals[np.argsort(places)], left, reason)

    def _apart(self, crystals: CrystalBatch) -> np.ndarray:
        """(batch,) bool: no two atoms are too close."""
        if self.min_contact == 0:
            return np.ones(len(crystals), dtype=bool)
        radius = np.nan_to_num(elements.column("covalent_radius"), nan=LARGEST_RADIUS)
        scale = np.maximum(self.min_contact * radius, 1e-6)
        return geometry.closest_contact(crystals, scale=scale)[0] >= 1.0


class RandomP1(RandomCrystals):
    """Atoms at random places of a random cell: nothing is known but compositions and densities.

    Edges and angles as in `random_cells` for triclinic crystals, coordinates uniform. By default
    nothing is refused, so that most samples hold atoms that overlap; ``min_contact=0.65`` makes
    it a random search with a distance rule.
    """

    def __init__(
        self,
        training: Templates | CrystalBatch,
        *,
        max_sites: int = 20,
        min_contact: float = 0.0,
        tries: int = 200,
    ) -> None:
        super().__init__(training, max_sites=max_sites, min_contact=min_contact, tries=tries)

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Samples, np.ndarray]:
        recipes = self._recipes(condition)

        def attempt(left: np.ndarray) -> tuple[CrystalBatch, np.ndarray]:
            drawn = [self._atoms(recipes, rng) for _ in left]
            numbers, sizes = np.concatenate(drawn), [*map(len, drawn)]
            ones = np.ones(len(left), dtype=np.int64)
            cells = self._cells(ones, numbers, np.ones(len(numbers)), sizes, rng)
            frac = rng.random((len(numbers), 3))
            tried = CrystalBatch.from_ragged(cells, frac, numbers, sizes)
            return tried, self._apart(tried)

        reason = f"atoms overlap in {self.tries} tries"
        return self._until_accepted(n, attempt, reason), np.ones(n, dtype=np.int64)

    def _atoms(self, recipes: Recipes, rng: np.random.Generator) -> np.ndarray:
        chosen, counts = recipes.draw(rng)
        units = int(rng.integers(1, self.max_sites // sum(counts) + 1))
        return np.repeat(chosen, np.array(counts) * units)


class RandomWyckoff(RandomCrystals):
    """Random crystals of a given symmetry.

    The space group is drawn with its share in the training set. Each element gets orbits, drawn
    uniformly among the Wyckoff positions that still fit its number of atoms (one without free
    parameters only once); then free parameters, and the cell of the crystal system (`random_cells`)
    are drawn. A try is refused if two atoms are too close, or if moyopy finds another space group
    (at 0.01 Å): atoms in special positions alone often have a higher symmetry.

    What is easy to place is more frequent among the samples than among the draws: a refused try
    draws everything anew but the space group, and what was asked for.
    """

    conditions: ClassVar[tuple[str, ...]] = ("space_group", "elements", "formula")

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Samples, np.ndarray]:
        recipes = self._recipes(condition)
        groups = self._groups(n, condition, recipes, rng)

        def attempt(left: np.ndarray) -> tuple[CrystalBatch, np.ndarray]:
            plans = [self._plan(int(group), recipes, rng) for group in groups[left]]
            tried, good = self._built(groups[left], plans, rng)
            good &= self._apart(tried)
            if good.any():
                found = symmetry.space_group_numbers(tried[good], symprec=FOUND_WITHIN)
                good[good] = found == groups[left[good]]
            return tried, good

        reason = f"no crystal of the space group without overlap in {self.tries} tries"
        return self._until_accepted(n, attempt, reason), groups

    def _groups(
        self, n: int, condition: dict[str, Any], recipes: Recipes, rng: np.random.Generator
    ) -> np.ndarray:
        """(n,) space groups that can hold some composition that was asked for."""
        known, place = np.unique(self.training.space_group, return_inverse=True)
        if "space_group" in condition:
            number = int(condition["space_group"])
            symmetry.operations(number)  # raises where there is no such group
            known, place = np.array([number]), np.zeros(1, dtype=np.int64)
        wanted = set(recipes.proportions)
        fits = np.array(
            [any(_units(int(g), each, self.max_sites) for each in wanted) for g in known]
        )
        if not fits[place].any():
            raise InputError(
                f"no cell of at most {self.max_sites} sites holds {condition}: the Wyckoff "
                "positions have too many sites; ask for another space group, or raise max_sites"
            )
        return known[rng.choice(place[fits[place]], size=n)]

    def _plan(self, group: int, recipes: Recipes, rng: np.random.Generator) -> Plan:
        """Element and position of each orbit; one atom where no composition finds its places."""
        for _ in range(COMPOSITIONS):
            chosen, counts = recipes.draw(rng)
            units = _units(group, counts, self.max_sites)
            if units:
                times = units[rng.integers(len(units))]
                atoms = [(z, times * k) for z, k in zip(chosen, counts, strict=True)]
                orbits = _assigned(group, atoms, rng)
                if orbits is not None:
                    return orbits
        return [(chosen[0], STUCK)]

    def _built(
        self, groups: np.ndarray, plans: Sequence[Plan], rng: np.random.Generator
    ) -> tuple[CrystalBatch, np.ndarray]:
        """Crystals with random parameters and cells, and whether each orbit has its size."""
        flat = [orbit for plan in plans for orbit in plan]
        numbers = np.array([z for z, _ in flat])
        sites = np.array([position.multiplicity for _, position in flat])
        origins = np.stack([position.origin for _, position in flat])
        directions = np.stack([position.directions for _, position in flat])  # (orbits, 3, 3)
        moved = np.einsum("oi,oij->oj", rng.random((len(flat), 3)), directions)
        sizes = [len(plan) for plan in plans]
        cells = self._cells(groups, numbers, sites, sizes, rng)
        # a batch of orbits has the form of a batch of crystals
        padded = CrystalBatch.from_ragged(cells, origins + moved, numbers, sizes)
        crystals, _ = symmetry.expand(groups, cells, padded.frac.numpy(), padded.numbers.numpy())
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        stuck = np.array([plan[0][1] is STUCK for plan in plans])
        return crystals, ~stuck & (crystals.n_sites.numpy() == np.add.reduceat(sites, starts))


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
def _units(group: int, proportions: tuple[int, ...], max_sites: int) -> tuple[int, ...]:
    """Numbers of formula units that fit a conventional cell; max_sites is of the primitive one."""
    rotations, _ = symmetry.operations(group)
    centring = int((rotations == np.eye(3)).all((1, 2)).sum())
    most = max_sites // sum(proportions) * centring
    reached = _reachable(group, most * max(proportions, default=0))
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


# ---- Wyckoff positions


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


Plan = list[tuple[int, Wyckoff]]  # element and position of each orbit
STUCK = Wyckoff(1, 0, np.zeros(3), np.zeros((3, 3)))  # a draw that did not find its places


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
    cuts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    cuts[3].append((np.zeros((1, 3)), np.eye(3)))
    for free in (3, 2, 1, 0):
        here: list[tuple[np.ndarray, np.ndarray]] = []
        for points, directions in cuts[free]:
            here += _new_sets(points, directions, here, rotations, translations)
        for origin, directions in here:
            _cut(origin, directions, rotations, translations, cuts)
            generic = origin + GENERIC[:free] @ directions
            images = np.round((rotations @ generic + translations) % 1.0, 6) % 1.0
            sites = len(np.unique(images, axis=0))
            padded = np.concatenate([directions, np.zeros((3 - free, 3))])
            found.append(Wyckoff(sites, free, origin % 1.0, padded))
    return tuple(sorted(found, key=lambda each: (each.free, each.multiplicity)))


def _cut(
    origin: np.ndarray,
    directions: np.ndarray,
    rotations: np.ndarray,
    translations: np.ndarray,
    cuts: dict[int, list[tuple[np.ndarray, np.ndarray]]],
) -> None:
    """Add to ``cuts`` the parts of a set of points that single operations leave in place."""
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
            cuts[len(kept)].append((_distinct(points, kept), kept))


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
    points: np.ndarray,
    directions: np.ndarray,
    known: Sequence[tuple[np.ndarray, np.ndarray]],
    rotations: np.ndarray,
    translations: np.ndarray,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sets of points that no operation maps onto known ones, or onto one another."""
    generic = points + GENERIC[: len(directions)] @ directions
    images = np.einsum("gij,pj->pgi", rotations, generic) + translations
    out: list[tuple[np.ndarray, np.ndarray]] = []
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


# ---- cells and volumes


def random_cells(
    space_groups: np.ndarray, volumes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(n, 3, 3) random cells, Å, of the crystal systems of space groups, with volumes in Å^3.

    Free edges have uniform logarithms, and no two differ by more than a factor of 3. Free angles
    are uniform in 60 to 120 degrees, in monoclinic cells in 90 to 120; triclinic ones are
    drawn again where the cell has less than 0.3 of the volume of a box with its edges.
    """
    n = len(space_groups)
    edges = np.exp(rng.uniform(0.0, np.log(LONGEST_RATIO), (n, 3)))
    edges[space_groups >= 75, 1] = edges[space_groups >= 75, 0]  # tetragonal and hexagonal
    edges[space_groups >= 195] = 1.0
    angles = np.full((n, 3), 90.0)
    angles[(space_groups >= 143) & (space_groups < 195), 2] = 120.0
    monoclinic = (space_groups >= 3) & (space_groups < 16)
    angles[monoclinic, 1] = rng.uniform(90.0, 120.0, int(monoclinic.sum()))  # unique axis b
    flat = np.flatnonzero(space_groups < 3)
    while len(flat):
        angles[flat] = rng.uniform(60.0, 120.0, (len(flat), 3))
        shapes = _cells_of(np.ones((len(flat), 3)), angles[flat])
        flat = flat[_box(shapes) < FLATTEST]
    cells = _cells_of(edges, angles)
    return cells * ((volumes / _box(cells)) ** (1 / 3))[:, None, None]


def _cells_of(edges: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(n, 3, 3) rows a, b, c from edges and angles in degrees; flat where angles do not close."""
    alpha, beta, gamma = np.cos(np.radians(angles)).round(15).T
    cells = np.zeros((len(edges), 3, 3))
    cells[:, 0, 0] = 1.0
    cells[:, 1, 0], cells[:, 1, 1] = gamma, np.sqrt(1 - gamma**2)
    cells[:, 2, 0], cells[:, 2, 1] = beta, (alpha - beta * gamma) / cells[:, 1, 1]
    cells[:, 2, 2] = np.sqrt(np.clip(1 - beta**2 - cells[:, 2, 1] ** 2, 0.0, None))
    return cells * edges[:, :, None]


def _box(cells: np.ndarray) -> np.ndarray:
    """(n,) volumes of cells whose rows form a lower triangle."""
    return np.prod(np.diagonal(cells, axis1=1, axis2=2), axis=1)


def atomic_volumes(crystals: CrystalBatch) -> tuple[np.ndarray, np.ndarray]:
    """Volumes of the elements that describe the volumes of crystals as sums, by least squares.

    Relative errors count. Each element is pulled to the median volume per atom with the weight of
    a tenth of a crystal, so that rare ones stay sensible.

    Returns:
        (119,) Å^3, index = atomic number, and (n,) true volumes over described ones.
    """
    from scipy.optimize import nnls

    counts = crystals.counts().numpy().astype(float)
    volume = geometry.volume(crystals).numpy()
    typical = float(np.median(volume / counts.sum(1)))
    prior = np.sqrt(0.1) * np.eye(elements.N_COLUMNS)
    share = np.concatenate([counts / volume[:, None] * typical, prior])
    target = np.concatenate([np.ones(len(counts)), prior.sum(1)])
    volumes = nnls(share, target)[0] * typical
    volumes[0] = 0.0
    return volumes, volume / (counts @ volumes)


# ---- prototypes and exchanges


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
    import moyopy

    out = []
    for i, crystal in enumerate(crystals):
        n = int(crystal.n_sites[0])
        numbers = crystal.numbers[0, :n].tolist()
        cell = moyopy.Cell(crystal.lattice[0].tolist(), crystal.frac[0, :n].tolist(), numbers)
        try:
            data = moyopy.MoyoDataset(cell, symprec=FOUND_WITHIN, setting=moyopy.Setting.standard())
        except ValueError as error:
            raise InputError(f"crystal {i}: moyopy finds no symmetry ({error}); drop it") from error
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


def exchange_pairs(held: Sequence[Occupation]) -> np.ndarray:
    """(119, 119) contexts in which both elements occur; see `IonExchange`."""
    contexts: dict[tuple, set[int]] = defaultdict(set)
    for occupation in held:
        for z in {z for _, z in occupation.ways[0]}:
            contexts[occupation.without(z)].add(z)
    pairs = np.zeros((elements.N_COLUMNS, elements.N_COLUMNS), dtype=np.int64)
    for found in contexts.values():
        for a, b in itertools.permutations(found, 2):
            pairs[a, b] += 1
    return pairs


@cache
def grid_orbits(space_group: int) -> np.ndarray:
    """(orbits, 3) one position, in quarters, of each orbit of the grid of multiples of 1/4."""
    rotations, translations = symmetry.operations(space_group)
    points = np.stack(np.meshgrid(*[np.arange(GRID)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    images = np.einsum("gij,pj->pgi", rotations, points) + translations * GRID
    images = np.rint(images).astype(np.int64) % GRID  # (points, operations, 3)
    labels = (images @ [GRID * GRID, GRID, 1]).min(1)
    return points[np.unique(labels)]


def _families(known: np.ndarray) -> dict[int, np.ndarray]:
    """Each known element -> the known elements of its family, itself included."""
    column = elements.column("group").copy()
    column[57:72], column[89:104] = 101, 102  # lanthanides and actinides
    return {int(z): known[column[known] == column[z]] for z in known}


def _relatives(
    old: list[int], families: dict[int, np.ndarray], rng: np.random.Generator
) -> list[int]:
    """A different element of its family for each, all different; itself where there is none."""
    new: list[int] = []
    for place, z in enumerate(old):
        taken = {z, *new, *_alone(old[place + 1 :], families)}
        free = [int(other) for other in families[z] if other not in taken]
        new.append(int(rng.choice(free)) if free else z)
    # an element that stayed may have been given away before
    return new if len(set(new)) == len(new) else old


def _alone(numbers: Sequence[int], families: dict[int, np.ndarray]) -> list[int]:
    return [z for z in numbers if len(families[z]) == 1]


def _by_electronegativity(numbers: Sequence[int]) -> list[int]:
    chi = np.nan_to_num(elements.column("electronegativity"), nan=9.0)
    return sorted(set(numbers), key=lambda z: (chi[z], z))


def _swapped(crystals: CrystalBatch, swap: np.ndarray) -> CrystalBatch:
    """Replace elements by ``swap`` (n, 119) and scale the cells by the covalent radii."""
    new = _refilled(crystals, swap)
    radius = torch.as_tensor(np.nan_to_num(elements.column("covalent_radius")))
    ratio = radius[new.numbers].sum(1) / radius[crystals.numbers].sum(1)
    return CrystalBatch(crystals.lattice * ratio[:, None, None], crystals.frac, new.numbers)


def _exchanged(crystals: CrystalBatch, swap: np.ndarray, volumes: np.ndarray) -> CrystalBatch:
    """Replace elements by ``swap`` (n, 119) and scale the cells by the volumes of the elements.

    Between pairs of known crystals of one prototype this errs by 1.8 % in the length, covalent
    radii by 4.4 % (medians of 11,647 pairs among 1,500 crystals of oqmd_icsd).
    """
    new = _refilled(crystals, swap)
    volume = torch.as_tensor(volumes)
    ratio = (volume[new.numbers].sum(1) / volume[crystals.numbers].sum(1)) ** (1 / 3)
    return CrystalBatch(crystals.lattice * ratio[:, None, None], crystals.frac, new.numbers)


def _refilled(crystals: CrystalBatch, swap: np.ndarray) -> CrystalBatch:
    new = torch.as_tensor(np.take_along_axis(swap, crystals.numbers.numpy(), axis=1))
    return CrystalBatch(crystals.lattice, crystals.frac, new)


def _decoded(crystals: CrystalBatch, failed: np.ndarray, reason: str) -> Samples:
    """All are right but some, which share a reason."""
    ok = np.ones(len(crystals), dtype=bool)
    ok[failed] = False
    return Samples(crystals, ok, tuple("" if good else reason for good in ok))
