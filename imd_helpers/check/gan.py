"""Checks of the chapter on generative adversarial networks."""

from __future__ import annotations

import math
from statistics import NormalDist

from .base import Check

DATA = (NormalDist(-1.0, 0.3), NormalDist(1.2, 0.3))  # two peaks of equal weight
FAKES = NormalDist(0.5, 1.0)


def best_discriminator(x: float) -> float:
    """D* = p / (p + q) for the two densities of the chapter."""
    p = sum(peak.pdf(x) for peak in DATA) / len(DATA)
    return p / (p + FAKES.pdf(x))


def divergence_of_a_loss(loss: float) -> float:
    """Jensen-Shannon divergence, in nats, of a game whose best discriminator has this loss."""
    return math.log(2.0) - loss / 2.0


CHECKS = {
    "gan.1": Check(
        lambda: best_discriminator(0.1),
        "p is half of each peak; both densities are taken at x = 0.1, and the widths are "
        "standard deviations.",
        tolerance=1e-3,
    ),
    "gan.2": Check(
        lambda: divergence_of_a_loss(0.9),
        "The loss is minus the value of the game, and the logarithm is the natural one.",
        tolerance=1e-2,
    ),
}
