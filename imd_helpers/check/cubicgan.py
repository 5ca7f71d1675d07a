"""Checks of the chapter on CubicGAN."""

from __future__ import annotations

import numpy as np

from .base import Check


def multiplicity(space_group: int, site: tuple[float, float, float]) -> int:
    """Number of sites in the conventional cell of the orbit of ``site``."""
    from ..crystals import symmetry

    _, count = symmetry.expand(
        np.array([space_group]), np.eye(3)[None], np.array([[site]]), np.array([[1]])
    )
    return int(count[0, 0])


def penalty_of_a_linear_critic(norm: float) -> float:
    """Gradient penalty of f(x) = w x with |w| = norm, by the package's own function."""
    import torch

    from ..networks import losses

    w = torch.full((84,), norm / 84**0.5, dtype=torch.float64)
    points = torch.zeros(8, 84, dtype=torch.float64)
    return float(losses.gradient_penalty(lambda x: x @ w, points, points + 1))


CHECKS = {
    "cubicgan.1": Check(
        lambda: multiplicity(225, (0.0, 0.25, 0.25)),
        "Apply every operation of group 225, bring the images into [0, 1), and count the "
        "different ones; the centring of the cell is already among the operations.",
    ),
    "cubicgan.2": Check(
        lambda: penalty_of_a_linear_critic(2.0),
        "The slope of a linear critic is the same at every point.",
        tolerance=1e-3,
    ),
}
