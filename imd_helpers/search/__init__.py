"""Search without a generative model: screening and optimisers, with every oracle call counted."""

from __future__ import annotations

from .genes import GenePool
from .optimisers import Space, minimise
from .oracle import Oracle, Target
from .screening import Filter, Screened, screened

__all__ = [
    "Filter",
    "GenePool",
    "Oracle",
    "Screened",
    "Space",
    "Target",
    "minimise",
    "screened",
]
