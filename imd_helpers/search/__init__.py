"""Search without a generative model: screening and optimisers, with every oracle call counted."""

from __future__ import annotations

from .evolution import GenePool, evolve
from .optimisers import Space, minimise
from .oracle import CountedOracle, Oracle, Target
from .screening import Filter, Screened, screen, screened, substitutions

__all__ = [
    "CountedOracle",
    "Filter",
    "GenePool",
    "Oracle",
    "Screened",
    "Space",
    "Target",
    "evolve",
    "minimise",
    "screen",
    "screened",
    "substitutions",
]
