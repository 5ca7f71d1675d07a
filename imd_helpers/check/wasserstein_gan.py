"""Checks of the chapter on the Wasserstein GAN."""

from __future__ import annotations

import numpy as np

from .base import Check


def composition_distance(one: str, other: str) -> float:
    """Earth mover's distance of two formulas in places of Pettifor's scale, by linear program."""
    from ..crystals import elements
    from ..networks import distances

    place = elements.column("mendeleev_number")
    sides = [elements.parse_formula(formula) for formula in (one, other)]
    points = [place[list(amounts)][:, None] for amounts in sides]
    weights = [np.array(list(amounts.values())) for amounts in sides]
    return distances.transport(*points, weights_a=weights[0], weights_b=weights[1]).cost


def steepest_clipped(inputs: int, limit: float) -> float:
    """Largest slope of a linear critic whose weights are clipped."""
    return float(np.linalg.norm(np.full(inputs, limit)))


CHECKS = {
    "wasserstein_gan.1": Check(
        lambda: composition_distance("NaCl", "MgO"),
        "Each formula is half metal, half anion; count places of the scale, and weigh each way "
        "by the share of atoms that goes it.",
        tolerance=1e-6,
    ),
    "wasserstein_gan.2": Check(
        lambda: steepest_clipped(84, 0.01),
        "The slope of a linear function is the length of w; which point of a box is farthest "
        "from its middle?",
        tolerance=1e-3,
    ),
}
