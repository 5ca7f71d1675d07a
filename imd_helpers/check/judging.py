"""Checks of the chapters on judging."""

from __future__ import annotations

import math

import numpy as np
import torch

from .. import datasets
from ..crystals import CrystalBatch, elements
from ..energies import hull
from ..energies.hull import hull_energy
from ..judge import geometry_valid, wilson
from .base import Check

# ---- metrics


def shortest_edge(symbol: str) -> float:
    """Smallest edge, Å, of a cubic cell with one atom that the rule ``imd`` passes."""
    edges = np.arange(0.5, 5.0, 1e-3)
    n = len(edges)
    atom = torch.full((n, 1), elements.number(symbol))
    cells = torch.as_tensor(edges)[:, None, None] * torch.eye(3, dtype=torch.float64)
    ok = geometry_valid(CrystalBatch(cells, torch.zeros(n, 1, 3, dtype=torch.float64), atom))
    return float(edges[int(np.argmax(ok))])


def samples_to_separate(low: float, high: float, *, step: int = 50) -> int:
    """Fewest samples of each, in steps, for which two Wilson intervals do not overlap."""
    n = np.arange(step, 1_000_000, step)
    _, top = wilson(np.rint(low * n), n)
    bottom, _ = wilson(np.rint(high * n), n)
    return int(n[int(np.argmax(top < bottom))])


# ---- stability


def formation_energy(formula: str, potential: str) -> float:
    """Formation energy of the lowest known form of a formula, from recorded energies, eV/atom."""
    known = datasets.load("oqmd_icsd")
    phases = hull.phases(potential)
    named = (known.table["formula"] == formula).to_numpy()
    mine = (phases.rows >= 0) & named[phases.rows]
    return float(hull.formation_energy(phases.fraction[mine], phases.energy[mine], potential).min())


def above_line(x: float, energy: float, points: list[tuple[float, float]]) -> float:
    """Energy above the hull of a binary system, by the package's linear programme."""
    share, energies = np.array(points).T
    phases = np.stack([1 - share, share], axis=1)
    return energy - hull_energy(np.array([1 - x, x]), phases, energies)


CHECKS = {
    "metrics.1": Check(
        lambda: shortest_edge("Fe"),
        "Compare the distance of the atom to its own image with the limit that the verdict's "
        "reason names.",
        tolerance=2e-3,
    ),
    "metrics.2": Check(
        lambda: samples_to_separate(0.10, 0.12),
        "Both intervals come from `wilson` at the same n; increase n in steps of 50 until the top "
        "of the lower one is below the bottom of the upper one.",
    ),
    "metrics.3": Check(
        lambda: 1.0 - math.exp(-1.0),
        "Put p = 1/K and n = K into the formula, and let K grow: (1 - 1/K)^K has a known limit.",
        tolerance=2e-3,
    ),
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
