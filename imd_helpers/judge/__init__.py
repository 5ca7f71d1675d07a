"""Verdicts on generated crystals: validity, uniqueness, novelty, and the report on them."""

from __future__ import annotations

from ..crystals.rules import geometry_valid
from ..energies.phonons import Phonons, dynamically_stable
from ..intervals import wilson
from ..matching.novelty import novelty_kinds
from ..matching.same import novel, structure_distance, unique
from .charge import charge_neutral
from .formulas import judge_formulas
from .funnel import funnel
from .protocols import PROTOCOLS, Protocol
from .report import DefinitionError, Number, Report, compare
from .run import judge

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
