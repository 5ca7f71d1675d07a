"""Formation energies and energies above hull, against the competing phases of `oqmd_icsd`.

The energies of 28,670 known crystals were computed once by each potential and travel with the
package (`data/potentials`). A hull is built from one potential alone, on that potential's own
elements: CHGNet's corrected energies, SevenNet's raw ones and those of OQMD never meet.

Crystals of the ICSD are not all that competes. OQMD lists the formation energies of 341,700
formulas, most of them hypothetical. How much deeper its hull is with them than with our phases
alone, on its own scale, is added to the distance from the hull of every potential (`missing`).

The hull at a composition is the lowest energy of any mixture of phases of that composition, a
linear programme: min w·e over w >= 0 with sum_i w_i x_i = x.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..crystals import elements
from ..crystals.compositions import amounts
from ..runtime import InputError, data_path, lookup, reals
from .potentials import POTENTIALS

SAME = 1e-9
SAME_COMPOSITION = 1e-6  # of atomic fractions
LOWEST = -5.0  # eV/atom; what OQMD lists below are failed calculations: real crystals end at -4.57


@dataclass(frozen=True, eq=False)
class Phases:
    """Known phases with their energies by one potential; elements included."""

    potential: str
    fraction: np.ndarray  # (m, 119) atomic fractions; column = atomic number
    energy: np.ndarray  # (m,) eV/atom
    rows: np.ndarray  # (m,) row of `oqmd_icsd`, -1 for the elements that come from matcalc
    element_energy: np.ndarray  # (119,) eV/atom of the most stable form, NaN where unknown

    @cached_property
    def _held(self) -> np.ndarray:
        return _packed(self.fraction > 0)

    def system(self, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(k, 119) fractions, (k,) energies and (k,) rows of what competes in a chemical system.

        Of each composition only the lowest phase; ``present`` (119,) bool are the elements.
        """
        rows = _within(self._held, present)
        rows = rows[np.argsort(self.energy[rows], kind="stable")]
        _, first = np.unique(np.round(self.fraction[rows], 6), axis=0, return_index=True)
        rows = rows[np.sort(first)]
        return self.fraction[rows], self.energy[rows], self.rows[rows]


@dataclass(frozen=True, eq=False)
class HullVerdict:
    """Where n crystals stand."""

    # (n,) eV/atom above the mixture of known phases, ``missing`` included; negative where the
    # crystal is more stable than all of them, NaN where there is no answer
    energy_above_hull: np.ndarray
    # (n,) eV/atom, how much deeper OQMD's hull of all formulas lies, see `missing`
    missing: np.ndarray
    formation_energy: np.ndarray  # (n,) eV/atom from the elements
    # (n,) known compounds, elements not counted, in the chemical system. Where there are none the
    # hull is that of the elements, and says little
    n_competitors: np.ndarray
    ok: np.ndarray  # (n,) bool, there is an answer
    reasons: tuple[str, ...]  # (n,) why there is none, or what it lacks


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
    about = json.loads(data_path("potentials", "about.json").read_text(encoding="utf-8"))
    return {
        "hull": "known phases of oqmd_icsd, energies of one potential",
        "phases": len(phases(potential).energy),
        "near_oqmd_hull": about["above_oqmd_hull"],
        "geometry_of_phases": about["geometry"],
        "missing_phases": "the hull is lowered to that of oqmd_formulas, on OQMD's scale",
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


def above_hull(
    counts: ArrayLike,
    energy: ArrayLike,
    potential: str = "chgnet",
    *,
    added: ArrayLike | None = None,
) -> HullVerdict:
    """Energy above the hull of all known phases.

    Phases that nobody knows are missing: a crystal may be less stable than it looks here.

    Args:
        counts: (n, 119) atoms of each element.
        energy: (n,) eV/atom by this potential.
        potential: which potential the energies are from.
        added: (n,) eV/atom, corrections MP2020 of these crystals (`corrections.mp2020`), for a
            potential that did not learn them; the known phases then get theirs.
    """
    known = phases(potential)
    if added is not None:
        energy = np.asarray(energy, dtype=float) + np.asarray(added, dtype=float)
    fraction, energy = _fractions(counts, energy)
    formed = formation_energy(counts, energy, potential)
    n, lacks = len(energy), missing(counts)
    above, competitors = np.full(n, np.nan), np.zeros(n, dtype=np.int64)
    reasons = np.full(n, "", dtype=object)
    systems, which = np.unique(fraction > 0, axis=0, return_inverse=True)
    for s, system in enumerate(systems):
        members = np.flatnonzero(which.ravel() == s)
        names = "-".join(elements.SYMBOLS[z] for z in np.flatnonzero(system))
        unknown = np.flatnonzero(system & np.isnan(known.element_energy))
        if len(unknown):
            what = elements.SYMBOLS[unknown[0]]
            reasons[members] = f"no {known.potential} energy of elemental {what}"
            continue
        x, e, rows = known.system(system)
        if added is not None:
            e = e + np.array([_corrected(int(row)) for row in rows])
        compounds = int((x.max(1) < 1 - SAME).sum())
        competitors[members] = compounds
        for i in members:
            if np.isnan(energy[i]):
                reasons[i] = "no energy"
                continue
            mixture = hull_energy(fraction[i, system], x[:, system], e) - lacks[i]
            above[i] = energy[i] - mixture
            if not compounds and system.sum() > 1:
                reasons[i] = f"no known compound in {names}: the hull is that of the elements"
    return HullVerdict(above, lacks, formed, competitors, np.isfinite(above), tuple(reasons))


@cache
def _corrected(row: int) -> float:
    """What MP2020 adds to a phase, eV/atom; nothing to elements, which may have no row."""
    from ..datasets import load
    from .corrections import mp2020

    return float(mp2020(load("oqmd_icsd").crystals[[row]])[0]) if row >= 0 else 0.0


def missing(counts: ArrayLike) -> np.ndarray:
    """How far OQMD's hull of all formulas lies below the hull of the phases that we have.

    Both hulls are on OQMD's scale, with the elements at zero; the formula itself competes too, in
    the lowest form that OQMD knows. A difference of two hulls by one method, so that it can be
    carried over to a potential.

    Args:
        counts: (n, 119) atoms of each element.

    Returns:
        (n,) eV/atom, never negative.
    """
    ours, everything = _oqmd()
    return _by_composition(counts, lambda x: max(ours.hull(x) - everything.hull(x), 0.0))


def oqmd_distance(counts: ArrayLike) -> np.ndarray:
    """(n,) eV/atom from OQMD's hull to the lowest phase of each formula; NaN if it lists none.

    Args:
        counts: (n, 119) atoms of each element.
    """
    _, everything = _oqmd()
    return _by_composition(counts, lambda x: everything.lowest(x) - everything.hull(x))


def _by_composition(counts: ArrayLike, ask: Callable[[np.ndarray], float]) -> np.ndarray:
    """(n,) answers about atomic fractions, each composition asked once."""
    fraction, _ = _fractions(counts, np.zeros(len(np.asarray(counts))))
    found, which = np.unique(np.round(fraction, 9), axis=0, return_inverse=True)
    return np.array([ask(each) for each in found])[which.ravel()]


class Formulas:
    """Compositions with formation energies by OQMD; the elements lie at zero."""

    def __init__(self, counts: np.ndarray, energy: np.ndarray) -> None:
        self.counts, self.energy = counts, energy
        self.held = _packed(counts > 0)

    def hull(self, wanted: np.ndarray) -> float:
        """Energy of the hull at (119,) atomic fractions, eV/atom."""
        fraction, energy = self._system(wanted)
        return hull_energy(wanted[wanted > 0] / wanted.sum(), fraction, energy)

    def lowest(self, wanted: np.ndarray) -> float:
        """Lowest energy of a phase with these atomic fractions; NaN where there is none."""
        fraction, energy = self._system(wanted)
        same = np.abs(fraction - wanted[wanted > 0]).max(1) < SAME_COMPOSITION
        return float(energy[same].min()) if same.any() else np.nan

    def _system(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        present = wanted > 0
        rows = _within(self.held, present)
        inside = self.counts[rows][:, present].astype(float)
        fraction = np.concatenate([inside / inside.sum(1, keepdims=True), np.eye(present.sum())])
        return fraction, np.concatenate([self.energy[rows], np.zeros(present.sum())])


@cache
def _oqmd() -> tuple[Formulas, Formulas]:
    """Our phases, and with them all formulas that OQMD lists."""
    from ..datasets import load

    with np.load(data_path("potentials", "potentials.npz"), allow_pickle=False) as file:
        rows = file["rows"].astype(np.int64)
    known = load("oqmd_icsd")
    mine = known.crystals.counts().numpy()[rows].astype(np.int16)
    energy = known.table["formation_energy"].to_numpy()[rows]
    listed = load("oqmd_formulas").table
    formed = listed["formation_energy"].to_numpy()
    sane = formed > LOWEST
    others = amounts(listed["formula"].tolist()).astype(np.int16)[sane]
    everything = np.concatenate([mine, others]), np.concatenate([energy, formed[sane]])
    return Formulas(mine, energy), Formulas(*everything)


def _packed(held: np.ndarray) -> np.ndarray:
    """(n, 2) uint64: which of 119 elements each phase holds, one bit an element."""
    padded = np.zeros((len(held), 128), dtype=bool)
    padded[:, : held.shape[1]] = held
    return np.packbits(padded, axis=1).view(np.uint64)


def _within(held: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Rows of the phases that hold no element but those present."""
    return np.flatnonzero(~(held & ~_packed(present[None])).any(1))


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
    counts = reals("counts", counts, "n", elements.N_COLUMNS)
    energy = reals("energy", energy, len(counts), finite=False)
    atoms = counts.sum(1, keepdims=True)
    if not (atoms > 0).all():
        raise InputError(f"composition {int(np.argmin(atoms))} has no atoms")
    return counts / atoms, energy
