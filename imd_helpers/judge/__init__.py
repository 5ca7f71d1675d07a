"""Verdicts on generated crystals: validity, uniqueness, novelty, and the report on them."""

from __future__ import annotations

from .composition import charge_neutral
from .funnel import funnel
from .geometry import geometry_valid
from .intervals import wilson
from .report import DefinitionError, Report, compare
from .structure import novel, unique

__all__ = [
    "DefinitionError",
    "Report",
    "charge_neutral",
    "compare",
    "funnel",
    "geometry_valid",
    "novel",
    "unique",
    "wilson",
]
