"""Formation energies and energies above hull, against the competing phases of `oqmd_icsd`.

The energies of 28,670 known crystals were computed once by each potential and travel with the
package (`data/potentials`). A hull is built from one potential alone, on that potential's own
elements: CHGNet's corrected energies, SevenNet's raw ones and those of OQMD never meet.

The hull at a composition is the lowest energy of any mixture of phases of that composition, a
linear programme: min w·e over w >= 0 with sum_i w_i x_i = x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..crystals import elements
from ..runtime import InputError, data_path, lookup
from .potentials import POTENTIALS

SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Phases:
    """Known phases with their energies by one potential; elements included."""

    potential: str
    fraction: np.ndarray  # (m, 119) atomic fractions; column = atomic number
    energy: np.ndarray  # (m,) eV/atom
    rows: np.ndarray  # (m,) row of `oqmd_icsd`, -1 for the elements that come from matcalc
    element_energy: np.ndarray  # (119,) eV/atom of the most stable form, NaN where unknown

    def system(self, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(k, 119) fractions, (k,) energies and (k,) rows of what competes in a chemical system.

        Of each composition only the lowest phase; ``present`` (119,) bool are the elements.
        """
        inside = ~(self.fraction[:, ~present] > 0).any(1)
        rows = np.flatnonzero(inside)
        rows = rows[np.argsort(self.energy[rows], kind="stable")]
        _, first = np.unique(np.round(self.fraction[rows], 6), axis=0, return_index=True)
        rows = rows[np.sort(first)]
        return self.fraction[rows], self.energy[rows], self.rows[rows]


@dataclass(frozen=True, eq=False)
class HullVerdict:
    """Where n crystals stand.

    Attributes:
        energy_above_hull: (n,) eV/atom above the mixture of known phases; negative where the
            crystal is more stable than all of them, NaN where there is no answer.
        formation_energy: (n,) eV/atom from the elements.
        n_competitors: (n,) known compounds, elements not counted, in the chemical system. Where
            there are none the hull is that of the elements, and says little.
        ok: (n,) bool, there is an answer.
        reasons: (n,) why there is none, or what it lacks.
    """

    energy_above_hull: np.ndarray
    formation_energy: np.ndarray
    n_competitors: np.ndarray
    ok: np.ndarray
    reasons: tuple[str, ...]


@cache
def phases(potential: str = "chgnet") -> Phases:
    """The known phases by one potential.

    Raises:
        UnknownNameError: no such potential.
    """
    from ..datasets import load

    lookup("potential", potential, POTENTIALS)
    with np.load(data_path("potentials", "potentials.npz"), allow_pickle=False) as file:
        table = dict(file)
    rows = table["rows"].astype(np.int64)
    counts = load("oqmd_icsd").crystals.counts().numpy()[rows].astype(float)
    alone = np.eye(elements.N_COLUMNS)[table["element"]]
    fraction = np.concatenate([counts / counts.sum(1, keepdims=True), alone])
    energy = np.concatenate([table[potential], table[f"{potential}_element"]]).astype(float)
    source = np.concatenate([rows, np.full(len(alone), -1)])
    known = np.isfinite(energy)
    fraction, energy, source = fraction[known], energy[known], source[known]
    lowest = np.full(elements.N_COLUMNS, np.inf)
    pure = fraction.max(1) > 1 - SAME
    np.minimum.at(lowest, fraction[pure].argmax(1), energy[pure])
    lowest[np.isinf(lowest)] = np.nan
    return Phases(potential, fraction, energy, source, lowest)


def definition(potential: str) -> dict[str, Any]:
    """What an energy above hull means here, for reports."""
    import json

    about = json.loads(data_path("potentials", "about.json").read_text(encoding="utf-8"))
    return {
        "hull": "known phases of oqmd_icsd, energies of one potential",
        "phases": len(phases(potential).energy),
        "near_oqmd_hull": about["above_oqmd_hull"],
        "geometry_of_phases": about["geometry"],
        **about["potentials"][potential],
    }


def formation_energy(counts: ArrayLike, energy: ArrayLike, potential: str = "chgnet") -> np.ndarray:
    """Energy of formation from the most stable elements, by the same potential.

    Args:
        counts: (n, 119) atoms of each element.
        energy: (n,) eV/atom by this potential.
        potential: which potential the energies are from.

    Returns:
        (n,) eV/atom; NaN where an element has no reference, or there is no energy.

    Raises:
        InputError: shapes that do not fit, or a composition without atoms.
        UnknownNameError: no such potential.
    """
    known = phases(potential)
    fraction, energy = _fractions(counts, energy)
    reference = np.where(fraction > 0, fraction * known.element_energy, 0.0).sum(1)
    return energy - reference


def above_hull(counts: ArrayLike, energy: ArrayLike, potential: str = "chgnet") -> HullVerdict:
    """Energy above the hull of all known phases; arguments as in `formation_energy`.

    Phases more than 0.1 eV/atom above OQMD's own hull, and phases that nobody knows, are missing:
    a crystal may be less stable than it looks here, and is never more stable.
    """
    known = phases(potential)
    fraction, energy = _fractions(counts, energy)
    formed = formation_energy(counts, energy, potential)
    n = len(energy)
    above, competitors = np.full(n, np.nan), np.zeros(n, dtype=np.int64)
    reasons = [""] * n
    present = fraction > 0
    systems, which = np.unique(present, axis=0, return_inverse=True)
    for s, system in enumerate(systems):
        members = np.flatnonzero(which.ravel() == s)
        names = "-".join(elements.SYMBOLS[z] for z in np.flatnonzero(system))
        missing = np.flatnonzero(system & np.isnan(known.element_energy))
        if len(missing):
            why = f"no {known.potential} energy of elemental {elements.SYMBOLS[missing[0]]}"
            for i in members:
                reasons[i] = why
            continue
        x, e, _ = known.system(system)
        compounds = int((x.max(1) < 1 - SAME).sum())
        competitors[members] = compounds
        for i in members:
            if np.isnan(energy[i]):
                reasons[i] = "no energy"
                continue
            above[i] = energy[i] - hull_energy(fraction[i, system], x[:, system], e)
            if not compounds and system.sum() > 1:
                reasons[i] = f"no known compound in {names}: the hull is that of the elements"
    return HullVerdict(above, formed, competitors, np.isfinite(above), tuple(reasons))


def hull_energy(fraction: np.ndarray, phases: np.ndarray, energy: np.ndarray) -> float:
    """Lowest energy of a mixture of phases with a given composition, eV/atom.

    Args:
        fraction: (elements,) atomic fractions wanted.
        phases: (k, elements) atomic fractions of the phases.
        energy: (k,) eV/atom.

    Raises:
        InputError: no mixture has that composition.
    """
    from scipy.optimize import linprog

    found = linprog(energy, A_eq=phases.T, b_eq=fraction, bounds=(0, None), method="highs")
    if found.status != 0:
        raise InputError(
            f"no mixture of these {len(energy)} phases has the composition {fraction.tolist()}: "
            "give at least every element alone"
        )
    return float(found.fun)


def _fractions(counts: ArrayLike, energy: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    counts = np.asarray(counts, dtype=float)
    energy = np.asarray(energy, dtype=float)
    if (
        counts.ndim != 2
        or counts.shape[1] != elements.N_COLUMNS
        or energy.shape != counts.shape[:1]
    ):
        raise InputError(
            f"counts have shape {counts.shape} and energies {energy.shape}: expected "
            f"(n, {elements.N_COLUMNS}) and (n,); crystals.counts() gives the former"
        )
    atoms = counts.sum(1, keepdims=True)
    if not (atoms > 0).all():
        raise InputError(f"composition {int(np.argmin(atoms))} has no atoms")
    return counts / atoms, energy
