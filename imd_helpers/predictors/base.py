"""What the predictors share: properties of the elements, and a look at what is given."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..crystals import elements
from ..crystals.compositions import checked
from ..runtime import InputError

ELEMENT_COLUMNS = (
    "electronegativity",
    "covalent_radius",
    "atomic_radius",
    "group",
    "row",
    "mendeleev_number",
    "mass",
    "ionic_radius",
    "oxidation_max",
    "oxidation_min",
    "molar_volume",
)
UNFITTED = "this predictor knows nothing yet: call fit first"


@cache
def element_table() -> np.ndarray:
    """(119, 11) properties; one that an element lacks is the mean of the others."""
    return elements.filled(ELEMENT_COLUMNS)


def with_elements(counts: np.ndarray) -> np.ndarray:
    """(n, 119) counts, if each row holds some element.

    Raises:
        InputError: a row of zeros, or no counts.
    """
    counts = checked(counts)
    if not counts.any(1).all():
        raise InputError("a row of zeros has no features: keep the rows with counts.any(1)")
    return counts
