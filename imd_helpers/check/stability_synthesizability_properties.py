"""Checks of the chapter on stability, synthesizability and properties."""

from __future__ import annotations

from .base import Check

UNLABELLED, DRAWN, BAGS = 40_000, 16_000, 5
PRIOR = 0.2


def never_free() -> float:
    """Expected number of materials that every bag draws."""
    share = DRAWN / UNLABELLED
    return UNLABELLED * share**BAGS


def even_score() -> float:
    """The score at which the package's posterior passes one half, by bisection."""
    from ..predictors.pu import posterior

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if posterior(middle, PRIOR) < 0.5 else (low, middle)
    return low


CHECKS = {
    "stability_synthesizability_properties.1": Check(
        never_free,
        "With which probability does one bag draw a given material, and with which do all five?",
        tolerance=0.01,
    ),
    "stability_synthesizability_properties.2": Check(
        even_score,
        "Set the probability of the equation with the prior in it to one half, and solve for the "
        "score. It is not 0.5.",
        tolerance=0.005,
    ),
}
