"""Checks of the chapters on judging."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from .. import datasets
from ..crystals import CrystalBatch, elements
from ..energies import hull
from ..energies.elastic import KELVIN
from ..energies.hull import hull_energy
from ..intervals import difference
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


# ---- from candidates to materials


def lowest_eigenvalue(c11: float, c12: float, c13: float, c33: float, c44: float) -> float:
    """Of a hexagonal crystal's elastic constants in Kelvin's notation, in their unit."""
    constants = np.diag([c11, c11, c33, c44, c44, (c11 - c12) / 2])
    constants[[0, 1], [1, 0]] = c12
    constants[[0, 1, 2, 2], [2, 2, 0, 1]] = c13
    return float(np.linalg.eigvalsh(constants * np.outer(KELVIN, KELVIN))[0])


# ---- open problems


def least_to_beat(rival: int, n: int) -> int:
    """Fewest of n successes for which the difference from the rival's of n lies above zero."""
    k = np.arange(n + 1)
    return int(k[int(np.argmax(difference((k, rival), (n, n))[1] > 0))])


def candidates_to_separate(one: int, two: int, block: int) -> int:
    """Fewest candidates of each, in blocks with so many hits, whose difference is not zero."""
    blocks = np.arange(1, 10_000)
    low = difference((two * blocks, one * blocks), (block * blocks, block * blocks))[1]
    return int(block * blocks[int(np.argmax(low > 0))])


# ---- closed loop


def gain_by_hand(
    mean: float, scale: float, residuals: tuple[float, ...], target: float, window: float
) -> float:
    """Expected gain, in windows, over a best distance of three of them."""
    off = np.abs(mean + scale * np.array(residuals) - target) / window
    return float(np.maximum(3.0 - off, 0.0).mean())


# ---- time split


def expected_share(times: Sequence[int], n: int, k: int) -> float:
    """Share found among k of n samples, from how often each hidden one came up."""
    return sum(1 - math.comb(n - c, k) / math.comb(n, k) for c in times) / len(times)


def optimism(n: int, error: float, spread: float) -> float:
    """By how much the best-looking of n candidates disappoints, eV/atom; on a fine grid."""
    z = np.linspace(-10, 10, 200_001)
    normal = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    largest = np.diff(np.cumsum(normal * (z[1] - z[0])).clip(max=1) ** n, prepend=0)
    return error**2 / math.hypot(error, spread) * float(z @ largest)


TRUTHS = {
    "closed_loop.1": lambda: gain_by_hand(-1.9, 0.1, (-2, -0.5, 0, 0.5, 2), -2.0, 0.05),
    "closed_loop.2": lambda: optimism(10_000, 0.2, 0.5),
    "time_split.1": lambda: expected_share((1, 5, 0), 10_000, 1_000),
    # fewest samples that find each with one half, at a chance of 1 in 400,000 each time
    "time_split.2": lambda: math.ceil(math.log(0.5) / math.log1p(-1 / 400_000)),
    # hits among 1,000 samples, in an hour of training, sampling and judging
    "leaderboard.1": lambda: 0.08 * 1_000 * 3600 / (1_200 + 1 + 3_000),
    # fewest samples, of 3 s each, with which 1,200 s of training have brought 60 hits an hour
    "leaderboard.2": lambda: math.ceil(1_200 * 60 / 3600 / (0.08 - 3 * 60 / 3600)),
    "from_candidates_to_materials.1": lambda: lowest_eigenvalue(120, 90, 130, 150, 30),
    "from_candidates_to_materials.2": lambda: math.ceil(math.log(0.05) / math.log1p(-0.55 / 60)),
    "open_problems.1": lambda: least_to_beat(12, 60),
    "open_problems.2": lambda: candidates_to_separate(1, 2, 60),
    "metrics.1": lambda: shortest_edge("Ti"),
    "metrics.2": lambda: samples_to_separate(0.10, 0.12),
    "metrics.3": lambda: 1.0 - math.exp(-1.0),
    "stability.1": lambda: formation_energy("MgO", "sevennet"),
    "stability.2": lambda: above_line(1 / 3, -0.26, [(0, 0), (0.25, -0.25), (0.5, -0.30), (1, 0)]),
}
