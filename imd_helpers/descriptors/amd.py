"""Average minimum distances: a continuous fingerprint of a periodic arrangement of points.

The distances from each site of a cell to its k nearest neighbours in the whole crystal, ascending,
averaged over the sites: one vector of length k. It does not depend on the choice of cell, origin,
orientation or hand, and changes little when atoms move little, so that distances between two of
them need no tolerance. It sees points only: elements do not count.

Source: Widdowson, Mosca, Pulido, Cooper & Kurlin, MATCH 87 (2022) 529.
"""

from __future__ import annotations

import numpy as np

from ..crystals.batch import CrystalBatch, check_shapes
from ..crystals.rules import broken_crystals
from ..runtime import whole

K = 100  # neighbours, as in the source
MOST = 100_000  # neighbours, whose distances fit into memory


def average_minimum_distances(crystals: CrystalBatch, *, k: int = K) -> np.ndarray:
    """Mean distance of the sites of each crystal to their 1st, 2nd, … k-th neighbour.

    Returns:
        (n, k) Å, ascending; NaN where a crystal is broken (not finite, no volume, no atoms) or so
        elongated that its neighbours lie in more than two million cells.

    Raises:
        InputError: k is not positive.
    """
    from ..kernels.neighbours import mean_nearest

    check_shapes(crystals)
    out = np.empty((len(crystals), whole("k", k, least=1, most=MOST)))
    mean_nearest(*measurable_sites(crystals), int(k), out)
    return out


def measurable_sites(crystals: CrystalBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lattices, coordinates and numbers of sites for compiled loops.

    Returns:
        (n, 3, 3) Å, (n, sites, 3), and (n,), 0 for a crystal that cannot be measured.
    """
    broken = broken_crystals(crystals)
    lattice = crystals.lattice.detach().cpu().double().numpy()
    frac = crystals.frac.detach().cpu().double().numpy()
    n_sites = np.where(broken, 0, crystals.n_sites.cpu().numpy())
    lattice = np.where(broken[:, None, None], np.eye(3), lattice)
    return lattice, np.where(broken[:, None, None], 0.0, frac), n_sites
