"""Checks of the chapters on the foundations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import permutations

import numpy as np
import pandas as pd

from .. import datasets
from ..crystals import symmetry
from ..crystals.compositions import amounts
from ..descriptors.symmetry_sites import SPACE_GROUPS, find_sites
from ..predictors.boosted import conformal_radius
from ..predictors.gaussian import expected_improvement

# ---- inverse_design


@cache
def _values() -> np.ndarray:
    """(943, 2) lattice constants and formation energies of CubicGAN's crystals."""
    cubic = datasets.load("oqmd_icsd").select(nelements=3, space_groups=list(SPACE_GROUPS))
    sites, kept = find_sites(cubic.crystals)
    energy = cubic.table["formation_energy"].to_numpy()[kept]
    return np.stack([sites.length, energy], axis=1)


def _hits(wanted: tuple[float, float], windows: tuple[float, float]) -> int:
    return int((np.abs(_values() - wanted) / windows <= 1).all(1).sum())


def calls_for_one_hit(candidates: int, hits: int, *, chance: float) -> float:
    """Fewest random calls, none repeated, that find a hit with at least this probability."""
    miss = 1.0
    for calls in range(1, candidates + 1):
        miss *= max(candidates - hits - calls + 1, 0) / (candidates - calls + 1)
        if 1.0 - miss >= chance:
            return calls
    return math.inf


# ---- screening


def cheapest_order(costs: Sequence[float], passes: Sequence[float]) -> float:
    """Mean cost of a candidate in the best order of independent questions."""

    def cost(order: Sequence[int]) -> float:
        reached = np.cumprod([1.0, *(passes[k] for k in order[:-1])])
        return float(sum(c * costs[k] for c, k in zip(reached, order, strict=True)))

    return min(map(cost, permutations(range(len(costs)))))


def both_databases(split: str | None) -> tuple[pd.Series, pd.Series]:
    """Lowest formation energies of the formulas that OQMD and the Materials Project share."""
    oqmd = datasets.load("oqmd_formulas").table.set_index("formula")["formation_energy"]
    table = datasets.load("mp_e_form", split=split).table
    project = table.groupby("formula")["formation_energy"].min()
    common = oqmd.index.intersection(project.index)
    return oqmd[common], project[common]


def radius_of_a_database() -> float:
    """Within how much 90 % of OQMD's energies predict the project's lowest ones (eV/atom)."""
    oqmd, project = both_databases("train")
    return conformal_radius((oqmd - project).abs(), 0.9)


# ---- databases


def alkali_oxides() -> int:
    """Ternary oxides of Li, Na or K of the type A4B2C, at most 0.05 eV/atom above the hull."""
    data = datasets.load("oqmd_icsd").select(elements="O", nelements=3, max_sites=20)
    counts = amounts(data.table["formula"].tolist())  # (crystals, 119)
    found = (np.sort(counts, axis=1)[:, -3:] == (1, 2, 4)).all(1)
    found &= (counts[:, [3, 11, 19]] > 0).any(1)
    found &= data.table["energy_above_hull"].to_numpy() <= 0.05
    return int(found.sum())


def opposite_signs() -> float:
    """Share of common formulas whose formation energy has another sign in OQMD and MP."""
    oqmd, project = both_databases(None)
    return float(((oqmd < 0) != (project < 0)).mean())


# ---- tools


def oxide_correction(formula: str) -> float:
    """By how much the Materials Project's correction lowers an oxide (eV/atom)."""
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    each = MaterialsProject2020Compatibility().comp_correction["oxide"]  # eV for each oxygen
    counts = amounts([formula])[0]
    return -each * float(counts[8] / counts.sum())


TRUTHS = {
    "inverse_design.1": lambda: _hits((4.0, -2.5), (0.15, 0.25)),
    "inverse_design.2": lambda: calls_for_one_hit(
        len(_values()), _hits((6.2, -0.3), (0.1, 0.1)), chance=0.95
    ),
    "screening.1": lambda: cheapest_order((1.0, 5.0, 40.0), (0.9, 0.2, 0.1)),
    "screening.2": radius_of_a_database,
    "global_optimisation.1": lambda: math.ceil(math.log(0.05) / math.log(0.95)),
    "global_optimisation.2": lambda: expected_improvement(
        np.array([-8.39]), np.array([0.03]), -8.40
    )[0],
    "databases.1": alkali_oxides,
    "databases.2": opposite_signs,
    "tools.1": lambda: len(symmetry.operations(136)[0]),
    "tools.2": lambda: oxide_correction("SrTiO3"),
}
