"""A small evolutionary search over prototypes and elements.

A genome is four integers: a prototype and the elements on its three sites. The lattice constant is
no gene: for given elements and sites it is a property, which the oracle predicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..crystals import elements
from ..descriptors.symmetry_sites import N_ROWS, Sites, prototype
from ..runtime import InputError, number, whole
from .oracle import CountedOracle, Target

NEIGHBOURS = 3
ELITE = 2  # genomes that go on as they are


@dataclass(frozen=True, eq=False)
class GenePool:
    """What genomes are made of."""

    space_group: np.ndarray  # (prototypes,) ITA numbers
    grid: np.ndarray  # (prototypes, 3, 3) sites in units of 1/4
    elements: np.ndarray  # (elements,) atomic numbers

    @classmethod
    def from_sites(cls, sites: Sites, *, min_count: int = 1) -> GenePool:
        """Prototypes that at least ``min_count`` crystals have, and all elements of ``sites``.

        Raises:
            InputError: no prototype is that frequent.
        """
        patterns, counts = np.unique(_patterns(sites), axis=0, return_counts=True)
        patterns = patterns[counts >= whole("min_count", min_count, least=1)]
        if len(patterns) == 0:
            raise InputError(
                f"no prototype occurs {min_count} times: the most frequent occurs {counts.max()} "
                "times, lower min_count"
            )
        return cls(patterns[:, 0], patterns[:, 1:].reshape(-1, N_ROWS, 3), np.unique(sites.numbers))

    @property
    def size(self) -> int:
        """Number of genomes; crystals are fewer where two sites of a prototype are alike."""
        k = len(self.elements)
        return len(self.space_group) * k * (k - 1) * (k - 2)

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, 4) random genomes: a prototype and three different elements, all equally likely."""
        prototype = rng.integers(len(self.space_group), size=(n, 1))
        order = rng.random((n, len(self.elements))).argsort(1)[:, :N_ROWS]
        return np.concatenate([prototype, self.elements[order]], axis=1)

    def neighbours(self, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each atomic number one close by in the order of Mendeleev numbers."""
        place = np.nan_to_num(elements.column("mendeleev_number"))
        line = self.elements[np.argsort(place[self.elements], kind="stable")]
        position = np.argsort(line)[np.searchsorted(np.sort(line), numbers)]
        step = rng.integers(1, NEIGHBOURS + 1, size=numbers.shape)
        sign = rng.choice([-1, 1], size=numbers.shape)
        return line[np.clip(position + sign * step, 0, len(line) - 1)]

    def sites(self, genes: np.ndarray) -> Sites:
        """The crystals of (n, 4) genomes; their length is NaN, because it is not known."""
        prototype, numbers = genes[:, 0], genes[:, 1:]
        unknown = np.full(len(genes), np.nan)
        return Sites(self.space_group[prototype], numbers, self.grid[prototype], unknown)


def _patterns(sites: Sites) -> np.ndarray:
    """(n, 10) space group and sites of each crystal, the same for all orders of its rows."""
    rows, which = np.unique(sites.patterns(), axis=0, return_inverse=True)
    named = [prototype(int(row[0]), row[1:].reshape(N_ROWS, 3)) for row in rows]
    return np.array([[group, *np.ravel(orbits)] for group, orbits in named])[which.ravel()]


# ---- the algorithm


def tournament(
    fitness: np.ndarray, n: int, rng: np.random.Generator, *, size: int = 3
) -> np.ndarray:
    """(n,) indices of winners: the fittest of ``size`` drawn at random with replacement."""
    drawn = rng.integers(len(fitness), size=(n, size))
    return drawn[np.arange(n), fitness[drawn].argmax(1)]


def tournament_probability(population: int, size: int) -> np.ndarray:
    """(population,) probabilities that the individual of rank 1, 2, … wins one tournament.

    ``((n - r + 1)^k - (n - r)^k) / n^k``, equation (eq-inverse-tournament) of the chapter on
    inverse design, for n individuals of different fitness of which k are drawn with replacement.
    """
    rank = np.arange(1, whole("population", population, least=1) + 1)
    return ((population - rank + 1.0) ** size - (population - rank) ** size) / population**size


def crossover(mothers: np.ndarray, fathers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 4) children that take each gene from either parent."""
    return np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)


def mutate(
    genes: np.ndarray, pool: GenePool, rng: np.random.Generator, *, rate: float = 0.25
) -> np.ndarray:
    """Change each gene with probability ``rate``; genomes that repeat an element start anew.

    Half of the changed elements are redrawn, the other half step to a chemical neighbour: up to
    `NEIGHBOURS` places along the Mendeleev numbers of the pool's elements.
    """
    redrawn = pool.random(len(genes), rng)
    near = rng.random(genes.shape) < 0.5
    redrawn[:, 1:] = np.where(near[:, 1:], pool.neighbours(genes[:, 1:], rng), redrawn[:, 1:])
    number("rate", rate, least=0, most=1)
    changed = np.where(rng.random(genes.shape) < rate, redrawn, genes)
    ordered = np.sort(changed[:, 1:], axis=1)
    broken = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    changed[broken] = pool.random(int(broken.sum()), rng)
    return changed


def next_generation(
    genes: np.ndarray, fitness: np.ndarray, pool: GenePool, rng: np.random.Generator, *, elite: int
) -> np.ndarray:
    """The ``elite`` fittest and their population's children, as many as there were genomes."""
    n = len(genes) - whole("elite", elite, most=len(genes))
    best = np.argsort(-fitness, kind="stable")[:elite]
    mothers, fathers = genes[tournament(fitness, n, rng)], genes[tournament(fitness, n, rng)]
    children = mutate(crossover(mothers, fathers, rng), pool, rng)
    return np.concatenate([genes[best], children])


def evolve(
    oracle: CountedOracle,
    pool: GenePool,
    target: Target,
    *,
    budget: int,
    population: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """Search until another generation could ask for more than ``budget`` crystals.

    The fitness is minus the distance to the target, and the `ELITE` fittest live on; the answers
    are in `oracle.log`.

    Returns:
        The best fitness of each generation.

    Raises:
        InputError: a budget below the population, or no room for children.
    """
    whole("population", population, least=ELITE + 1)
    if whole("budget", budget) < population:
        raise InputError(f"budget={budget}, population={population}: need population <= budget")
    rng = np.random.default_rng(whole("seed", seed))
    genes, best = pool.random(population, rng), []
    for _ in range(10 * budget // population):  # an end even where no new crystals appear
        fitness = -target.distance(oracle(pool.sites(genes)))
        best.append(fitness.max())
        if oracle.calls + population - ELITE > budget:
            break
        genes = next_generation(genes, fitness, pool, rng, elite=ELITE)
    return np.array(best)
