"""Verdicts on generated crystals: validity, uniqueness, novelty, and the report on them."""

from __future__ import annotations

from ..crystals.rules import geometry_valid
from ..intervals import wilson
from ..matching.same import novel, unique
from .charge import charge_neutral
from .compositions import new_by_elements, recovery, uniqueness
from .engine import judge
from .protocols import PROTOCOLS, Protocol
from .report import DefinitionError, Number, Report, compare

__all__ = [
    "PROTOCOLS",
    "DefinitionError",
    "Number",
    "Protocol",
    "Report",
    "charge_neutral",
    "compare",
    "geometry_valid",
    "judge",
    "new_by_elements",
    "novel",
    "recovery",
    "unique",
    "uniqueness",
    "wilson",
]
