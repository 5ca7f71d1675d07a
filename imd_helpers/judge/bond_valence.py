"""Charge balance as LeMat-GenBench decides it: metals, states of the elements, bond valences.

A crystal passes by any one of five roads, which are taken here in the order of their cost; theirs
is another, with the same answer. Read in metrics/validity_metrics.py (commit 50434f6,
``ChargeNeutralityMetric.compute_structure``) and utils/oxidation_state.py. Their table of states
comes from crystals of LeMat-Bulk to which pymatgen's ``BVAnalyzer`` gave valences, and from the
ICSD for other elements; in its place stand all states that this analyser can give.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals import CrystalBatch

if TYPE_CHECKING:
    from pymatgen.core import Species, Structure

METALLIC = 0.7  # smact's score above which no charges are asked for
States = Mapping[str, frozenset[int]]  # symbol of an element -> its oxidation states


def balanced(crystals: CrystalBatch) -> np.ndarray:
    """(n,) bool: do the charges balance by the rule of LeMat-GenBench?

    Either smact's score of metallicity is above 0.7; or oxidation states seen in crystals add up to
    zero; or any known ones do, the more positive on the whole the less electronegative; or the bond
    valence sums of all sites vanish; or pymatgen finds valences from the bonds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # elements without electronegativity, and spglib's own
        return np.array([_by_composition(s) or _by_bonds(s) for s in crystals.structures()])


def definition() -> dict[str, Any]:
    """What `balanced` decided by, for reports."""
    versions = {name: metadata.version(name) for name in ("pymatgen", "smact")}
    return {"rule": "LeMat-GenBench", "metallicity": METALLIC, **versions}


def _by_composition(structure: Structure) -> bool:
    from smact.metallicity import metallicity_score

    if metallicity_score(structure.composition) > METALLIC:
        return True
    amounts = structure.composition.reduced_composition.get_el_amt_dict()
    seen, every = _states()
    if not amounts.keys() <= seen.keys():  # theirs stops with an error, and the crystal is invalid
        return False
    lowest = least_tilt(amounts, every)
    return least_tilt(amounts, seen) is not None or (lowest is not None and lowest < -1e-12)


def least_tilt(amounts: Mapping[str, float], states: States) -> float | None:
    """Can oxidation states add up to zero, and how far do the positive ones go to the anions?

    Within an element states may differ by one, and the element as a whole is charged.

    Args:
        amounts: whole number of atoms of each element.
        states: the states of each element that may be taken.

    Returns:
        The lowest covariance (up to a factor) of mean state and Pauling electronegativity over all
        choices: below zero where cations are less electronegative. None where no choice adds up.
    """
    from pymatgen.core import Element

    chi = np.array([Element(symbol).X for symbol in amounts])
    best = {0: 0.0}  # total charge -> lowest covariance so far
    for (symbol, n), weight in zip(amounts.items(), chi - chi.mean(), strict=True):
        longer: dict[int, float] = {}
        for total, tilt in best.items():
            for charge in _charges(states.get(symbol, frozenset()), int(n)):
                with_it = tilt + weight * charge / n
                longer[total + charge] = min(with_it, longer.get(total + charge, np.inf))
        best = longer
    return best.get(0)


def _charges(states: frozenset[int], n: int) -> set[int]:
    """What n atoms of an element may add up to, without zero."""
    pure = {n * q for q in states}
    mixed = {n * q + k for q in states if q + 1 in states for k in range(1, n)}
    return (pure | mixed) - {0}


@cache
def _states() -> tuple[States, States]:
    """States seen in crystals, and all that pymatgen lists; elements that have some."""
    from pymatgen.analysis.bond_valence import ICSD_BV_DATA
    from pymatgen.core import Element, Species
    from smact.utils.oxidation import ICSD24OxStatesFilter

    table = ICSD24OxStatesFilter().get_species_occurrences_df()
    icsd24 = _grouped(Species.from_str(each) for each in table["species"])
    given = _grouped(species for species, data in ICSD_BV_DATA.items() if data["std"] > 0)
    every = {each.symbol: frozenset(each.oxidation_states) for each in Element}
    return {**icsd24, **given}, every


def _grouped(species: Iterable[Species]) -> dict[str, frozenset[int]]:
    out: dict[str, frozenset[int]] = {}
    for each in species:
        if each.oxi_state:
            out[each.symbol] = out.get(each.symbol, frozenset()) | {int(each.oxi_state)}
    return out


def _by_bonds(structure: Structure) -> bool:
    from pymatgen.analysis.bond_valence import BVAnalyzer, calculate_bv_sum
    from pymatgen.analysis.local_env import get_neighbors_of_site_with_index
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        orbits = SpacegroupAnalyzer(structure).get_symmetrized_structure().equivalent_indices
        sums = (
            calculate_bv_sum(structure[i], get_neighbors_of_site_with_index(structure, i))
            for i, *_ in orbits
        )
        if all(abs(each) < 1e-15 for each in sums):
            return True
    except Exception:  # an element without parameters, no symmetry: theirs goes on
        pass
    try:
        BVAnalyzer().get_valences(structure)  # neutral, or there are none
    except ValueError:
        return False
    return True
