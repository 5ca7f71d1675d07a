"""Which crystals are the same: uniqueness and novelty.

"The same" means what pymatgen's `StructureMatcher.fit` means by it, decided by compiled code (see
`matching`, which says how enantiomers, supercells and scaled copies are treated). Beside the yes or
no stands a distance without thresholds, the largest difference of average minimum distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..crystals import CrystalBatch, compositions
from ..crystals.rules import safe_counts
from ..descriptors import amd
from . import cells as matching
from .cells import NONE, MatchSettings

__all__ = [
    "NONE",
    "MatchSettings",
    "Matches",
    "novel",
    "same_as_earlier",
    "same_as_reference",
    "structure_distance",
    "unique",
]


@dataclass(frozen=True, eq=False)
class Matches:
    """For each of n crystals the first that is the same."""

    first: np.ndarray  # (n,) index, or `NONE`
    failed: dict[int, str]  # index -> why a crystal could not be compared


def unique(crystals: CrystalBatch, *, settings: MatchSettings | None = None) -> np.ndarray:
    """(n,) bool: not the same as an earlier one? The first of each group counts, a broken one not.

    Enantiomers are the same, and so are supercells (with ``primitive_cell``) and scaled copies
    (with ``scale``); see `matching`.
    """
    return _not_found(same_as_earlier(crystals, settings=settings))


def novel(
    crystals: CrystalBatch, reference: CrystalBatch, *, settings: MatchSettings | None = None
) -> np.ndarray:
    """(n,) bool: the same as no crystal of a reference, and not broken?"""
    return _not_found(same_as_reference(crystals, reference, settings=settings))


def same_as_earlier(crystals: CrystalBatch, *, settings: MatchSettings | None = None) -> Matches:
    """The first crystal of the group that each crystal repeats, as `group_structures` groups them.

    A crystal is compared with the first one of each group, in order; the first that matches wins.
    """
    cells = matching.reduce_cells(crystals, settings)
    first = matching.first_matches(cells, matching.buckets(cells), settings=settings)
    return Matches(first, cells.failed)


def same_as_reference(
    crystals: CrystalBatch, reference: CrystalBatch, *, settings: MatchSettings | None = None
) -> Matches:
    """The first crystal of a reference that is the same as each crystal.

    The crystal is mapped onto that of the reference, as in ``StructureMatcher.fit(known, new)``.
    """
    rows = matching.same_compositions(reference, crystals)
    m = len(rows)
    both = CrystalBatch.cat([reference[rows].to("cpu"), crystals.to("cpu")])
    cells = matching.reduce_cells(both, settings)
    shared = [members for members in matching.buckets(cells) if members[0] < m <= members[-1]]
    first = matching.first_matches(
        cells,
        shared,
        n_old=[int((members < m).sum()) for members in shared],
        settings=settings,
    )[m:]
    failed = {i - m: why for i, why in cells.failed.items() if i >= m}
    found = first != NONE
    first[found] = rows[first[found]]
    return Matches(first, failed)


def structure_distance(
    crystals: CrystalBatch, reference: CrystalBatch, *, same_composition: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """How far is the nearest crystal of a reference, with no threshold?

    The distance of two crystals is the largest difference between their average minimum distances
    (`descriptors.amd`). It is continuous, and 0 for the same crystal in any cell, position and
    orientation; enantiomers and crystals that differ only in their elements are at distance 0 too,
    and copies at another scale are not.

    Args:
        crystals: n crystals.
        reference: what is known already.
        same_composition: compare only crystals of the same reduced formula.

    Returns:
        (n,) distances in Å: infinite where no reference crystal may be compared, NaN where the
        crystal is broken or too elongated to count neighbours; and (n,) index of the nearest, or
        `NONE`.

    Source: Widdowson et al., MATCH 87 (2022) 529.
    """
    from scipy.spatial import cKDTree

    ours = amd.average_minimum_distances(crystals)
    theirs = amd.average_minimum_distances(reference)
    broken = np.isnan(ours).any(1)
    distance = np.where(broken, np.nan, np.inf)
    index = np.full(len(crystals), NONE)
    unusable = np.isnan(theirs).any(1)
    for rows, others in _comparable(crystals, reference, same_composition):
        new, known = rows[~broken[rows]], others[~unusable[others]]
        if len(new) and len(known):
            distance[new], place = cKDTree(theirs[known]).query(ours[new], p=np.inf)
            index[new] = known[place]
    return distance, index


def _not_found(found: Matches) -> np.ndarray:
    ok = found.first == NONE
    ok[list(found.failed)] = False
    return ok


def _comparable(
    crystals: CrystalBatch, reference: CrystalBatch, same_composition: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of crystals, and of the reference crystals that each of them is compared with."""
    if not same_composition:
        yield np.arange(len(crystals)), np.arange(len(reference))
        return
    news, places = (
        compositions.grouped(compositions.keys(safe_counts(each))) for each in (crystals, reference)
    )
    for key in news.keys() & places.keys():
        yield news[key], places[key]
