"""Checks of the chapter on stability."""

from __future__ import annotations

import numpy as np

from .base import Check


def formation_energy(formula: str, potential: str) -> float:
    """Formation energy of the lowest known form of a formula, from recorded energies, eV/atom."""
    from .. import datasets
    from ..energies import hull

    known = datasets.load("oqmd_icsd")
    phases = hull.phases(potential)
    named = (known.table["formula"] == formula).to_numpy()
    mine = (phases.rows >= 0) & named[phases.rows]
    return float(hull.formation_energy(phases.fraction[mine], phases.energy[mine], potential).min())


def above_line(x: float, energy: float, points: list[tuple[float, float]]) -> float:
    """Energy above the hull of a binary system, by the package's linear programme."""
    from ..energies.hull import hull_energy

    share, energies = np.array(points).T
    phases = np.stack([1 - share, share], axis=1)
    return energy - hull_energy(np.array([1 - x, x]), phases, energies)


CHECKS = {
    "stability.1": Check(
        lambda: formation_energy("MgO", "sevennet"),
        "Take all three energies per atom from the same potential; half of the atoms of MgO are "
        "oxygen. The most stable form of an element is the one of lowest energy.",
        tolerance=2e-3,
    ),
    "stability.2": Check(
        lambda: above_line(1 / 3, -0.26, [(0, 0), (0.25, -0.25), (0.5, -0.30), (1, 0)]),
        "A2B lies between A3B and AB. Which share of the atoms is in which of the two, if one "
        "atom in three is B?",
        tolerance=0.02,
    ),
}
