"""The cheap road to an energy: where symmetry fixes all sites, only the volume is left to find.

A coarse scan brackets the minimum, five fine points over ±3 % of the length follow, and the
equation of state of Birch and Murnaghan, a cubic polynomial in V^(-2/3), gives length, energy and
bulk modulus. Points of many crystals share batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..crystals import CrystalBatch, symmetry
from ..crystals.rules import geometry_verdict
from .potentials import GATE, GPA, Potential, potential

COARSE = np.array([0.88, 0.94, 1.0, 1.06, 1.12])  # of the length
SHIFTS = 4  # how often the coarse window may follow the minimum over its edge
FINE, POINTS = 0.03, 5  # half width of the fine window, and energies in it
REFITS = 2
SOFTEST, STIFFEST = 0.5, 1000.0  # GPa; diamond has 440


@dataclass(frozen=True, eq=False)
class LatticeScan:
    """n crystals at the minimum of their equation of state."""

    crystals: CrystalBatch  # scaled to the minimum; as given where there is none
    energy: np.ndarray  # (n,) eV/atom, NaN where there is no minimum
    bulk_modulus: np.ndarray  # (n,) GPa
    reasons: tuple[str, ...]  # (n,) why there is no minimum, empty where there is one

    @property
    def ok(self) -> np.ndarray:
        """(n,) bool, there is a minimum."""
        return np.isfinite(self.energy)


def lattice_scan(
    crystals: CrystalBatch, model: str | Potential = "chgnet", *, coarse: bool = True
) -> LatticeScan:
    """Scale crystals to the volume of lowest energy; shapes and fractional coordinates stay.

    This is a relaxation only where `symmetry.only_scale_is_free`; elsewhere the energy is an upper
    bound.

    Args:
        crystals: n crystals near their volume; those that break the distance gate are not scanned.
        model: a potential or its name.
        coarse: look for the minimum first, within -40 % and +70 % of the length; without it the
            minimum must lie within a few percent.

    Raises:
        UnknownNameError: no such potential.
    """
    scan = _Scan(crystals, potential(model))
    if coarse:
        scan.bracket()
    scan.fit()
    return scan.result()


class _Scan:
    """State of the scan: ``centre`` is the present guess of each length, as a factor."""

    def __init__(self, crystals: CrystalBatch, model: Potential) -> None:
        n = len(crystals)
        self.given, self.model = crystals, model
        self.reasons = [""] * n
        verdict = geometry_verdict(crystals, GATE)
        for i in np.flatnonzero(~verdict.ok):
            self.reasons[i] = f"distance gate: {verdict.reason(int(i))}"
        self.rows = np.flatnonzero(verdict.ok)  # still in the race
        small = symmetry.primitive(crystals[self.rows]) if len(self.rows) else crystals
        self.small = dict(zip(self.rows.tolist(), small, strict=False))
        self.centre = np.ones(n)
        self.energy, self.modulus = np.full(n, np.nan), np.full(n, np.nan)

    def bracket(self) -> None:
        """Shift the coarse window until its lowest point is not at its edge."""
        moving = self.rows
        for _ in range(SHIFTS + 1):
            if not len(moving):
                return
            energy = self._energies(moving, COARSE)
            lowest = np.nanargmin(np.where(np.isnan(energy), np.inf, energy), axis=1)
            inside = (lowest > 0) & (lowest < len(COARSE) - 1)
            self.centre[moving] *= _parabola(energy, lowest, inside)
            moving = moving[~inside]
        self._drop(moving, "no minimum of the energy within -40 % and +70 % of the length")

    def fit(self) -> None:
        """Fit the equation of state around the guess, and again where it moved out."""
        factors = np.linspace(1 - FINE, 1 + FINE, POINTS)
        todo = self.rows
        for _ in range(REFITS + 1):
            if not len(todo):
                return
            energy = self._energies(todo, factors)
            factor, lowest, modulus = _equation_of_state(factors, energy)
            modulus *= GPA / self._volume_per_atom(todo)
            near = np.abs(factor - 1) <= FINE
            good = near & (modulus > SOFTEST) & (modulus < STIFFEST)
            self.energy[todo[good]], self.modulus[todo[good]] = lowest[good], modulus[good]
            step = np.where(np.isfinite(factor), factor, 1.0).clip(1 - 2 * FINE, 1 + 2 * FINE)
            self.centre[todo] *= np.where(good, factor, step)
            todo = todo[~good]
        self._drop(todo, "no equation of state fits the energies")

    def result(self) -> LatticeScan:
        factor = torch.as_tensor(np.where(np.isfinite(self.energy), self.centre, 1.0))
        scaled = CrystalBatch(
            self.given.lattice * factor[:, None, None], self.given.frac, self.given.numbers
        )
        return LatticeScan(scaled, self.energy, self.modulus, tuple(self.reasons))

    def _energies(self, rows: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """(rows, factors) eV/atom of the crystals scaled about their guess."""
        small = CrystalBatch.cat([self.small[int(i)] for i in rows])
        n, k = len(rows), len(factors)
        scale = torch.as_tensor((self.centre[rows, None] * factors).ravel())
        spread = small[np.repeat(np.arange(n), k)]
        scaled = CrystalBatch(spread.lattice * scale[:, None, None], spread.frac, spread.numbers)
        # the gate stood at the door; the walls of a scan may be closer than it allows
        return self.model.energies(scaled, gate=None).reshape(n, k)

    def _volume_per_atom(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) Å^3 at the present guess."""
        volume = np.array([float(self.small[int(i)].lattice[0].det().abs()) for i in rows])
        atoms = np.array([int(self.small[int(i)].n_sites[0]) for i in rows])
        return volume / atoms * self.centre[rows] ** 3

    def _drop(self, rows: np.ndarray, reason: str) -> None:
        for i in rows:
            self.reasons[i] = reason
        self.rows = np.setdiff1d(self.rows, rows)


def _parabola(energy: np.ndarray, lowest: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(rows,) factor of the minimum: of a parabola through three points, or the window's edge."""
    row = np.arange(len(energy))
    i = lowest.clip(1, len(COARSE) - 2)
    step = COARSE[1] - COARSE[0]
    left, middle, right = (energy[row, i + k] for k in (-1, 0, 1))
    with np.errstate(all="ignore"):
        shift = 0.5 * step * (left - right) / (left - 2 * middle + right)
    shift = np.nan_to_num(shift, posinf=0.0, neginf=0.0).clip(-step, step)
    return np.where(inside, COARSE[i] + shift, COARSE[lowest])


def _equation_of_state(
    factors: np.ndarray, energy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Birch-Murnaghan fit of (rows, points) energies.

    Returns:
        (rows,) factor of the length at the minimum (NaN without one), energy there, and
        V^2 d^2E/dV^2 there in eV/atom, times (V_guess / V_minimum) so that dividing by the volume
        at the guess gives the bulk modulus.
    """
    x = factors**-2.0 - 1.0  # (V / V_guess)^(-2/3) - 1
    design = x[:, None] ** np.arange(4)  # (points, 4)
    usable = np.isfinite(energy).all(1)
    coefficients = np.linalg.pinv(design) @ np.where(usable[:, None], energy, 0.0).T
    c0, c1, c2, c3 = coefficients  # each (rows,)
    with np.errstate(all="ignore"):
        root = np.sqrt(c2**2 - 3 * c1 * c3)
        place = -c1 / (c2 + root)  # the root of the derivative with positive curvature
        factor = np.where(usable, (1 + place) ** -0.5, np.nan)
        lowest = c0 + place * (c1 + place * (c2 + place * c3))
        curvature = 2 * c2 + 6 * c3 * place  # d^2E/dx^2
        modulus = 4 / 9 * curvature * (1 + place) ** 3.5
    return factor, lowest, modulus
