"""Search without a generative model: screening and evolution, with every oracle call counted."""

from __future__ import annotations

from .evolution import GenePool, evolve
from .oracle import CountedOracle, Target
from .screening import Filter, Screened, screen, screened, substitutions

__all__ = [
    "CountedOracle",
    "Filter",
    "GenePool",
    "Screened",
    "Target",
    "evolve",
    "screen",
    "screened",
    "substitutions",
]
