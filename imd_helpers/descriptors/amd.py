"""Average minimum distances: a continuous fingerprint of a periodic arrangement of points.

Row i of the pointwise distances of a crystal holds the distances from site i of a cell to its k
nearest neighbours in the whole crystal, ascending; the mean over the sites is the average minimum
distances (AMD), one vector of length k. Neither depends on the choice of cell, origin, orientation
or hand, and both change little when atoms move little, so that distances between them need no
tolerance. They see points only: elements do not count.

Source: Widdowson, Mosca, Pulido, Cooper & Kurlin, MATCH 87 (2022) 529;
pointwise distances: Widdowson & Kurlin, NeurIPS 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..crystals.rules import broken_crystals
from ..runtime import InputError

if TYPE_CHECKING:
    from ..crystals import CrystalBatch

K = 100  # neighbours, as in the source


def average_minimum_distances(crystals: CrystalBatch, *, k: int = K) -> np.ndarray:
    """Mean distance of the sites of each crystal to their 1st, 2nd, … k-th neighbour.

    Args:
        crystals: n crystals.
        k: how many neighbours.

    Returns:
        (n, k) Å, ascending; NaN where a crystal is broken (not finite, no volume, no atoms) or so
        elongated that its neighbours lie in more than two million cells.

    Raises:
        InputError: k is not positive.
    """
    return _nearest(crystals, k, average=True)[:, 0]


def pointwise_distances(crystals: CrystalBatch, *, k: int = K) -> np.ndarray:
    """Distances of each site to its k nearest neighbours, ascending.

    Args:
        crystals: n crystals.
        k: how many neighbours.

    Returns:
        (n, sites, k) Å; NaN for padding and for crystals without AMD.

    Raises:
        InputError: k is not positive.
    """
    return _nearest(crystals, k, average=False)


def nearest_rows(new: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the nearest of other rows by the largest difference (Chebyshev distance).

    Args:
        new: (n, k) e.g. average minimum distances.
        known: (m, k).

    Returns:
        (n,) distances and (n,) indices.
    """
    from scipy.spatial import cKDTree

    distance, index = cKDTree(known).query(new, p=np.inf)
    return distance, index.astype(np.int64)


def _nearest(crystals: CrystalBatch, k: int, *, average: bool) -> np.ndarray:
    from ..kernels.neighbours import nearest

    if k < 1:
        raise InputError(f"k={k}: the number of neighbours must be at least 1, e.g. {K}")
    lattice = crystals.lattice.detach().cpu().double()
    frac = crystals.frac.detach().cpu().double()
    out = np.empty((len(crystals), 1 if average else frac.shape[1], int(k)))
    nearest(
        np.ascontiguousarray(lattice.numpy()),
        np.ascontiguousarray(frac.numpy()),
        measurable_sites(crystals),
        int(k),
        average,
        out,
    )
    return out


def measurable_sites(crystals: CrystalBatch) -> np.ndarray:
    """(n,) number of sites; 0 for a crystal that cannot be measured."""
    return np.where(broken_crystals(crystals), 0, crystals.n_sites.cpu().numpy())
