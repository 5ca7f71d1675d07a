"""Search without a generative model: screening and evolution, with every oracle call counted."""

from __future__ import annotations

from .evolution import GenePool, evolve
from .oracle import CountedOracle, Target
from .screening import screen, substitutions

__all__ = ["CountedOracle", "GenePool", "Target", "evolve", "screen", "substitutions"]
