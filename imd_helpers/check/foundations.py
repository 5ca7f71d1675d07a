"""Checks of the chapters on the foundations."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from .. import datasets
from ..descriptors.symmetry_sites import SPACE_GROUPS, find_sites
from ..search.oracle import Target

# ---- inverse_design


@cache
def _values() -> np.ndarray:
    """(943, 2) lattice constants and formation energies of CubicGAN's crystals."""
    cubic = datasets.load("oqmd_icsd").select(nelements=3, space_groups=list(SPACE_GROUPS))
    sites, kept = find_sites(cubic.crystals)
    energy = cubic.table["formation_energy"].to_numpy()[kept]
    return np.stack([sites.length, energy], axis=1)


def _hits(target: Target) -> int:
    return int(target.hit(_values()).sum())


def calls_for_one_hit(candidates: int, hits: int, *, chance: float) -> float:
    """Fewest random calls, none repeated, that find a hit with at least this probability."""
    miss = 1.0
    for calls in range(1, candidates + 1):
        miss *= max(candidates - hits - calls + 1, 0) / (candidates - calls + 1)
        if 1.0 - miss >= chance:
            return calls
    return math.inf


TRUTHS = {
    "inverse_design.1": lambda: _hits(
        Target(length=4.0, energy=-2.5, length_window=0.15, energy_window=0.25)
    ),
    "inverse_design.2": lambda: calls_for_one_hit(
        len(_values()), _hits(Target(length=6.2, energy=-0.3)), chance=0.95
    ),
}
