"""Verdicts on generated crystals: validity, uniqueness, novelty, and the report on them."""

from __future__ import annotations

from ..crystals.rules import geometry_valid
from ..energies.phonons import Phonons, dynamically_stable
from ..intervals import wilson
from ..matching.novelty import novelty_kinds
from ..matching.same import novel, structure_distance, unique
from .charge import charge_neutral
from .compositions import new_by_elements, recovery, uniqueness
from .engine import judge
from .protocols import PROTOCOLS, Protocol
from .report import DefinitionError, Number, Report, compare

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
    "geometry_valid",
    "judge",
    "new_by_elements",
    "novel",
    "novelty_kinds",
    "recovery",
    "structure_distance",
    "unique",
    "uniqueness",
    "wilson",
]
