"""Checks of the chapter on voxels."""

from __future__ import annotations

from .base import Check


def heat_in_sodalite() -> float:
    """Heat of adsorption of methane in SOD at 298 K, kJ/mol."""
    from .. import datasets
    from ..descriptors.methane_grid import MethaneGrid, heat_of_adsorption

    framework = datasets.load("iza_zeolites").structures("SOD")["SOD"]
    return heat_of_adsorption(MethaneGrid().energy(framework))


def merging_distance(sigma: float) -> float:
    """Distance below which two equal Gaussians add up to one maximum, Å, by bisection."""
    import math

    low, high = 0.0, 10.0 * sigma
    while high - low > 1e-12 * sigma:
        middle = (low + high) / 2
        step = 1e-3 * sigma
        values = [
            sum(math.exp(-((x - s * middle / 2) ** 2) / (2 * sigma**2)) for s in (-1, 1))
            for x in (0.0, step)
        ]
        low, high = (low, middle) if values[1] > values[0] else (middle, high)
    return (low + high) / 2


def _merging() -> float:
    from ..descriptors.voxel_grid import SIGMA

    return merging_distance(SIGMA)


CHECKS = {
    "voxels.1": Check(
        heat_in_sodalite,
        "Take MethaneGrid().energy of the framework SOD, and heat_of_adsorption of that.",
        tolerance=1e-3,
    ),
    "voxels.2": Check(
        _merging,
        "Look at the point half way between them: when does it stop being a minimum?",
        tolerance=1e-3,
    ),
}
