"""Write `elements.csv` from pymatgen's periodic table: one row an element, H to Og.

    python experiments/elements.py

Values are those of pymatgen (MIT licence); a missing value is an empty cell.
"""

from __future__ import annotations

import warnings

import pandas as pd
import record
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Element

FLAGS = (
    "is_noble_gas",
    "is_transition_metal",
    "is_post_transition_metal",
    "is_metalloid",
    "is_alkali",
    "is_alkaline",
    "is_halogen",
)


def mean(values: tuple[int, ...]) -> float | None:
    """Mean, or None for an empty tuple."""
    return sum(values) / len(values) if values else None


def row(z: int) -> dict[str, object]:
    """All columns of one element."""
    e = Element.from_Z(z)
    return {
        "number": z,
        "symbol": e.symbol,
        "electronegativity": e.X,
        "row": e.row,
        "group": e.group,
        "mass": e.atomic_mass,
        "atomic_radius": e.atomic_radius,
        "covalent_radius": CovalentRadius.radius.get(e.symbol),
        "mendeleev_number": e.mendeleev_no,
        "ionic_radius": e.average_ionic_radius,
        "cationic_radius": e.average_cationic_radius,
        "anionic_radius": e.average_anionic_radius,
        "ionic_radius_sum": sum(e.ionic_radii.values()),
        "oxidation_max": e.max_oxidation_state,
        "oxidation_min": e.min_oxidation_state,
        "oxidation_mean": mean(e.oxidation_states),
        "oxidation_common_mean": mean(e.common_oxidation_states),
        **{flag: int(getattr(e, flag)) for flag in FLAGS},
        "molar_volume": e.molar_volume,
    }


def table() -> None:
    """Write the file; what has no value is an empty cell."""
    warnings.simplefilter("ignore")
    columns = pd.DataFrame([row(z) for z in range(1, 119)])
    path = record.DATA / "elements" / "elements.csv"
    record.write_text(path, columns.to_csv(index=False, float_format="%.6g"))


TASKS = (table,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
