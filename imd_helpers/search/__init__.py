"""Search without a generative model: screening and optimisers, with every oracle call counted."""

from __future__ import annotations

from .optimisers import Space, minimise
from .oracle import Oracle
from .screening import Filter, Screened, screened

__all__ = ["Filter", "Oracle", "Screened", "Space", "minimise", "screened"]
