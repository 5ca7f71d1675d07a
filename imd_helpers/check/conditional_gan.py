"""Checks of the chapter on conditional GANs."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from .base import Check

RADIUS, CLASSES, WIDTH = 2.0, 8, 0.6  # the toy of the chapter
ASKED = np.arange(-3.0, 0.1, 0.5)  # eV/atom


def share_at_home() -> float:
    """Share of a class's samples that are nearer to its centre than to both neighbours'."""
    half_way = RADIUS * math.sin(math.pi / CLASSES)
    return 2.0 * NormalDist(0.0, WIDTH).cdf(half_way) - 1.0


def best_deaf_error() -> float:
    """Least mean |obtained - asked|, in eV/atom, of a generator that ignores what is asked."""
    return float(np.abs(ASKED - np.median(ASKED)).mean())


CHECKS = {
    "conditional_gan.1": Check(
        share_at_home,
        "The border to each neighbour lies half-way between the two centres, and across the way "
        "to both neighbours the cloud is a normal distribution.",
        tolerance=0.02,
    ),
    "conditional_gan.2": Check(
        best_deaf_error,
        "Whatever the generator makes, it makes the same for each asked energy; which single "
        "energy is nearest to all seven on average?",
        tolerance=1e-3,
    ),
}
