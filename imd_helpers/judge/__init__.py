"""Verdicts on generated crystals: validity, uniqueness, novelty, and the report on them."""

from __future__ import annotations

from .composition import charge_neutral
from .formulas import judge_formulas
from .funnel import funnel
from .geometry import geometry_valid
from .intervals import wilson
from .novelty import novelty_kinds
from .phonons import Phonons, dynamically_stable
from .protocols import PROTOCOLS, Protocol
from .report import DefinitionError, Number, Report, compare
from .run import judge
from .structure import novel, structure_distance, unique

__all__ = [
    "PROTOCOLS",
    "DefinitionError",
    "Number",
    "Phonons",
    "Protocol",
    "Report",
    "charge_neutral",
    "compare",
    "dynamically_stable",
    "funnel",
    "geometry_valid",
    "judge",
    "judge_formulas",
    "novel",
    "novelty_kinds",
    "structure_distance",
    "unique",
    "wilson",
]
