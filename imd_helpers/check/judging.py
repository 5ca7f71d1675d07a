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


TRUTHS = {
    "metrics.1": lambda: shortest_edge("Fe"),
    "metrics.2": lambda: samples_to_separate(0.10, 0.12),
    "metrics.3": lambda: 1.0 - math.exp(-1.0),
    "stability.1": lambda: formation_energy("MgO", "sevennet"),
    "stability.2": lambda: above_line(1 / 3, -0.26, [(0, 0), (0.25, -0.25), (0.5, -0.30), (1, 0)]),
}
