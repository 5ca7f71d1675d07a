"""High-throughput screening: write a list, then ask about what is on it."""

from __future__ import annotations

import numpy as np

from ..crystals import elements
from ..descriptors.symmetry_sites import N_ROWS, Sites
from ..runtime import InputError
from .oracle import CountedOracle, concatenate, crystal_keys


def distinct(sites: Sites, *, without: Sites | None = None) -> Sites:
    """The first of each crystal, leaving out those of another list.

    Args:
        sites: crystals with repetitions.
        without: crystals that are known already.
    """
    seen = set() if without is None or len(without) == 0 else set(crystal_keys(without))
    keep = []
    for i, key in enumerate(crystal_keys(sites) if len(sites) else []):
        if key not in seen:
            seen.add(key)
            keep.append(i)
    return sites[np.array(keep, dtype=int)]


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
            parents = sites[np.flatnonzero(sites.numbers[:, row] == z)]
            parts += [_replace(parents, row, int(other)) for other in others]
    parts = [part for part in parts if len(part)]
    return distinct(concatenate(parts), without=sites) if parts else sites[:0]


def _replace(parents: Sites, row: int, other: int) -> Sites:
    parents = parents[~(parents.numbers == other).any(1)]  # keep three different elements
    numbers = parents.numbers.copy()
    numbers[:, row] = other
    return Sites(parents.space_group, numbers, parents.grid, parents.length)


def screen(oracle: CountedOracle, candidates: Sites, *, budget: int, seed: int = 0) -> None:
    """Ask about ``budget`` candidates in a random order; the answers are in ``oracle.log()``.

    Raises:
        InputError: a budget below 1, or no candidates.
    """
    if budget < 1 or len(candidates) == 0:
        raise InputError(
            f"budget={budget}, {len(candidates)} candidates: screening needs at least one of each"
        )
    order = np.random.default_rng(seed).permutation(len(candidates))[:budget]
    oracle(candidates[order])


def with_length(sites: Sites, length: float | np.ndarray = 10.0) -> Sites:
    """The same sites in cells of a given length, Å, for searches that know none."""
    filled = np.broadcast_to(np.asarray(length, dtype=float), (len(sites),)).copy()
    return Sites(sites.space_group, sites.numbers, sites.grid, filled)
