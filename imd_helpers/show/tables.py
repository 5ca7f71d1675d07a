"""Tables as a reader sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Columns of the data sets that say more in other words, with their units.
WORDS: dict[str, str] = {
    "n_sites": "atoms",
    "formation_energy": "formation energy, eV/atom",
    "energy_above_hull": "above hull, eV/atom",
    "stability": "from the hull, eV/atom",
    "disagreement": "potentials differ by, eV/atom",
    "band_gap": "gap, eV",
    "lattice_constant": "lattice constant, Å",
}


def worded(table: pd.DataFrame, *, digits: int = 3) -> pd.DataFrame:
    """Columns in words and with their units, numbers rounded, and the formula in front.

    Args:
        table: of a data set, or some of its rows and columns.
        digits: of numbers that are not whole.
    """
    words = {name: WORDS.get(name, str(name).replace("_", " ")) for name in table}
    if "formula" in table:
        table = table.set_index("formula")
    return table.round(digits).rename(columns=words)
