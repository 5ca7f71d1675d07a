"""High-throughput screening: write a list, then ask about what is on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..crystals import elements
from ..descriptors.symmetry_sites import N_ROWS, Sites
from ..runtime import number, whole
from .oracle import CountedOracle, crystal_keys


def distinct(sites: Sites, *, without: Sites | None = None) -> Sites:
    """The first of each crystal, leaving out those of another list.

    Args:
        sites: crystals with repetitions.
        without: crystals that are known already.
    """
    seen = set(crystal_keys(without)) if without else set()
    first = {key: i for i, key in reversed(list(enumerate(crystal_keys(sites))))}
    return sites[np.array(sorted(i for key, i in first.items() if key not in seen), dtype=int)]


def substitutions(sites: Sites) -> Sites:
    """All crystals made by replacing one element by another of its column of the periodic table.

    Only elements that occur in ``sites`` are used, lanthanides and actinides count as the column
    of scandium, and no crystal of ``sites`` comes back. The new crystals carry their parent's
    length.
    """
    known = np.unique(sites.numbers)
    column = elements.column("group")
    parts = []
    for z in known:
        others = known[(column[known] == column[z]) & (known != z)]
        for row in range(N_ROWS):
            held = sites.numbers[:, row] == z
            for other in others:
                parents = sites[held & (sites.numbers != other).all(1)]  # three different elements
                numbers = parents.numbers.copy()
                numbers[:, row] = other
                parts.append(replace(parents, numbers=numbers))
    return distinct(Sites.cat(parts), without=sites) if parts else sites[:0]


def screen(oracle: CountedOracle, candidates: Sites, *, budget: int, seed: int = 0) -> None:
    """Ask about ``budget`` candidates in a random order; the answers are in ``oracle.log()``.

    Raises:
        InputError: a budget below 1, or no candidates.
    """
    whole("budget", budget, least=1)
    whole("number of candidates", len(candidates), least=1)
    order = np.random.default_rng(whole("seed", seed)).permutation(len(candidates))[:budget]
    oracle(candidates[order])


def with_length(sites: Sites, length: float = 10.0) -> Sites:
    """The same sites in cells of a given length, Å, for searches that know none."""
    return replace(sites, length=np.full(len(sites), number("length", length, above=0)))
