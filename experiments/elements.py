"""Write `elements.csv` from pymatgen's periodic table: one row an element, H to Og.

    python experiments/elements.py

Values are those of pymatgen (MIT licence); a missing value is an empty cell.
"""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path

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


def clean(value: object) -> str:
    """Format a number; None, NaN and things without a value become an empty cell."""
    if value is None:
        return ""
    number = float(value)
    return "" if math.isnan(number) else f"{number:.6g}"


def mean(values: tuple[int, ...]) -> float | None:
    """Mean, or None for an empty tuple."""
    return sum(values) / len(values) if values else None


def row(z: int) -> dict[str, str]:
    """All columns of one element."""
    e = Element.from_Z(z)
    values: dict[str, object] = {
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
    return {"number": str(z), "symbol": e.symbol, **{k: clean(v) for k, v in values.items()}}


def main() -> None:
    """Write the file beside this script."""
    warnings.simplefilter("ignore")
    rows = [row(z) for z in range(1, 119)]
    path = Path(__file__).resolve().parents[1] / "data" / "elements" / "elements.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{path.name}: {len(rows)} elements, {len(rows[0])} columns")


if __name__ == "__main__":
    main()
