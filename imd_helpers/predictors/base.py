"""What the predictors share: properties of the elements, and a look at the values to fit."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from ..crystals import elements
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


def checked_values(values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Values to fit as float64.

    Raises:
        InputError: another shape, no row, or values that are not finite.
    """
    values = np.asarray(values, dtype=float)
    if shape[0] == 0 or values.shape != shape or not np.isfinite(values).all():
        raise InputError(
            f"values of shape {values.shape} for {shape[0]} rows: expected finite values of shape "
            f"{shape}, and at least one row"
        )
    return values
