"""What the Materials Project adds to energies by PBE and PBE+U, so that the two kinds may meet.

PBE binds O2 and other elements too strongly, and metals in oxides and fluorides get a U that the
metals alone do not. The corrections MP2020 (Wang et al., Sci. Rep. 11 (2021) 15496) add a constant
for each atom of an anion, and for each atom of eight metals under +U. They do not cancel in an
energy above hull: an atom is corrected in one phase and not in another that competes with it.

CHGNet learned energies with these corrections in them. The SevenNets learned energies without.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals import CrystalBatch

if TYPE_CHECKING:
    from pymatgen.core import Structure

NAME = "MaterialsProject2020Compatibility"


def mp2020(crystals: CrystalBatch) -> np.ndarray:
    """(n,) eV/atom to be added to energies by PBE, with +U where the Materials Project has it.

    Oxides, peroxides and superoxides are told by their distances, other anions by oxidation states
    that pymatgen guesses from the formula. NaN for what has no such energy: a broken crystal.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no oxidation states: then the most negative is the anion
        return np.array([_of(structure) for structure in crystals.structures()])


def definition() -> dict[str, Any]:
    """Which corrections these are, for reports."""
    from importlib import metadata

    return {"corrections": NAME, "pymatgen": metadata.version("pymatgen")}


@cache
def _scheme() -> Any:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False)


def _of(structure: Structure) -> float:
    from pymatgen.entries.compatibility import CompatibilityError
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    anion = max(structure.composition, key=lambda element: element.X).symbol
    with_u = _scheme().u_settings.get(anion, {})
    hubbards = {symbol: with_u[symbol] for symbol in structure.symbol_set if symbol in with_u}
    about = {"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards}
    entry = ComputedStructureEntry(structure, 0.0, parameters=about)
    try:
        added = _scheme().get_adjustments(entry)
    except (CompatibilityError, ValueError):
        return float("nan")
    return sum(each.value for each in added) / len(structure)
