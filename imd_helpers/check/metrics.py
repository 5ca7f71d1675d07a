"""Checks of the chapter on metrics."""

from __future__ import annotations

import math

import numpy as np

from .base import Check


def shortest_edge(symbol: str) -> float:
    """Smallest edge, Å, of a cubic cell with one atom that the rule ``imd`` passes."""
    import torch

    from ..crystals import CrystalBatch, elements
    from ..judge import geometry_valid

    edges = np.arange(0.5, 5.0, 1e-3)
    n = len(edges)
    atom = torch.full((n, 1), elements.number(symbol))
    cells = torch.as_tensor(edges)[:, None, None] * torch.eye(3, dtype=torch.float64)
    ok = geometry_valid(CrystalBatch(cells, torch.zeros(n, 1, 3, dtype=torch.float64), atom))
    return float(edges[int(np.argmax(ok))])


def samples_to_separate(low: float, high: float, *, step: int = 50) -> int:
    """Fewest samples of each, in steps, for which two Wilson intervals do not overlap."""
    from ..judge import wilson

    n = np.arange(step, 1_000_000, step)
    _, top = wilson(np.rint(low * n), n)
    bottom, _ = wilson(np.rint(high * n), n)
    return int(n[int(np.argmax(top < bottom))])


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
}
